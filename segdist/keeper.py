"""What a training writes, and what it goes on from: checkpoints, rows, the best model."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from segdist.background import Snapshot, Writer
from segdist.checkpoint import CheckpointFolder, read_checkpoint
from segdist.config import TrainConfig
from segdist.models.auxiliary import inner_net
from segdist.models.files import ModelInfo, save_model
from segdist.optimizers import WeightAverage
from segdist.results import RunFolder, append_json_lines, read_metrics, write_atomic
from segdist.session import Session, ToBeContinued
from segdist.training_state import Position, capture, require_same_run, restore

LrOfStep = Callable[[int], float]


class Keeper:
    """Keeps a training's state in its step folder. Rank 0 writes, beside the training.

    Every method but :meth:`is_due`, ``found`` and :meth:`check` is for all ranks together.

    Args:
        session: this rank's.
        config: the training's.
        fingerprint: of the run; see :func:`segdist.training_state.fingerprint`.
        info: of the net, for ``model.pt``.
        precision: name of the arithmetic.
        steps_an_epoch: of the sampler.
    """

    def __init__(
        self,
        session: Session,
        config: TrainConfig,
        fingerprint: dict[str, str],
        info: ModelInfo,
        precision: str,
        steps_an_epoch: int,
    ) -> None:
        self.session = session
        self.how = config.training
        self.model_pt = RunFolder(config.run).model_pt
        self.folder = CheckpointFolder(session.step.checkpoints, config.training.keep)
        self.stalls: list[float] = []
        self._fingerprint = fingerprint
        self._info = info
        self._precision = precision
        self._steps_an_epoch = steps_an_epoch
        self._last_save = time.monotonic()
        self._saved_step: int | None = None
        self._snapshot = Snapshot()
        self._writer = Writer()
        session.finish_writing = self._writer.join

    # What it goes on from --------------------------------------------------------------------------------------

    def resume(self, net: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None) -> Position:
        """Go on from the newest good checkpoint, or start at the beginning where there is none.

        Rows of ``metrics.jsonl`` and ``steps.jsonl`` beyond the checkpoint are dropped.

        Raises:
            ConfigError: where the checkpoint is of another run.
        """
        state: dict[str, Any] | None = None

        def find() -> str | None:
            nonlocal state
            self.session.check_fence()
            self.folder.clean()
            found = self.folder.newest(self.session.warn)
            if found is None:
                return None
            path, state = found
            require_same_run(path, state["fingerprint"], self._fingerprint)
            return str(path)

        path = self.session.on_main(find)
        if path is None:
            return Position()
        state = state or read_checkpoint(Path(path))
        position = restore(state, net, optimizer, average, self.session.collectives)
        self._saved_step = state["step"]
        self.session.log(
            f"goes on from {path}: step {state['step']} (epoch {position.epoch + 1}, "
            f"{position.batch} of {self._steps_an_epoch} steps done)"
        )
        if state["precision"] != self._precision:
            self.session.warn(f"{path}: was trained in {state['precision']}, goes on in {self._precision}")
        is_best = bool(state["is_best"])
        self.session.on_main(lambda: self._drop_rows(Path(path), position, is_best))
        return position

    def _drop_rows(self, path: Path, position: Position, is_best: bool) -> None:
        step = self.session.step
        done = position.epoch * self._steps_an_epoch
        rows = [row for row in read_metrics(step.steps_jsonl) if row["step"] <= done]
        _write_rows(step.steps_jsonl, rows)
        _write_rows(step.metrics_jsonl, position.rows)
        if is_best:  # it may have been killed before it came to this
            self.folder.mark_best(path)

    # What it writes --------------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint within an epoch (rank 0's clock)."""
        return self.session.is_main and time.monotonic() - self._last_save >= 60 * self.how.checkpoint_minutes

    def save(
        self,
        position: Position,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
        is_best: bool = False,
        before: Callable[[dict[str, Tensor]], None] | None = None,
    ) -> None:
        """Copy the state, and let a checkpoint be written of it; ``before`` that, write what belongs to it.

        Args:
            is_best: whether the epoch that has just ended is the best.
            before: is given the copied weights of the model.
        """
        start = time.monotonic()
        state = {
            "step": position.epoch * self._steps_an_epoch + position.batch,
            "fingerprint": self._fingerprint,
            "precision": self._precision,
            "is_best": is_best,
            **capture(position, net, optimizer, average, self.session.collectives),
        }
        if self.session.is_main:
            self._last_save = time.monotonic()
            self._writer.join()
            if not self.found:  # else all ranks learn of it in the next step's exchange, or in finish()
                self._begin_write(self._snapshot.take(state), inner_net(net), average is not None, before)
            self.stalls.append(time.monotonic() - start)

    def _begin_write(
        self,
        state: dict[str, Any],
        net: nn.Module,
        averaged: bool,
        before: Callable[[dict[str, Tensor]], None] | None,
    ) -> None:
        def work() -> None:
            if before is not None:
                before(_model_weights(state, net, averaged))
            self.session.check_fence()
            self.folder.write(state, state["is_best"])
            self._saved_step = state["step"]

        self._writer.start(work)

    def end_epoch(
        self,
        position: Position,
        row: dict[str, Any],
        lr: LrOfStep,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
    ) -> None:
        """Write the epoch's rows, ``model.pt`` where it is the best, and a checkpoint.

        In this order: after a crash in between, the rows are ahead of the checkpoint, and a resume drops them.
        """
        first = position.epoch * self._steps_an_epoch
        steps = [
            {"step": first + index + 1, "epoch": position.epoch + 1, "lr": lr(first + index), "loss": loss}
            for index, loss in enumerate(position.losses)
        ]
        is_best = position.end_epoch(row)

        def write(weights: dict[str, Tensor]) -> None:
            self.session.check_fence()
            append_json_lines(self.session.step.steps_jsonl, steps)
            append_json_lines(self.session.step.metrics_jsonl, [row])
            if is_best:
                self.session.check_fence()
                save_model(self.model_pt, self._info, weights)

        self.save(position, net, optimizer, average, is_best, write)

    def finish(self) -> None:
        """Wait until all is on disk."""
        self.session.on_main(self.check)

    def stop(
        self,
        position: Position,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
    ) -> NoReturn:
        """Save, and end this start of the training.

        Raises:
            ToBeContinued: always.
        """
        self.save(position, net, optimizer, average)
        self.finish()
        by = next(name for name in self.session.collectives.gather(_name(self.session)) if name)
        step = position.epoch * self._steps_an_epoch + position.batch
        raise ToBeContinued(
            f"stopped on {by} after step {step} of {self._steps_an_epoch * self.how.epochs} "
            f"(epoch {position.epoch + 1}): saved {self.folder.last}; the same command goes on from there"
        )

    # What went wrong -------------------------------------------------------------------------------------------

    @property
    def found(self) -> bool:
        """Whether rank 0 cannot go on: a write failed, or the step is another's now."""
        fence = self.session.fence
        return self._writer.failed or (fence is not None and fence.lost.is_set())

    def check(self) -> None:
        """Raise what rank 0 has run into."""
        if self.session.is_main:
            self._writer.wait()
            self.session.check_fence()

    def last_saved(self) -> str:
        """Where the training could go on from; rank 0 knows, and tells all."""
        return self.session.on_main(self._last_saved)

    def _last_saved(self) -> str:
        self._writer.join()
        if self._saved_step is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self.folder.last} (step {self._saved_step})"

    def figures(self) -> dict[str, float]:
        """For ``result.json``: how large a checkpoint is, how long it is written, how long the training waits."""
        if not (self.stalls and self._writer.seconds):
            return {}
        return {
            "checkpoints": len(self.stalls),
            "checkpoint_mb": round(self.folder.last.stat().st_size / 1e6, 3),
            "checkpoint_write_ms_p50": round(1000 * statistics.median(self._writer.seconds), 3),
            "checkpoint_stall_ms_p50": round(1000 * statistics.median(self.stalls), 3),
            "checkpoint_stall_ms_max": round(1000 * max(self.stalls), 3),
        }


def _model_weights(state: dict[str, Any], net: nn.Module, averaged: bool) -> dict[str, Tensor]:
    """The copied state dict of the model alone, its weights averaged where they are."""
    prefix = "net."
    weights: dict[str, Tensor] = state["weights"]
    own = net.state_dict()
    if not own.keys() <= weights.keys():  # there is an auxiliary head beside the net
        weights = {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
    return {**weights, **state["average"]} if averaged else weights


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_atomic(path, text.encode())


def _name(session: Session) -> str:
    return session.stop.signal.name if session.stop.signal is not None else ""
