"""Starts the ranks that do steps, and tells them when; those that are not at work are stopped (SIGSTOP).

A process whose threads spin while they wait would else take the cores from the one that is timed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import psutil

from segdist.config import NetConfig
from segdist.machine.profile import Choices
from segdist.machine.search import RunnerFailed
from segdist.system.allocator import choose_allocator
from segdist.system.procfs import end_with_parent
from segdist.system.ranks import Ranks, rank_environment
from segdist.tuning.step_rank import StepPlan

_NOT_INHERITED = (
    *("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_CONF", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"),
)
_LONGEST_S = 300.0
_WARM_UP = 2


class StepRanks:
    """The ranks of one candidate: a process group for each rank, stopped unless a step is asked for.

    Raises:
        RunnerFailed: where they end before their first step, with their last words.
    """

    def __init__(self, plan: StepPlan, environ: Mapping[str, str], limit_s: float) -> None:
        self.plan = plan
        self.peak_memory_mb = 0.0
        self._words = tempfile.TemporaryFile()  # noqa: SIM115, closed with the ranks
        self._replies, writer = os.pipe()
        self._unread = b""
        self._processes: list[subprocess.Popen[bytes]] = []
        world, port = plan.choices.ranks, _free_port()
        try:
            for rank in range(world):
                ranks = Ranks(rank, world, rank, world, 0, "tune", "127.0.0.1")
                variables = rank_environment(ranks, port) if world > 1 else {}
                self._processes.append(self._start({**environ, **variables}, writer))
        finally:
            os.close(writer)
        try:
            end = time.monotonic() + limit_s
            for _ in range(_WARM_UP):
                self._ask("step", end - time.monotonic())
            self._signal(signal.SIGSTOP)
        except BaseException:
            self.close()
            raise

    def step(self) -> float:
        """Do a step; its seconds by rank 0's clock."""
        return float(self.ask("step")["seconds"])

    def ask(self, what: str) -> dict[str, Any]:
        """Wake the ranks, have ``what`` done, and stop them again."""
        self._signal(signal.SIGCONT)
        answer = self._ask(what, _LONGEST_S)
        self._signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        """End the ranks."""
        self._signal(signal.SIGKILL)
        for process in self._processes:
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
        os.close(self._replies)
        self._words.close()

    def _start(self, environ: Mapping[str, str], writer: int) -> subprocess.Popen[bytes]:
        end = end_with_parent(os.getpid(), signal.SIGKILL)

        def prepare() -> None:
            end()
            os.setpgid(0, 0)

        return subprocess.Popen(
            [sys.executable, "-m", "segdist.tuning.step_rank", self.plan.to_json(), str(writer)],
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._words,
            pass_fds=(writer,),
            bufsize=0,
            preexec_fn=prepare,
        )

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)

    def _ask(self, what: str, limit_s: float) -> dict[str, Any]:
        for process in self._processes:
            assert process.stdin is not None
            try:
                process.stdin.write(f"{what}\n".encode())
            except BrokenPipeError as error:
                raise RunnerFailed(self._last_words()) from error
        end = time.monotonic() + limit_s
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._replies], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise RunnerFailed(f"no step within {limit_s:.0f} s")
            data = os.read(self._replies, 1 << 16)
            if not data:
                raise RunnerFailed(self._last_words())
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        self.peak_memory_mb = max(self.peak_memory_mb, answer["peak_memory_mb"])
        return answer

    def _last_words(self) -> str:
        self._words.seek(0)
        lines = [line.strip() for line in self._words.read().decode(errors="replace").splitlines() if line.strip()]
        codes = ", ".join(str(process.wait(timeout=30)) for process in self._processes if process.poll() is not None)
        return lines[-1] if lines else f"its ranks ended with {codes}"


class StepBench:
    """Starts candidates of one net and crop on this node."""

    def __init__(self, net: NetConfig, crop: str, images: int, environ: Mapping[str, str] = os.environ) -> None:
        self.net, self.crop, self.images = net, crop, images
        self._environ = {name: value for name, value in environ.items() if name not in _NOT_INHERITED}

    def start(self, choices: Choices, limit_s: float = _LONGEST_S) -> StepRanks:
        """The ranks of a candidate, warmed up and waiting; RunnerFailed where that takes longer than ``limit_s``."""
        allocator = choose_allocator(choices.allocator, self._environ)
        waiting = {"OMP_WAIT_POLICY": choices.wait.upper()}
        plan = StepPlan(self.net, self.crop, self.images, choices)
        return StepRanks(plan, {**self._environ, **allocator.environment, **waiting}, limit_s)

    def room_for_more(self, peak_memory_mb: float) -> bool:
        """Whether the memory that is free holds another one of that size, and a third of it to spare."""
        return psutil.virtual_memory().available / 1e6 > 1.33 * peak_memory_mb


def foreign_load(seconds: float = 1.0) -> float:
    """Part of all cores, in [0, 1], that is at work while this process waits so long."""
    return float(psutil.cpu_percent(interval=seconds)) / 100


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
