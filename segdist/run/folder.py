"""The run folder: where each file of a run is, and which steps it has.

::

    runs/RUN/
      run.json                      what was asked for, and from which commit and versions
      tune/  config.json  logs/  result.json
      train/  config.json  choices.json  metrics.jsonl  steps.jsonl  checkpoints/{last,step-…,best}.pt  model.pt  logs/
              result.json
      evaluate/NAME/  config.json  confusion.npy  images.csv  overlays/*.png  export/SIZE/*.png  logs/  result.json
      quantize/  config.json  model_int8.torchscript  logs/  result.json
      export/FORMAT-PRECISION/  config.json  model/  logs/  result.json
      report.html

What ``result.json`` holds is in :mod:`segdist.run.result`, how files are written in :mod:`segdist.run.files`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from segdist.config import EvaluateConfig, ExportConfig, TaskConfig, task_of, to_plain
from segdist.run.files import json_text, list_names, read_text, write_atomic, write_json
from segdist.run.result import Result, read_result, to_json_values

PRECISIONS = ("fp32", "bf16", "int8")
"""What a model is evaluated in. An evaluation is named by it, or ``fp32-512x1024`` where each size is a step."""


class StepFolder:
    """The files of one step of a run: ``tune``, ``train``, ``evaluate/NAME`` or ``quantize``."""

    def __init__(self, path: Path, task: str, name: str) -> None:
        self.path = path
        self.task = task
        self.name = name
        self.config_json = path / "config.json"
        self.result_json = path / "result.json"
        self.metrics_jsonl = path / "metrics.jsonl"
        self.steps_jsonl = path / "steps.jsonl"
        self.progress_json = path / "progress.json"
        self.choices_json = path / "choices.json"
        self.checkpoints = path / "checkpoints"
        self.logs = path / "logs"
        self.overlays = path / "overlays"
        self.confusion_npy = path / "confusion.npy"

    def rank_log(self, rank: int) -> Path:
        """Where the output of one rank goes."""
        return self.logs / f"rank{rank}.log"

    def write_config(self, config: TaskConfig) -> None:
        """Write ``config.json``, which nothing else writes: whoever starts the step first does.

        One that says the same already is left alone, as it is the file by which the step was submitted.
        """
        text = json_text(to_plain(config))
        if not self.config_json.is_file() or read_text(self.config_json) != text:
            write_atomic(self.config_json, text.encode())

    def write_result(self, result: Result) -> None:
        """Write ``result.json`` in one move; see :func:`segdist.run.result.to_json_values`."""
        write_json(self.result_json, to_json_values(result))

    def read_result(self) -> Result:
        """Read ``result.json``.

        Raises:
            ResultError: where it is missing, not whole or of another schema.
        """
        return read_result(self.result_json)


class RunFolder:
    """One run on shared storage."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.run_json = self.path / "run.json"
        self.report_html = self.path / "report.html"
        self.model_pt = self.path / "train" / "model.pt"
        self.model_int8 = self.path / "quantize" / "model_int8.torchscript"

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    def step(self, task: str, name: str | None = None) -> StepFolder:
        """The folder of one step; ``name`` is that of an evaluation or an export, and for these only."""
        if task == "export":
            return StepFolder(self.path / task / (name or ""), task, name or task)
        if task == "evaluate":
            return StepFolder(self.path / task / (name or "fp32"), task, name or "fp32")
        return StepFolder(self.path / task, task, task)

    def step_of(self, config: TaskConfig) -> StepFolder:
        """The folder of the step that a config describes."""
        if isinstance(config, ExportConfig):
            return self.step("export", config.export.name)
        return self.step(task_of(config), config.name if isinstance(config, EvaluateConfig) else None)

    def steps(self) -> Iterator[StepFolder]:
        """The steps that have a folder, in the order of a pipeline."""
        for task in ("tune", "train"):
            if (self.path / task).is_dir():
                yield self.step(task)
        evaluations = self.path / "evaluate"
        names = [name for name in list_names(evaluations) if (evaluations / name).is_dir()]
        for name in names:
            if "int8" not in name:
                yield self.step("evaluate", name)
        if (self.path / "quantize").is_dir():
            yield self.step("quantize")
        for name in names:
            if "int8" in name:
                yield self.step("evaluate", name)


def precision_of(name: str) -> str | None:
    """The precision that an evaluation's name begins with: ``int8`` of ``int8`` and ``int8-512x1024``; else None."""
    head = name.partition("-")[0]
    return head if head in PRECISIONS else None


def size_of(name: str) -> str | None:
    """The input size that an evaluation's name ends with: ``512x1024`` of ``fp32-512x1024``; else None."""
    match = re.fullmatch(rf"(?:{'|'.join(PRECISIONS)})-(\d+x\d+)", name)
    return match[1] if match else None


def pixels_of(size: str | None) -> int:
    """Pixels of an input size, to sort by: 524288 of ``512x1024``; 0 for what is no size."""
    match = re.fullmatch(r"(\d+)x(\d+)", size or "", re.ASCII)
    return int(match[1]) * int(match[2]) if match else 0


def is_run_folder(path: Path) -> bool:
    """Whether a folder holds a run of this suite: a run.json, or a step with its config or result."""
    run = RunFolder(path)
    return run.run_json.is_file() or any(
        step.result_json.is_file() or step.config_json.is_file() for step in run.steps()
    )
