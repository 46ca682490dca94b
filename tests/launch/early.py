"""Real launchers, ranks and runners, but for torch: the task only waits to be asked to stop, and has then saved."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOST_S = 30
SITE = f"""
import sys, time, types
from pathlib import Path

def run_task(task, config, ranks, cores, stop, *more):
    end = time.monotonic() + {LOST_S}
    while not stop and time.monotonic() < end:
        time.sleep(0.01)
    if not stop:
        return 9
    Path(config.run, f"saved{{ranks.rank}}").write_text(stop.signal.name)
    return 75

frame = types.ModuleType("segdist.tasks.frame")
frame.run_task = run_task
sys.modules["segdist.tasks.frame"] = frame
"""


def environ_without_torch(folder: Path) -> dict[str, str]:
    """An environment in which a task is the one above."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "PBS_", "SEGDIST_"))}
    return {**own, "PYTHONPATH": f"{folder / 'site'}:{ROOT}"}


@contextmanager
def _held_back() -> Iterator[None]:
    """USR1 is blocked, and is in what is started meanwhile: as by the ``env --block-signal`` of a job's script."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))


def warned_at(
    moments: Sequence[float], commands: Sequence[Sequence[str]], environ: Mapping[str, str]
) -> list[tuple[int, str]]:
    """Start each command and send it USR1 at its moment, in seconds; exit code and output of each."""

    def one(moment: float, command: Sequence[str]) -> tuple[int, str]:
        with _held_back():
            process = subprocess.Popen(
                list(command), env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        try:
            time.sleep(moment)
            process.send_signal(signal.SIGUSR1)
            output = process.communicate(timeout=LOST_S + 15)[0]
        finally:
            process.kill()
        return process.returncode, output

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, moments, commands))
