"""The config of each task and of the pipeline, made of the groups."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from segdist.config.dataset import DatasetConfig, NetConfig
from segdist.config.evaluation import EvaluationConfig
from segdist.config.export import ExportOptions
from segdist.config.quantization import QuantizationConfig
from segdist.config.runtime import RuntimeConfig
from segdist.config.training import TrainingConfig
from segdist.config.tuning import TuningConfig
from segdist.config.values import INT8_SUFFIX, STRIDE, PathText, check_run, parse_size, require


def _check_weights(weights: str | None) -> None:
    require(weights != "", '--weights "": must name a file; give a model, or leave it out')


@dataclass(frozen=True)
class TrainConfig:
    """Train a net with one process per rank (DDP); per epoch, score it on the validation split."""

    run: PathText = ""
    """Run folder on storage that all nodes share; made where it is missing."""
    overwrite: bool = False
    """Replace an earlier result of this step."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    net: NetConfig = field(default_factory=NetConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        check_run(self.run)
        require(
            self.net.model != "unet" or min(parse_size(self.training.crop)) >= STRIDE,
            f"--crop {self.training.crop}: both sides must be at least {STRIDE}; give for example 256x512",
        )


@dataclass(frozen=True)
class EvaluateConfig:
    """Score a model on a split (loss, mIoU, pixel accuracy, IoU per class) and time it."""

    run: PathText = ""
    """Run folder."""
    name: str = "fp32"
    """Name of this evaluation: its results go to RUN/evaluate/NAME."""
    weights: PathText | None = None
    """model.pt or model_int8.torchscript; by default RUN/train/model.pt."""
    overwrite: bool = False
    """Replace an earlier result of this step."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        check_run(self.run)
        _check_weights(self.weights)
        require(
            re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name) is not None,
            f"--name {self.name!r}: must be a file name of letters, digits, '.', '_' and '-'; give for example fp32",
        )
        require(
            self.evaluation.eval_precision == "fp32" or not (self.weights or "").endswith(INT8_SUFFIX),
            f"--eval-precision {self.evaluation.eval_precision} with {self.weights}: an int8 model has its own "
            "arithmetic; leave --eval-precision out, or give a model.pt",
        )


@dataclass(frozen=True)
class QuantizeConfig:
    """Quantize a trained model to int8 and keep the best one found."""

    run: PathText = ""
    """Run folder."""
    weights: PathText | None = None
    """Trained model.pt; by default RUN/train/model.pt."""
    overwrite: bool = False
    """Replace an earlier result of this step."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        check_run(self.run)
        _check_weights(self.weights)


@dataclass(frozen=True)
class TuneConfig:
    """Time real training steps on this node with each way to run them, and remember the fastest (its profile)."""

    run: PathText = ""
    """Run folder; the profile itself is kept where all runs find it (--profiles)."""
    overwrite: bool = False
    """Replace an earlier result of this step."""
    net: NetConfig = field(default_factory=NetConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        check_run(self.run)


@dataclass(frozen=True)
class ExportConfig:
    """Write a trained model as a folder that runs by itself, on a machine without torch."""

    run: PathText = ""
    """Run folder."""
    overwrite: bool = False
    """Replace an earlier result of this step."""
    export: ExportOptions = field(default_factory=ExportOptions)

    def __post_init__(self) -> None:
        check_run(self.run)

    @property
    def runtime(self) -> RuntimeConfig:
        """As by default: nothing is computed that would be worth an option, and --precision is the model's."""
        return RuntimeConfig()


@dataclass(frozen=True)
class PipelineConfig:
    """train, evaluate, quantize, evaluate the int8 model, write the report; a failed step stops those after it."""

    run: PathText = ""
    """Run folder on storage that all nodes share; made where it is missing."""
    overwrite: bool = False
    """Replace earlier results of these steps."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    net: NetConfig = field(default_factory=NetConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        self.train()

    def train(self) -> TrainConfig:
        """The pipeline's first step."""
        return TrainConfig(self.run, self.overwrite, self.dataset, self.net, self.training, self.runtime)

    def evaluate(self, name: str, weights: str | None = None) -> EvaluateConfig:
        """An evaluation of the pipeline's fp32 model, or of the one in the file ``weights``."""
        return EvaluateConfig(self.run, name, weights, self.overwrite, self.dataset, self.evaluation, self.runtime)

    def quantize(self) -> QuantizeConfig:
        """The pipeline's quantization."""
        return QuantizeConfig(self.run, None, self.overwrite, self.dataset, self.quantization, self.runtime)


TaskConfig = TrainConfig | EvaluateConfig | QuantizeConfig | TuneConfig | ExportConfig
TASKS: dict[str, type[TaskConfig]] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "quantize": QuantizeConfig,
    "tune": TuneConfig,
    "export": ExportConfig,
}
"""The tasks a rank can run, by the name they have on the command line."""


def task_of(config: TaskConfig) -> str:
    """The task of a config, one of :data:`TASKS`."""
    return next(task for task, cls in TASKS.items() if isinstance(config, cls))
