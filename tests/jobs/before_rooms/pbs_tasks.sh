#!/bin/bash
#PBS -S /bin/bash
#PBS -N submitit
#PBS -l select=2:ncpus=2:mpiprocs=2
#PBS -l place=scatter
#PBS -l walltime=00:05:00
#PBS -W umask=022
#PBS -j oe
#PBS -o @FOLDER@/runs/first/.submitit/1/
#PBS -r y

umask 022
own=${PBS_JOBID%%.*}; own=${own%]}; own=${own/[/_}; own=${own/-/_}  # 47[3].server is 47_3
export SUBMITIT_PBS_ID="${SUBMITIT_PBS_ID:-$own}" SUBMITIT_EXECUTOR=pbs
state=@FOLDER@/runs/first/.submitit/1/"$SUBMITIT_PBS_ID"
mkdir -p "${state%/*}" || exit 1
exec >>"${state}_log.out" 2>&1
export PATH=@PATH@
export PYTHONPATH=@ROOT@
cd @FOLDER@ || exit 1

finish() {
  echo "$1" >"${state}_exit.new" && mv "${state}_exit.new" "${state}_exit"
  exit "$1"
}
submit_again() {  # with this dependency; the new job has the id of this one in its environment
  if next=$(qsub -W depend="$1" -v SUBMITIT_PBS_ID="$SUBMITIT_PBS_ID" @FOLDER@/runs/first/.submitit/1/"${SUBMITIT_PBS_ID%%_*}_submission.sh"); then
    next=${next##*[!0-9A-Za-z.-]}; next=${next%%.*}
    echo "$next" >>"${state}_jobs"
    echo "to be continued by job $next"
    exit 0
  fi
  echo "cannot be continued: qsub refused; submit it again" >&2
}

[ -e "${state}_jobs" ] || echo "$own" >"${state}_jobs"
echo "$own on $(hostname) at $(date +%FT%T)" >>"${state}_starts"
export SEGDIST_RESTART=$(($(wc -l <"${state}_starts") - 1))
export SEGDIST_JOB_END=$(($(date +%s) + 300)) SEGDIST_SAVE_MARGIN=300

export SUBMITIT_PREEMPT_SIGNAL=USR1
trap 'kill -TERM "$child" 2>/dev/null' TERM
@PYTHON@ -u -m jobs.clusters.pbs.tasks --nodes 2 --tasks-per-node 2 --starter auto --state "$state" -- @PYTHON@ -u -m submitit.core._submit @FOLDER@/runs/first/.submitit/1 &
child=$!
(  # PBS warns nobody before the walltime; and here is a way to signal a job from outside
  trap - TERM
  while sleep 1; do
    if [ -e "${state}_interrupt" ]; then
      rm -f "${state}_interrupt"; kill -USR1 "$child"; exit
    elif [ "$(date +%s)" -ge $(($SEGDIST_JOB_END - 90)) ]; then
      kill -USR1 "$child"; exit
    fi
  done
) & watch=$!
while :; do wait "$child"; code=$?; kill -0 "$child" 2>/dev/null || break; done
kill "$watch" 2>/dev/null

if [ "$code" -eq 75 ] || [ -e "${state}_requeue" ]; then
  rm -f "${state}_requeue"
  submit_again afterany:$PBS_JOBID
fi
finish "$code"
