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
pbs() {  # a command of PBS; a node may have it where the submitting shell had it
  PATH="$PATH:${PBS_O_PATH:-}" "$@"
}
alive() {  # JOB: 0 it waits or is at work, 1 it has ended, 2 ask again
  local said; said=$(pbs qstat "$1" 2>/dev/null)
  case $? in
    0) ;;
    35 | 153) return 1 ;;  # it has finished; it is not known
    *) return 2 ;;
  esac
  case $(echo "$said" | awk 'END { print $(NF - 1) }') in
    C | F | X) return 1 ;;
    E) return 2 ;;
  esac
}
behind() {  # [JOB]: sets the dependency of the continuation: on that job, and on this one
  local jobs=$1 array="" last
  case $own in
    *_*) jobs="$jobs:$PBS_JOBID" ;;
    *) jobs="$jobs:$PBS_JOBID" ;;
  esac
  jobs=${jobs#:}
  depend="$array${array:+${jobs:+,}}${jobs:+afterany:$jobs}"
}
submit() {  # [JOB]: prints the id of the continuation
  behind "$1" || return 1
  pbs qsub ${depend:+-W depend="$depend"} -v SUBMITIT_PBS_ID="$SUBMITIT_PBS_ID" /data/runs/first/.submitit/1/"${SUBMITIT_PBS_ID%%_*}_submission.sh"
}
submit_again() {  # [JOB]: behind that job, too; the new job has the id of this one in its environment
  if [ -e "${state%/*}/cancel.json" ]; then  # Torque runs a held job that is deleted
    echo "cancelled: not submitted again" >&2
    finish 1
  fi
  local pause=1 said="${state}_qsub" line="" next code
  while :; do
    submit "$1" >"$said.out" 2>"$said.err"; code=$?
    if [ "$code" -eq 0 ]; then
      next=$(tail -n 1 "$said.out")
      next=${next##*[!0-9A-Za-z.-]}; next=${next%%.*}
      echo "$next" >>"${state}_jobs"
      echo "to be continued by job $next"
      exit 0
    fi
    echo "qsub (exit code $code): $(tail -n 1 "$said.err"); trying again in $pause s" >&2
    [ "$pause" -le 32 ] || break
    [ -z "${SEGDIST_JOB_END:-}" ] || [ "$(($(date +%s) + pause + 5))" -lt "$SEGDIST_JOB_END" ] || break
    sleep "$pause"; pause=$((2 * pause))
  done
  refused=$(grep . "$said.err" | tail -n 1); refused=${refused:-qsub: exit code $code}
  echo "cannot be continued: $refused; submit it again" >&2
}
refuse() {  # this job cannot be continued: let its result say so
  :
}
wait_for() {  # FOLDER/ID ok|any: go on where that job has ended well, or again behind what goes on with it
  local last pause=1 waited="${state}_waited_${1##*/}"
  while [ "$pause" -le 16 ]; do
    ls "${1%/*}" >/dev/null  # lets a network file system look again
    [ -e "$1_exit" ] && break
    last=$(tail -n 1 "$1_jobs" 2>/dev/null); last=${last:-${1##*/}}
    case $last in
      *_*) [ "$2" = any ] && break ;;  # an element: its array has ended
      *) alive "$last"
        case $? in
          0) if [ "$last" != "$(cat "$waited" 2>/dev/null)" ]; then
              echo "$last" >"$waited"
              submit_again "$last"
              refuse; finish 1
            fi ;;
          1) [ "$2" = any ] && break ;;  # it was killed, or is new to this network file system
        esac ;;
    esac
    sleep "$pause"; pause=$((2 * pause))
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
  submit_again
  refuse; code=1
fi
finish "$code"
