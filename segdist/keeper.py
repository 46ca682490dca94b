"""What a training writes, and what it goes on from: checkpoints, rows, the best model."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from segdist.checkpoint import CheckpointFolder, read_checkpoint
from segdist.config import TrainConfig
from segdist.models.files import ModelInfo, save_model
from segdist.results import RunFolder, append_json_lines, read_metrics, write_atomic
from segdist.session import Session, ToBeContinued
from segdist.stepping import Stepper
from segdist.training_state import Position, capture, require_same_run, restore


class Keeper:
    """Keeps a training's state in its step folder. Rank 0 writes; every method but :meth:`is_due` is for all ranks.

    Args:
        session: this rank's.
        config: the training's.
        fingerprint: of the run; see :func:`segdist.training_state.fingerprint`.
        info: of the net, for ``model.pt``.
        precision: name of the arithmetic.
    """

    def __init__(
        self, session: Session, config: TrainConfig, fingerprint: dict[str, str], info: ModelInfo, precision: str
    ) -> None:
        self.session = session
        self.how = config.training
        self.model_pt = RunFolder(config.run).model_pt
        self.folder = CheckpointFolder(session.step.checkpoints, config.training.keep)
        self._fingerprint = fingerprint
        self._info = info
        self._precision = precision
        self._steps_an_epoch = 1
        self._last_save = time.monotonic()

    def resume(self, net: nn.Module, optimizer: torch.optim.Optimizer, steps_an_epoch: int) -> Position:
        """Go on from the newest good checkpoint, or start at the beginning where there is none.

        Rows of ``metrics.jsonl`` and ``steps.jsonl`` beyond the checkpoint are dropped.

        Raises:
            ConfigError: where the checkpoint is of another run.
        """
        self._steps_an_epoch = steps_an_epoch
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
        position = restore(state, net, optimizer, self.session.collectives)
        self.session.log(
            f"goes on from {path}: step {state['step']} (epoch {position.epoch + 1}, "
            f"{position.batch} of {steps_an_epoch} steps done)"
        )
        if state["precision"] != self._precision:
            self.session.warn(f"{path}: was trained in {state['precision']}, goes on in {self._precision}")
        is_best = bool(state["is_best"])
        self.session.on_main(lambda: self._drop_rows(Path(path), position, is_best))
        return position

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint within an epoch."""
        return time.monotonic() - self._last_save >= 60 * self.how.checkpoint_minutes

    def save(self, position: Position, net: nn.Module, optimizer: torch.optim.Optimizer, is_best: bool = False) -> None:
        """Write a checkpoint."""
        state = {
            "step": position.epoch * self._steps_an_epoch + position.batch,
            "fingerprint": self._fingerprint,
            "precision": self._precision,
            "is_best": is_best,
            **capture(position, net, optimizer, self.session.collectives),
        }
        self.session.on_main(lambda: self._write(state, is_best))
        self._last_save = time.monotonic()

    def stop(self, position: Position, net: nn.Module, optimizer: torch.optim.Optimizer) -> NoReturn:
        """Save, and end this start of the training.

        Raises:
            ToBeContinued: always.
        """
        self.save(position, net, optimizer)
        by = next(name for name in self.session.collectives.gather(_name(self.session)) if name)
        step = position.epoch * self._steps_an_epoch + position.batch
        raise ToBeContinued(
            f"stopped on {by} after step {step} of {self._steps_an_epoch * self.how.epochs} "
            f"(epoch {position.epoch + 1}): saved {self.folder.last}; the same command goes on from there"
        )

    def end_epoch(
        self,
        position: Position,
        row: dict[str, Any],
        stepper: Stepper,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Write the epoch's rows, ``model.pt`` where it is the best, and a checkpoint.

        In this order: after a crash in between, the rows are ahead of the checkpoint, and a resume drops them.
        """
        first = position.epoch * self._steps_an_epoch
        steps = [
            {"step": first + index + 1, "epoch": position.epoch + 1, "lr": stepper.lr(first + index), "loss": loss}
            for index, loss in enumerate(position.losses)
        ]
        is_best = position.end_epoch(row)

        def write() -> None:
            self.session.check_fence()
            append_json_lines(self.session.step.steps_jsonl, steps)
            append_json_lines(self.session.step.metrics_jsonl, [row])
            if is_best:
                self.session.check_fence()
                save_model(self.model_pt, self._info, net.state_dict())

        self.session.on_main(write)
        self.save(position, net, optimizer, is_best)

    def _write(self, state: dict[str, Any], is_best: bool) -> None:
        self.session.check_fence()
        self.folder.write(state, is_best)

    def _drop_rows(self, path: Path, position: Position, is_best: bool) -> None:
        step = self.session.step
        done = position.epoch * self._steps_an_epoch
        rows = [row for row in read_metrics(step.steps_jsonl) if row["step"] <= done]
        _write_rows(step.steps_jsonl, rows)
        _write_rows(step.metrics_jsonl, position.rows)
        if is_best:  # it may have been killed before it came to this
            self.folder.mark_best(path)


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_atomic(path, text.encode())


def _name(session: Session) -> str:
    return session.stop.signal.name if session.stop.signal is not None else ""
