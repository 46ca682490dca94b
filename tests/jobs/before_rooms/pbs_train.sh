#!/bin/bash
#PBS -S /bin/bash
#PBS -N first-train
#PBS -q workq
#PBS -l select=2:ncpus=56:mpiprocs=2
#PBS -l place=scatter:excl
#PBS -l walltime=12:00:00
#PBS -W umask=022
#PBS -j oe
#PBS -o @FOLDER@/runs/first/.submitit/1/
#PBS -r y

umask 022
own=${PBS_JOBID%%.*}; own=${own%]}; own=${own/[/_}; own=${own/-/_}  # 47[3].server is 47_3
export SUBMITIT_PBS_ID="${SUBMITIT_PBS_ID:-$own}" SUBMITIT_EXECUTOR=pbs
state=@FOLDER@/runs/first/.submitit/1/"$SUBMITIT_PBS_ID"
mkdir -p "${state%/*}" || exit 1
exec >>"${state}_0_log.out" 2>&1
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
export SEGDIST_JOB_END=$(($(date +%s) + 43200)) SEGDIST_SAVE_MARGIN=300

trap 'kill -TERM "$child" 2>/dev/null' TERM
@PYTHON@ -u -m submitit.core._submit @FOLDER@/runs/first/.submitit/1 &
child=$!
while :; do wait "$child"; code=$?; kill -0 "$child" 2>/dev/null || break; done

if [ "$code" -eq 75 ] || [ -e "${state}_requeue" ]; then
  rm -f "${state}_requeue"
  submit_again afterany:$PBS_JOBID
fi
finish "$code"
