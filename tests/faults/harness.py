"""Trainings that are started, hit by a fault, and started again; and what they leave, to be compared."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from segdist.models.model_file import load_tensors
from segdist.run.folder import RunFolder
from segdist.run.result import read_metrics, read_result
from segdist.system.ranks import Ranks, rank_environment

OPTIONS = (
    *("--width", "4", "--epochs", "3", "--crop", "32x64", "--batch", "2", "--workers", "0", "--ipex", "off"),
    *(
        "--precision",
        "fp32",
        "--threads",
        "1",
        "--check",
        "headers",
        "--val-size",
        "32x64",
        "--checkpoint-minutes",
        "0",
    ),
)
STEPS = 12
"""Of a training with these options on the eight images of ``streets``."""
Fault = dict[str, Any]


class Zygote:
    """See zygote.py."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def ask(self, **request: Any) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        (answer,) = json.loads(self.process.stdout.readline()).values()
        return int(answer)


@dataclass
class Start:
    """The ranks of one start of a training."""

    zygote: Zygote
    pids: list[int]
    logs: list[Path]
    ended: dict[int, int] = field(default_factory=dict)

    def wait(self, rank: int) -> int:
        """The exit code of a rank; negative for a signal."""
        if rank not in self.ended:
            self.ended[rank] = self.zygote.ask(wait=self.pids[rank])
        return self.ended[rank]

    def codes(self) -> list[int]:
        return [self.wait(rank) for rank in range(len(self.pids))]

    def signal(self, number: int, *ranks: int) -> None:
        for rank in ranks or range(len(self.pids)):
            os.kill(self.pids[rank], number)  # not waited for yet: the number is still the rank's

    def kill(self) -> None:
        """End what is left of it."""
        for rank in range(len(self.pids)):
            if rank not in self.ended:
                self.signal(signal.SIGKILL, rank)
        self.codes()

    def log(self, rank: int = 0) -> str:
        return self.logs[rank].read_text()

    def await_text(self, text: str, rank: int = 0, seconds: float = 60) -> None:
        """Until the rank has said ``text``."""
        end = time.monotonic() + seconds
        while text not in self.log(rank):
            assert time.monotonic() < end, f"rank {rank} did not say {text!r}:\n{self.log(rank)}"
            time.sleep(0.02)

    def await_frozen(self, rank: int) -> None:
        """Until the rank is stopped, as by the fault "hang"."""
        while True:
            state = Path(f"/proc/{self.pids[rank]}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "T":
                return
            assert state != "Z", self.log(rank)

    def wake(self, rank: int) -> None:
        """Let a stopped rank go on."""
        self.signal(signal.SIGCONT, rank)


@dataclass
class Training:
    """One training in one run folder, started as often as it takes."""

    zygote: Zygote
    path: Path
    data: Path
    world: int = 2
    options: tuple[str, ...] = OPTIONS
    starts: int = 0

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.path)

    def start(
        self, *options: str, faults: dict[int, list[Fault]] | None = None, task: str = "train", **environment: str
    ) -> Start:
        """Start every rank; ``faults`` by rank."""
        logs = self.path.parent / f"{self.path.name}-logs"
        logs.mkdir(exist_ok=True)
        self.starts += 1
        own = self.options if task == "train" else ()
        argv = [task, "--run", str(self.path), "--data", str(self.data), *own, *options]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        pids, paths = [], []
        for rank in range(self.world):
            ranks = Ranks(rank, self.world, rank, self.world, 0, "test", "127.0.0.1")
            paths.append(logs / f"start{self.starts}-rank{rank}.log")
            pids.append(
                self.zygote.ask(
                    start=argv,
                    env={**rank_environment(ranks, port), **environment},
                    log=str(paths[-1]),
                    faults=(faults or {}).get(rank, []),
                )
            )
        return Start(self.zygote, pids, paths)

    def finish(self, *options: str, **environment: str) -> Start:
        """Start it, and see it through."""
        start = self.start(*options, **environment)
        assert start.codes() == [0] * self.world, "\n".join(start.log(rank) for rank in range(self.world))
        return start

    def is_completed(self) -> bool:
        result = self.run.step("train").result_json
        return result.exists() and read_result(result).status == "completed"

    def left(self) -> dict[str, Any]:
        """What must not depend on how often the training was hit: rows, step losses, weights, optimizer."""
        step = self.run.step("train")
        last = load_tensors(step.checkpoints / "last.pt")
        result = step.read_result()
        assert result.status == "completed"
        best = load_tensors(step.checkpoints / "best.pt")
        return {
            "rows": [without_times(row) for row in read_metrics(step.metrics_jsonl)],
            "steps": read_metrics(step.steps_jsonl),
            "weights": last["weights"],
            "optimizer": last["optimizer"],
            "best": best["weights"],
            "best_epoch": result.metrics["best_epoch"],
            "model": load_tensors(self.run.model_pt)["weights"],
        }


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in row if name not in ("images_per_s", "time_per_image_ms", "elapsed_s")}


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    differing = [name for name in one if not same(one[name], other[name])]
    seen = [(one[name], other[name]) for name in differing if name in ("rows", "steps")]
    assert not differing, f"{differing}: {seen}"
