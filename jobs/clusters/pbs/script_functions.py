"""The shell functions of a PBS job script: how it ends, submits itself again, and waits for other jobs.

What a continuation waits for (``behind``) is no small matter:

- OpenPBS takes no dependency on an element of an array. Where the array has no throttle the continuation waits for
  nothing: its predecessor's command has ended, and only this shell is left.
- A continuation out of an array is a single job, which holds none of the array's slots. So that a throttle of T holds,
  it waits for the whole array, and then in one of T lines, behind the last job that joined it.
- A job behind one that the server has forgotten, or that was deleted by a dependency, is deleted by OpenPBS. So the
  server is asked before (``alive``).
"""

from __future__ import annotations

from jobs.clusters.pbs.dialect import Dialect
from jobs.clusters.request import Request
from jobs.record.job_folder import CANCEL, REFUSED

ID = "SUBMITIT_PBS_ID"
"""Environment variable with the job's id as submitit knows it: that of the first job of a chain."""

_LONGEST_PAUSE_S = 32
"""Between two tries of qsub; the pauses double from one second, so that it is tried for a minute."""


def functions(request: Request, dialect: Dialect, script: str) -> list[str]:
    """The functions; ``script`` is the file that is submitted again, as shell text."""
    lines = [
        "finish() {",
        '  echo "$1" >"${state}_exit.new" && mv "${state}_exit.new" "${state}_exit"',
        '  exit "$1"',
        "}",
        "pbs() {  # a command of PBS; a node may have it where the submitting shell had it",
        '  PATH="$PATH:${PBS_O_PATH:-}" "$@"',
        "}",
    ]
    if request.after or request.throttle:
        lines += _ALIVE
    lines += _behind(request, dialect)
    lines += _submit_again(request, script)
    tell = f'{REFUSED}="$refused" {request.command}' if request.tells_refusal else ":"
    lines += ["refuse() {  # this job cannot be continued: let its result say so", f"  {tell}", "}"]
    return [*lines, *_WAIT_FOR] if request.after else lines


_ALIVE = [
    "alive() {  # JOB: 0 it waits or is at work, 1 it has ended, 2 ask again",
    '  local said; said=$(pbs qstat "$1" 2>/dev/null)',
    "  case $? in",
    "    0) ;;",
    "    35 | 153) return 1 ;;  # it has finished; it is not known",
    "    *) return 2 ;;",
    "  esac",
    "  case $(echo \"$said\" | awk 'END { print $(NF - 1) }') in",
    "    C | F | X) return 1 ;;",
    "    E) return 2 ;;",
    "  esac",
    "}",
]


def _behind(request: Request, dialect: Dialect) -> list[str]:
    """``behind [JOB]`` sets ``depend``; it fails where the server does not say what it must know."""
    torque = dialect == "torque"
    element = 'jobs="$jobs:$PBS_JOBID"' if torque else ""
    if request.throttle:
        element = 'array="afteranyarray:${own%_*}[]"' if torque else 'jobs="$jobs:${own%_*}[]"'
    lines = [
        "behind() {  # [JOB]: sets the dependency of the continuation: on that job, and on this one",
        '  local jobs=$1 array="" last',
        "  case $own in",
        f"    *_*) {element} ;;".replace("  ;;", " ;;"),
        '    *) jobs="$jobs:$PBS_JOBID" ;;',
        "  esac",
    ]
    if request.throttle:
        lines += [
            f"  case ${ID} in *_*)",
            f'    line="${{state%/*}}/${{{ID}%%_*}}_line_$((${{{ID}##*_}} % {request.throttle}))"',
            '    last=$(tail -n 1 "$line" 2>/dev/null)',
            '    if [ -n "$last" ] && [ "$last" != "$own" ]; then',
            '      alive "$last"',
            "      case $? in",
            '        0) jobs="$jobs:$last" ;;',
            '        2) echo "the server does not say what job $last does" >&2; return 1 ;;',
            "      esac",
            "    fi ;;",
            "  esac",
        ]
    return [*lines, "  jobs=${jobs#:}", '  depend="$array${array:+${jobs:+,}}${jobs:+afterany:$jobs}"', "}"]


def _submit_again(request: Request, script: str) -> list[str]:
    lock = [
        "  for try in 1 2 3 4 5 6 7 8 9 10; do  # others may join a line now",
        '    mkdir "${state%/*}/lines.lock" 2>/dev/null && break',
        "    sleep 1",
        "  done",
    ]
    unlock = ['  rmdir "${state%/*}/lines.lock" 2>/dev/null']
    throttled = bool(request.throttle)
    return [
        "submit() {  # [JOB]: prints the id of the continuation",
        '  behind "$1" || return 1',
        f'  pbs qsub ${{depend:+-W depend="$depend"}} -v {ID}="${ID}" {script}',
        "}",
        "submit_again() {  # [JOB]: behind that job, too; the new job has the id of this one in its environment",
        f'  if [ -e "${{state%/*}}/{CANCEL}" ]; then  # Torque runs a held job that is deleted',
        '    echo "cancelled: not submitted again" >&2',
        "    finish 1",
        "  fi",
        '  local pause=1 said="${state}_qsub" line="" next code',
        *(lock if throttled else []),
        "  while :; do",
        '    submit "$1" >"$said.out" 2>"$said.err"; code=$?',
        '    if [ "$code" -eq 0 ]; then',
        '      next=$(tail -n 1 "$said.out")',
        "      next=${next##*[!0-9A-Za-z.-]}; next=${next%%.*}",
        *(['      [ -z "$line" ] || echo "$next" >>"$line"', f"    {unlock[0]}"] if throttled else []),
        '      echo "$next" >>"${state}_jobs"',
        '      echo "to be continued by job $next"',
        "      exit 0",
        "    fi",
        '    echo "qsub (exit code $code): $(tail -n 1 "$said.err"); trying again in $pause s" >&2',
        f'    [ "$pause" -le {_LONGEST_PAUSE_S} ] || break',
        '    [ -z "${SEGDIST_JOB_END:-}" ] || [ "$(($(date +%s) + pause + 5))" -lt "$SEGDIST_JOB_END" ] || break',
        '    sleep "$pause"; pause=$((2 * pause))',
        "  done",
        *(unlock if throttled else []),
        '  refused=$(grep . "$said.err" | tail -n 1); refused=${refused:-qsub: exit code $code}',
        '  echo "cannot be continued: $refused; submit it again" >&2',
        "}",
    ]


_WAIT_FOR = [
    "wait_for() {  # FOLDER/ID ok|any: go on where that job has ended well, or again behind what goes on with it",
    '  local last pause=1 waited="${state}_waited_${1##*/}"',
    '  while [ "$pause" -le 16 ]; do',
    '    ls "${1%/*}" >/dev/null  # lets a network file system look again',
    '    [ -e "$1_exit" ] && break',
    '    last=$(tail -n 1 "$1_jobs" 2>/dev/null); last=${last:-${1##*/}}',
    "    case $last in",
    '      *_*) [ "$2" = any ] && break ;;  # an element: its array has ended',
    '      *) alive "$last"',
    "        case $? in",
    '          0) if [ "$last" != "$(cat "$waited" 2>/dev/null)" ]; then',
    '              echo "$last" >"$waited"',
    '              submit_again "$last"',
    "              refuse; finish 1",
    "            fi ;;",
    '          1) [ "$2" = any ] && break ;;  # it was killed, or is new to this network file system',
    "        esac ;;",
    "    esac",
    '    sleep "$pause"; pause=$((2 * pause))',
    "  done",
    '  if [ "$2" = ok ] && [ "$(cat "$1_exit" 2>/dev/null)" != 0 ]; then',
    '    echo "not begun: job ${1##*/} did not succeed" >&2',
    "    finish 1",
    "  fi",
    "}",
]
