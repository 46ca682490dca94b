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

from segdist.config import TrainConfig
from segdist.models.aux_head import without_aux_head
from segdist.models.model_file import ModelInfo, save_model
from segdist.run.files import append_json_lines, write_atomic
from segdist.run.folder import RunFolder
from segdist.run.result import read_metrics
from segdist.runtime.rank_context import Preempted, RankContext
from segdist.training.async_writer import Snapshot, Writer
from segdist.training.checkpoint_file import CheckpointFolder, read_checkpoint
from segdist.training.ema import ExponentialMovingAverage
from segdist.training.state import TrainProgress, capture, require_same_run, restore

LrOfStep = Callable[[int], float]


class Checkpointer:
    """Keeps a training's state in its step folder. Rank 0 writes, beside the training.

    Every method but :meth:`is_due`, ``found`` and :meth:`check` is for all ranks together.

    Args:
        session: this rank's.
        config: the training's.
        fingerprint: of the run; see :func:`segdist.training.state.fingerprint`.
        info: of the net, for ``model.pt``.
        precision: name of the arithmetic.
        steps_an_epoch: of the sampler.
    """

    def __init__(
        self,
        context: RankContext,
        config: TrainConfig,
        fingerprint: dict[str, str],
        info: ModelInfo,
        precision: str,
        steps_an_epoch: int,
    ) -> None:
        self.context = context
        self.cfg = config.training
        self.model_pt = RunFolder(config.run).model_pt
        self.folder = CheckpointFolder(context.step.checkpoints, config.training.keep)
        self.stall_seconds: list[float] = []
        self._fingerprint = fingerprint
        self._info = info
        self._precision = precision
        self._steps_an_epoch = steps_an_epoch
        self._last_save = time.monotonic()
        self._saved_step: int | None = None
        self._snapshot = Snapshot()
        self._writer = Writer()
        context.finish_writing = self._writer.join

    # What it goes on from --------------------------------------------------------------------------------------

    def resume(
        self, net: nn.Module, optimizer: torch.optim.Optimizer, ema: ExponentialMovingAverage | None
    ) -> TrainProgress:
        """Go on from the newest good checkpoint, or start at the beginning where there is none.

        Rows of ``metrics.jsonl`` and ``steps.jsonl`` beyond the checkpoint are dropped.

        Raises:
            ConfigError: where the checkpoint is of another run.
        """
        state: dict[str, Any] | None = None

        def find() -> str | None:
            nonlocal state
            self.context.check_lease()
            self.folder.clean()
            found = self.folder.newest(self.context.warn)
            if found is None:
                return None
            path, state = found
            require_same_run(path, state["fingerprint"], self._fingerprint)
            return str(path)

        path = self.context.run_on_rank0(find)
        if path is None:
            return TrainProgress()
        state = state or read_checkpoint(Path(path))
        position = restore(state, net, optimizer, ema, self.context.collectives)
        self._saved_step = state["step"]
        self.context.log(
            f"goes on from {path}: step {state['step']} (epoch {position.epoch + 1}, "
            f"{position.batch} of {self._steps_an_epoch} steps done)"
        )
        if state["precision"] != self._precision:
            self.context.warn(f"{path}: was trained in {state['precision']}, goes on in {self._precision}")
        is_best = bool(state["is_best"])
        self.context.run_on_rank0(lambda: self._drop_rows(Path(path), position, is_best))
        return position

    def _drop_rows(self, path: Path, position: TrainProgress, is_best: bool) -> None:
        step = self.context.step
        done = position.epoch * self._steps_an_epoch
        rows = [row for row in read_metrics(step.steps_jsonl) if row["step"] <= done]
        _write_rows(step.steps_jsonl, rows)
        _write_rows(step.metrics_jsonl, position.rows)
        if is_best:  # it may have been killed before it came to this
            self.folder.mark_best(path)

    # What it writes --------------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint within an epoch (rank 0's clock)."""
        return self.context.is_rank0 and time.monotonic() - self._last_save >= 60 * self.cfg.checkpoint_minutes

    def save(
        self,
        position: TrainProgress,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: ExponentialMovingAverage | None,
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
            **capture(position, net, optimizer, ema, self.context.collectives),
        }
        if self.context.is_rank0:
            self._last_save = time.monotonic()
            self._writer.join()
            if not self.failed:  # else all ranks learn of it in the next step's exchange, or in finish()
                self._begin_write(self._snapshot.take(state), without_aux_head(net), ema is not None, before)
            self.stall_seconds.append(time.monotonic() - start)

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
            self.context.check_lease()
            self.folder.write(state, state["is_best"])
            self._saved_step = state["step"]

        self._writer.start(work)

    def end_epoch(
        self,
        position: TrainProgress,
        row: dict[str, Any],
        lr: LrOfStep,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: ExponentialMovingAverage | None,
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
            self.context.check_lease()
            append_json_lines(self.context.step.steps_jsonl, steps)
            append_json_lines(self.context.step.metrics_jsonl, [row])
            if is_best:
                self.context.check_lease()
                save_model(self.model_pt, self._info, weights)

        self.save(position, net, optimizer, ema, is_best, write)

    def finish(self) -> None:
        """Wait until all is on disk."""
        self.context.run_on_rank0(self.check)

    def stop(
        self,
        position: TrainProgress,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: ExponentialMovingAverage | None,
    ) -> NoReturn:
        """Save, and end this start of the training.

        Raises:
            Preempted: always.
        """
        self.save(position, net, optimizer, ema)
        self.finish()
        by = next(name for name in self.context.collectives.gather(_name(self.context)) if name)
        step = position.epoch * self._steps_an_epoch + position.batch
        raise Preempted(
            f"stopped on {by} after step {step} of {self._steps_an_epoch * self.cfg.epochs} "
            f"(epoch {position.epoch + 1}): saved {self.folder.last}; the same command goes on from there"
        )

    # What went wrong -------------------------------------------------------------------------------------------

    @property
    def failed(self) -> bool:
        """Whether rank 0 cannot go on: a write failed, or the step is another's now."""
        lease = self.context.lease
        return self._writer.failed or (lease is not None and lease.lost.is_set())

    def check(self) -> None:
        """Raise what rank 0 has run into."""
        if self.context.is_rank0:
            self._writer.wait()
            self.context.check_lease()

    def last_saved(self) -> str:
        """Where the training could go on from; rank 0 knows, and tells all."""
        return self.context.run_on_rank0(self._last_saved)

    def _last_saved(self) -> str:
        self._writer.join()
        if self._saved_step is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self.folder.last} (step {self._saved_step})"

    def figures(self) -> dict[str, float]:
        """For ``result.json``: how large a checkpoint is, how long it is written, how long the training waits."""
        if not (self.stall_seconds and self._writer.seconds):
            return {}
        return {
            "checkpoints": len(self.stall_seconds),
            "checkpoint_mb": round(self.folder.last.stat().st_size / 1e6, 3),
            "checkpoint_write_ms_p50": round(1000 * statistics.median(self._writer.seconds), 3),
            "checkpoint_stall_ms_p50": round(1000 * statistics.median(self.stall_seconds), 3),
            "checkpoint_stall_ms_max": round(1000 * max(self.stall_seconds), 3),
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


def _name(context: RankContext) -> str:
    return context.stop.signal.name if context.stop.signal is not None else ""
