"""Saves a training and resumes it: checkpoints, rows of metrics, the best model."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from segdist.config import TrainConfig
from segdist.models.model_file import ModelInfo, save_model
from segdist.run.files import append_json_lines, write_atomic
from segdist.run.folder import RunFolder
from segdist.run.replaced import Replaced
from segdist.run.result import read_metrics
from segdist.runtime.rank_context import Preempted, RankContext
from segdist.training.async_writer import AsyncWriter, Snapshot
from segdist.training.checkpoint_file import CheckpointFolder
from segdist.training.optimizer import learning_rate
from segdist.training.state import TrainState, require_same_run

WeightsHook = Callable[[dict[str, Tensor]], None]


class Checkpointer:
    """Saves a training's state in its step folder, and resumes it. Rank 0 writes, beside the training.

    Every method but :meth:`is_due`, ``failed`` and :meth:`check` is for all ranks together.

    Args:
        context: this rank's.
        config: the training's.
        info: of the net, for ``model.pt``.
        fingerprint: of the run; see :func:`segdist.training.state.fingerprint`.
        precision: name of the arithmetic.
    """

    def __init__(
        self, context: RankContext, config: TrainConfig, info: ModelInfo, fingerprint: dict[str, str], precision: str
    ) -> None:
        self.context = context
        self.cfg = config.training
        self.model_pt = RunFolder(config.run).model_pt
        self.folder = CheckpointFolder(context.step.checkpoints, config.training.keep)
        self.stall_seconds: list[float] = []
        self._info = info
        self._fingerprint = fingerprint
        self._precision = precision
        self._replaced = Replaced(RunFolder(config.run).path)
        self._last_save = time.monotonic()
        self._saved_step: int | None = None
        self._snapshot = Snapshot()
        self._writer = AsyncWriter()
        context.finish_writing = self._writer.join

    # Resume ----------------------------------------------------------------------------------------------------

    def resume(self, state: TrainState) -> None:
        """Load the newest good checkpoint into ``state``; where there is none, leave it as it is.

        Rank 0 reads it, once, and gives it to the others.

        Rows of ``metrics.jsonl`` and ``steps.jsonl`` beyond the checkpoint are dropped.

        Raises:
            ConfigError: where the checkpoint is of another run.
        """
        saved: dict[str, Any] = {}

        def find() -> str | None:
            nonlocal saved
            self.context.check_lease()
            self.folder.remove_temporary_files()
            newest = self.folder.newest(self.context.warn)
            if newest is None:
                return None
            path, saved = newest
            require_same_run(path, saved["fingerprint"], self._fingerprint)
            return str(path)

        path = self.context.run_on_rank0(find)
        if path is None:
            return
        saved = self.context.collectives.broadcast(saved)
        state.load_state_dict(saved)
        self._saved_step = saved["step"]
        self.context.log(
            f"goes on from {path}: step {saved['step']} (epoch {state.progress.epoch + 1}, "
            f"{state.progress.batch} of {state.steps_per_epoch} steps done)"
        )
        if saved["precision"] != self._precision:
            self.context.warn(f"{path}: was trained in {saved['precision']}, goes on in {self._precision}")
        is_best = bool(saved["is_best"])
        self.context.run_on_rank0(lambda: self._drop_rows(Path(path), state, is_best))

    def _drop_rows(self, path: Path, state: TrainState, is_best: bool) -> None:
        step = self.context.step
        done = state.progress.epoch * state.steps_per_epoch
        rows = [row for row in read_metrics(step.steps_jsonl) if row["step"] <= done]
        _write_rows(step.steps_jsonl, rows)
        _write_rows(step.metrics_jsonl, state.progress.rows)
        if is_best:  # it may have been killed before it came to this
            self.folder.mark_best(path)

    # Save ------------------------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint within an epoch (rank 0's clock)."""
        return self.context.is_rank0 and time.monotonic() - self._last_save >= 60 * self.cfg.checkpoint_minutes

    def save(self, state: TrainState, is_best: bool = False, before_write: WeightsHook | None = None) -> None:
        """Copy the state, and begin to write a checkpoint of it.

        Args:
            state: of the training, between two steps.
            is_best: whether the epoch that has just ended is the best.
            before_write: is given the model's copied weights, on the writing thread, before the checkpoint is written.
        """
        start = time.monotonic()
        values = {
            "step": state.step,
            "fingerprint": self._fingerprint,
            "precision": self._precision,
            "is_best": is_best,
            **state.state_dict(),
        }
        if self.context.is_rank0:
            self._last_save = time.monotonic()
            self._writer.join()
            if not self.failed:  # else all ranks learn of it in the next step's exchange, or in finish()
                self._begin_write(state, self._snapshot.take(values), before_write)
            self.stall_seconds.append(time.monotonic() - start)

    def _begin_write(self, state: TrainState, copied: dict[str, Any], before_write: WeightsHook | None) -> None:
        def write() -> None:
            if before_write is not None:
                before_write(state.model_weights(copied))
            self.context.check_lease()
            self.folder.write(copied, copied["is_best"])
            self._replaced.discard(self.context.step.path)  # from here on there is something new
            self._saved_step = copied["step"]

        self._writer.start(write)

    def end_epoch(self, state: TrainState, row: dict[str, Any]) -> None:
        """Write the epoch's rows, ``model.pt`` where it is the best, and a checkpoint.

        In this order: after a crash in between, the rows are ahead of the checkpoint, and a resume drops them.

        Args:
            state: of the training, all steps of an epoch done; its next epoch begins.
            row: of ``metrics.jsonl``.
        """
        progress, steps = state.progress, self.cfg.epochs * state.steps_per_epoch
        first = progress.epoch * state.steps_per_epoch
        step_rows = [
            {"step": step + 1, "epoch": progress.epoch + 1, "lr": learning_rate(self.cfg, step, steps), "loss": loss}
            for step, loss in enumerate(progress.losses, first)
        ]
        is_best = progress.end_epoch(row)

        def write(weights: dict[str, Tensor]) -> None:
            self.context.check_lease()
            append_json_lines(self.context.step.steps_jsonl, step_rows)
            append_json_lines(self.context.step.metrics_jsonl, [row])
            if is_best:
                self.context.check_lease()
                save_model(self.model_pt, self._info, weights)

        self.save(state, is_best, write)

    def finish(self) -> None:
        """Wait until all is on disk."""
        self.context.run_on_rank0(self.check)

    def stop(self, state: TrainState) -> NoReturn:
        """Save, and end this start of the training.

        Raises:
            Preempted: always.
        """
        self.save(state)
        self.finish()
        signals = self.context.collectives.all_gather(_signal_name(self.context))
        raise Preempted(
            f"stopped on {next(filter(None, signals))} after step {state.step} of "
            f"{state.steps_per_epoch * self.cfg.epochs} (epoch {state.progress.epoch + 1}): saved {self.folder.last}; "
            "the same command goes on from there"
        )

    # Failures --------------------------------------------------------------------------------------------------

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

    def metrics(self) -> dict[str, float]:
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


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_atomic(path, text.encode())


def _signal_name(context: RankContext) -> str:
    return context.stop.signal.name if context.stop.signal is not None else ""
