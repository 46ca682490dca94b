#!/bin/bash
#PBS -S /bin/bash
#PBS -N first-train
#PBS -q batch
#PBS -l nodes=4:gold6128:ppn=24
#PBS -l walltime=06:00:00
#PBS -W umask=022
#PBS -j oe
#PBS -o /data/runs/first/.submitit/1/
#PBS -r y

umask 022
own=${PBS_JOBID%%.*}; own=${own%]}; own=${own/[/_}; own=${own/-/_}  # 47[3].server is 47_3
export SUBMITIT_PBS_ID="${SUBMITIT_PBS_ID:-$own}" SUBMITIT_EXECUTOR=pbs
state=/data/runs/first/.submitit/1/"$SUBMITIT_PBS_ID"
mkdir -p "${state%/*}" || exit 1
exec >>"${state}_0_log.out" 2>>"${state}_0_log.err"
export PATH=/venv/bin:/bin
export ODD='a '"'"'b'"'"' "c" $d\e'
cd '/home/u1/it'"'"'s $HOME' || exit 1

finish() {
  echo "$1" >"${state}_exit.new" && mv "${state}_exit.new" "${state}_exit"
  exit "$1"
}
submit_again() {  # with this dependency; the new job has the id of this one in its environment
  if next=$(qsub -W depend="$1" -v SUBMITIT_PBS_ID="$SUBMITIT_PBS_ID" /data/runs/first/.submitit/1/"${SUBMITIT_PBS_ID%%_*}_submission.sh"); then
    next=${next##*[!0-9A-Za-z.-]}; next=${next%%.*}
    echo "$next" >>"${state}_jobs"
    echo "to be continued by job $next"
    exit 0
  fi
  echo "cannot be continued: qsub refused; submit it again" >&2
}
wait_for() {  # FOLDER/ID ok|any: go on where that job has ended well, or again behind its continuation
  for try in 1 2 3 4 5; do
    ls "${1%/*}" >/dev/null  # lets a network file system look again
    [ -e "$1_exit" ] && break
    last=$(tail -n 1 "$1_jobs" 2>/dev/null)
    waited="${state}_waited_${1##*/}"
    if [ -n "$last" ] && [ "$last" != "$(head -n 1 "$1_jobs")" ] &&
      [ "$last" != "$(cat "$waited" 2>/dev/null)" ]; then  # once: it may be killed, and leave nothing
      echo "$last" >"$waited"
      submit_again "afterany:$last"
      finish 1
    fi
    [ "$2" = any ] && break
    sleep 1
  done
  if [ "$2" = ok ] && [ "$(cat "$1_exit" 2>/dev/null)" != 0 ]; then
    echo "not begun: job ${1##*/} did not succeed" >&2
    finish 1
  fi
}

[ -e "${state}_jobs" ] || echo "$own" >"${state}_jobs"
last=$(tail -n 1 "${state}_jobs")  # the server may run a job again that lost a node and goes on elsewhere
if [ "$last" != "$own" ] && grep -qx "$own" "${state}_jobs"; then echo "goes on in job $last"; exit 0; fi
wait_for /data/runs/first/.submitit/1/12 ok
echo "$own on $(hostname) at $(date +%FT%T)" >>"${state}_starts"
export SEGDIST_RESTART=$(($(wc -l <"${state}_starts") - 1))
export SEGDIST_JOB_END=$(($(date +%s) + 21600)) SEGDIST_SAVE_MARGIN=300

source /opt/intel/oneapi/setvars.sh
trap 'kill -TERM "$child" 2>/dev/null' TERM
/venv/bin/python -u -m submitit.core._submit /data/runs/first/.submitit/1 &
child=$!
(  # PBS warns nobody before the walltime; and here is a way to signal a job from outside
  trap - TERM
  while sleep 1; do
    if [ -e "${state}_interrupt" ]; then
      rm -f "${state}_interrupt"; kill -USR2 "$child"; exit
    elif [ "$(date +%s)" -ge $(($SEGDIST_JOB_END - 90)) ]; then
      kill -USR2 "$child"; exit
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
