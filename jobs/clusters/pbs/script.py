"""The text of a PBS job script, and the command that submits it: pure functions of a request and a dialect.

What a script does besides running its command, and why, as PBS was seen to behave:

- it sets umask, folder and environment itself: a job starts in $HOME, with umask 077 and a login's environment;
- it writes its output where it is told, live: PBS delivers its own file at the end, and expands no ``%j``;
- it counts its starts in ID_starts: a job that the server runs again is not told so;
- it outlives SIGTERM, so that its command may end in its own way;
- where the command ends with 75 ("saved, to be continued") or leaves ID_requeue, it submits itself again and notes the
  new id in ID_jobs: users may not qrerun. The new job finds the files of the first one through SUBMITIT_PBS_ID;
- qsub is tried again for a while: a server restarts, and one refusal would end a training of days. What qsub has said
  at last is given to the command, which writes it into the result (where ``Request.tells_refusal``);
- it looks at the ID_exit of the jobs that it waits for: a job that is continued by another ends with 0, so that
  nobody behind it is deleted; who then finds it unfinished submits itself again behind the continuation;
- it leaves its exit code in ID_exit: what the server says about a job's end is wrong now and then, and soon gone.
"""

from __future__ import annotations

import re
import shlex

from jobs.clusters.directives import finish_script
from jobs.clusters.pbs.dialect import Dialect
from jobs.clusters.pbs.resources import in_dialect, resources
from jobs.clusters.pbs.script_functions import ID, functions
from jobs.clusters.request import After, Request
from segdist.run.exit_codes import TO_BE_CONTINUED

_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+=@-]+")
_LONGEST_NAME = {"pbspro": 236, "torque": 15}


def script_text(request: Request, dialect: Dialect) -> str:
    """The whole script.

    Raises:
        ConfigError: for what the dialect does not know.
    """
    request = in_dialect(request, dialect)
    lines = ["#!/bin/bash", *(f"#PBS {line}" for line in _directives(request, dialect)), ""]
    lines += [
        f"umask {request.umask}",
        "own=${PBS_JOBID%%.*}; own=${own%]}; own=${own/[/_}; own=${own/-/_}  # 47[3].server is 47_3",
        f'export {ID}="${{{ID}:-$own}}" SUBMITIT_EXECUTOR=pbs',
        f'state={shell_path(request.folder)}/"${ID}"',
        'mkdir -p "${state%/*}" || exit 1',
        *_redirection(request),
        *(f"export {name}={shlex.quote(value)}" for name, value in request.exports.items()),
        *([f"cd {shlex.quote(request.cwd)} || exit 1"] if request.cwd else []),
        "",
        *functions(request, dialect, _script_file(request.folder)),
        "",
        '[ -e "${state}_jobs" ] || echo "$own" >"${state}_jobs"',
        'last=$(tail -n 1 "${state}_jobs")  # the server may run a job again that lost a node and goes on elsewhere',
        'if [ "$last" != "$own" ] && grep -qx "$own" "${state}_jobs"; then echo "goes on in job $last"; exit 0; fi',
        *(_guard(after) for after in request.after),
        'echo "$own on $(hostname) at $(date +%FT%T)" >>"${state}_starts"',
        'export SEGDIST_RESTART=$(($(wc -l <"${state}_starts") - 1))',
    ]
    if request.walltime_s is not None:
        lines += [
            f"export SEGDIST_JOB_END=$(($(date +%s) + {request.walltime_s})) "
            f"SEGDIST_SAVE_MARGIN={request.save_margin_s}"
        ]
    lines += ["", *request.setup, *_run(request), *request.teardown, ""]
    lines += [
        f'if [ "$code" -eq {TO_BE_CONTINUED} ] || [ -e "${{state}}_requeue" ]; then',
        '  rm -f "${state}_requeue"',
        "  submit_again",
        "  refuse; code=1",
        "fi",
        'finish "$code"',
    ]
    text = "\n".join(lines) + "\n"
    return finish_script(text, "#PBS", request.made_by, request.add_directives, request.remove_directives)


def _guard(after: After) -> str:
    return f"wait_for {shell_path(after.files)} {'ok' if after.ok else 'any'}"


def _directives(request: Request, dialect: Dialect) -> list[str]:
    lines = ["-S /bin/bash", f"-N {job_name(request.name, dialect)}"]
    lines += [f"-q {request.queue}"] if request.queue else []
    lines += [f"-A {request.account}"] if request.account else []
    lines += [f"-l {value}" for value in resources(request, dialect)]
    lines += [f"-W umask={request.umask}", "-j oe", _own_output(request.folder)]
    lines += [f"-r {'y' if request.rerun else 'n'}"]
    lines += [option if option.startswith("-") else f"-l {option}" for option in request.options]
    return lines


def _own_output(folder: str) -> str:
    """Where PBS puts its own file, which holds what happened before the script's first lines: beside the others.

    qsub splits on blanks and quotes, Torque expands ``$``, and a colon ends a host name: such a folder is not named.
    """
    base = fixed_part(folder)
    return f"-o {base}/" if _PLAIN_PATH.fullmatch(base) else "-k oe"


def _redirection(request: Request) -> list[str]:
    if request.stderr_to_stdout:
        return [f'exec >>"${{state}}{request.output}.out" 2>&1']
    return [f'exec >>"${{state}}{request.output}.out" 2>>"${{state}}{request.output}.err"']


def _run(request: Request) -> list[str]:
    lines = [
        # PBS signals the processes of the first node: this shell must not be the first to go.
        "trap 'kill -TERM \"$child\" 2>/dev/null' TERM",
        f"{request.command} &",
        "child=$!",
    ]
    if request.signal_delay_s is not None:
        end = "$SEGDIST_JOB_END" if request.walltime_s is not None else ""
        late = f'[ "$(date +%s)" -ge $(({end} - {request.signal_delay_s})) ]' if end else "false"
        lines += [
            "(  # PBS warns nobody before the walltime; and here is a way to signal a job from outside",
            "  trap - TERM",
            "  while sleep 1; do",
            '    if [ -e "${state}_interrupt" ]; then',
            f'      rm -f "${{state}}_interrupt"; kill -{request.signal} "$child"; exit',
            f"    elif {late}; then",
            f'      kill -{request.signal} "$child"; exit',
            "    fi",
            "  done",
            ") & watch=$!",
        ]
    lines += ['while :; do wait "$child"; code=$?; kill -0 "$child" 2>/dev/null || break; done']
    if request.signal_delay_s is not None:
        lines += ['kill "$watch" 2>/dev/null']
    return lines


def _script_file(folder: str) -> str:
    """Where submitit keeps the script, as shell text: one for all elements of an array."""
    return f'{shell_path(folder)}/"${{{ID}%%_*}}_submission.sh"'


def job_name(text: str, dialect: Dialect) -> str:
    """A name that qsub takes: no blanks, a letter first, and no longer than the dialect allows."""
    name = re.sub(r"[^A-Za-z0-9_.+-]", "_", text)
    if not name[:1].isalpha():
        name = f"j{name}"
    return name[: _LONGEST_NAME[dialect]]


def fixed_part(folder: str) -> str:
    """The part of submitit's folder before the first component with an id in it."""
    parts = folder.split("/")
    at = next((k for k, part in enumerate(parts) if any(tag in part for tag in ("%j", "%A", "%a"))), len(parts))
    return "/".join(parts[:at])


def shell_path(folder: str) -> str:
    """A folder as shell text, its ids filled in by the shell."""
    pieces = re.split(r"(%[jAa])", folder)
    ids = {"%j": f'"${ID}"', "%A": f'"${{{ID}%%_*}}"', "%a": f'"${{{ID}##*_}}"'}
    return "".join(ids.get(piece) or (shlex.quote(piece) if piece else "") for piece in pieces)
