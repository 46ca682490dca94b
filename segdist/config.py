"""One frozen dataclass per task: it is the command line, the TOML file and the record in the run folder.

A task's config is made of groups (dataset, net, training, …); a group is a heading of ``--help`` and a table of
the TOML file. Values are plain (str, int, float, bool, tuples of them), so a config survives JSON unchanged.
Only the standard library is imported here: a login node reads configs without torch or numpy.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SCENES = "scenes"
"""The value of ``DatasetConfig.data`` that means the generated street scenes."""

INT8_SUFFIX = ".torchscript"
"""How the file of an int8 model ends."""
ModelName = Literal["unet", "hrnetv2_w18", "hrnetv2_w32", "hrnetv2_w48"]
STRIDE = 32
"""Both nets halve the image five times at the most: sides are padded up to a multiple of this."""


class ConfigError(Exception):
    """A value that cannot be. The message names the value, the rule and the fix."""


def require(condition: bool, message: str) -> None:
    """Raise :class:`ConfigError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(message)


def parse_size(text: str, option: str = "size") -> tuple[int, int]:
    """Turn ``"256x512"`` into ``(256, 512)``: height, then width, in pixels, both at least 1.

    Raises:
        ConfigError: where the text has another form.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise ConfigError(f"--{option} {text!r}: a size is HEIGHTxWIDTH in pixels; write for example 256x512")
    return int(match[1]), int(match[2])


def _at_least(option: str, value: float, least: float) -> None:
    require(value >= least, f"--{option} {value}: must be at least {least}; give {least} or more")


@dataclass(frozen=True)
class DatasetConfig:
    """Which images, and which classes."""

    data: str = SCENES
    """Cityscapes root (holds leftImg8bit/ and gtFine/), or "scenes": 64 + 16 street scenes of 256x512 pixels,
    generated once beside the run folder."""
    labels: str = "street13"
    """Label set: street13, cityscapes19, or a TOML file of your own."""
    check: Literal["full", "headers"] = "full"
    """Before the work starts: "full" reads every file and looks at every label value, "headers" only at names, sizes
    and file ends."""
    workers: int = 2
    """Decoding processes per rank; 0 decodes in the rank itself."""

    def __post_init__(self) -> None:
        require(bool(self.data), '--data "": must name a folder; give the Cityscapes root or "scenes"')
        _at_least("workers", self.workers, 0)


@dataclass(frozen=True)
class NetConfig:
    """Which net."""

    model: ModelName = "unet"
    """Architecture."""
    width: int = 16
    """UNet only: channels of the first stage (the paper has 64: 31 M parameters; 16 has 1.9 M)."""
    init: tuple[Literal["imagenet", "weights"], str] | None = None
    """Weights to start from, as KIND FILE. "imagenet": an official HRNet classification file, of which all but the
    head must be there. "weights": a segmentation net, of this suite (model.pt) or an official HRNet file; what fits is
    taken."""

    def __post_init__(self) -> None:
        require(
            self.width >= 4 and self.width % 4 == 0,
            f"--width {self.width}: must be a multiple of 4, at least 4; give for example 16, 32 or 64",
        )


@dataclass(frozen=True)
class TrainingConfig:
    """How it is trained. Defaults follow the official HRNet recipe, but for the length."""

    epochs: int = 10
    """Passes over the training split."""
    batch: int = 8
    """Images a step over ALL ranks together; it must be at least the number of ranks."""
    crop: str = "256x512"
    """Size of the random crops, HEIGHTxWIDTH in pixels."""
    scale_min: float = 0.5
    """Smallest random zoom of an image before the crop."""
    scale_max: float = 2.0
    """Largest random zoom."""
    flip: bool = True
    """Mirror half of the crops, left to right."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov-free momentum, or AdamW."""
    lr: float = 0.01
    """Learning rate of the first step (HRNet: 0.01 for SGD; about 0.002 suits AdamW)."""
    momentum: float = 0.9
    """SGD only."""
    weight_decay: float = 5e-4
    """L2 penalty (SGD) or decoupled decay (AdamW)."""
    class_balance: float = 0.0
    """A class weighs its share of the training pixels to the power of minus this: 0 weighs all alike, 1 gives every
    class the same sum; 0.25 to 0.5 helps thin and rare classes in short trainings."""
    label_smoothing: float = 0.0
    """The true class is 1 minus this, and this is spread over all classes."""
    ohem: float = 0.0
    """Online hard example mining: only pixels count whose true class is given less than this probability (HRNet: 0.9);
    0 takes all pixels."""
    ohem_keep: float = 0.0625
    """With --ohem: of each image at least this share of its labelled pixels, hardest first."""
    aux_weight: float = 0.0
    """Weight of the loss of an auxiliary head in the middle of the net (PSPNet: 0.4), left out of the model; 0 has no
    such head."""
    poly_power: float = 0.9
    """lr falls as (1 - step / steps) ** power; 0 keeps it constant."""
    warmup: int = 0
    """Steps in which lr rises to its curve, in equal parts."""
    accumulate: int = 1
    """Parts in which each rank does its samples of a step, one after the other, to save memory. The gradients are those
    of the whole step; batch normalization sees one part at a time."""
    clip_norm: float = 0.0
    """Largest norm of the gradient of all weights together; a longer one is shortened to it. 0 leaves it as it is."""
    ema: float = 0.0
    """Decay of a moving average of the weights (for example 0.999), which is validated and saved as model.pt in their
    place; 0 has none."""
    sync_batchnorm: bool = False
    """Batch normalization over the samples of all ranks; without it, of each rank alone."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What a loss or gradient that is not finite does: end the training, or leave the step out (10 in a row end it)."""
    val_size: str = "label"
    """Size at which the net sees a validation image, HEIGHTxWIDTH, or "label": the label's own size."""
    seed: int = 0
    """Weights, data order and augmentation follow from it."""
    checkpoint_minutes: float = 10.0
    """A checkpoint is written after each epoch, and within one whenever this many minutes have passed; 0 writes one
    after every step."""
    keep: int = 2
    """Checkpoints kept beside best.pt: last.pt and those before it. If the newest is damaged, the one before is
    taken."""
    resume: Literal["auto", "never"] = "auto"
    """"auto" goes on from the newest good checkpoint of a training that has not ended; "never" removes it and starts
    afresh. A job that the scheduler restarted always goes on."""

    def __post_init__(self) -> None:
        _at_least("epochs", self.epochs, 1)
        _at_least("checkpoint-minutes", self.checkpoint_minutes, 0)
        _at_least("keep", self.keep, 1)
        _at_least("batch", self.batch, 1)
        parse_size(self.crop, "crop")
        if self.val_size != "label":
            parse_size(self.val_size, "val-size")
        require(
            0 < self.scale_min <= self.scale_max,
            f"--scale-min {self.scale_min} --scale-max {self.scale_max}: must be 0 < min <= max; "
            "give for example 0.5 and 2.0",
        )
        require(self.lr > 0, f"--lr {self.lr}: must be above 0; give for example 0.01")
        require(0 <= self.momentum < 1, f"--momentum {self.momentum}: must be in [0, 1); give for example 0.9")
        _at_least("weight-decay", self.weight_decay, 0)
        _at_least("poly-power", self.poly_power, 0)
        _at_least("warmup", self.warmup, 0)
        _at_least("accumulate", self.accumulate, 1)
        _at_least("clip-norm", self.clip_norm, 0)
        _at_least("aux-weight", self.aux_weight, 0)
        for option, value in (("label-smoothing", self.label_smoothing), ("ema", self.ema)):
            require(0 <= value < 1, f"--{option} {value}: must be in [0, 1); give 0 to do without")
        require(
            0 <= self.ohem <= 1, f"--ohem {self.ohem}: must be in [0, 1]; give for example 0.9, or 0 for all pixels"
        )
        require(0 < self.ohem_keep <= 1, f"--ohem-keep {self.ohem_keep}: must be in (0, 1]; give for example 0.0625")
        require(
            0 <= self.class_balance <= 1,
            f"--class-balance {self.class_balance}: must be in [0, 1]; give for example 0.25",
        )
        _at_least("seed", self.seed, 0)


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured."""

    split: Literal["val", "test", "train"] = "val"
    """Split to evaluate on."""
    sizes: tuple[str, ...] = ("512x1024", "1024x2048")
    """Input sizes, HEIGHTxWIDTH in pixels; scores are counted at the label's own resolution."""
    window: str = ""
    """Show the net a window of this size, HEIGHTxWIDTH, that slides over the resized image; where windows overlap, the
    mean of their logits counts. Empty shows the image whole."""
    stride: str = ""
    """Steps of the window, down x right in pixels; empty takes two thirds of the window."""
    scales: tuple[float, ...] = (1.0,)
    """Factors on the input size; with several, the mean of their probabilities counts."""
    mirror: bool = False
    """Average with the answer to the mirrored image ("flip" in papers)."""
    eval_precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of a model.pt: fp32, or bf16 through autocast (an int8 model has its own)."""
    absent: Literal["skip", "zero", "nan"] = "skip"
    """A class neither in the truth nor predicted: "skip" leaves it out of the mean (cityscapesScripts), "zero" counts
    it as 0 (official HRNet), "nan" leaves the mean undefined (torchvision)."""
    export: bool = False
    """Write every prediction as a PNG of official label ids, export/SIZE/<city>_<seq>_<frame>_pred_labelIds.png."""
    overlays: int = 6
    """Images of which picture, truth, prediction and errors are written: the worst, median and best ones by mIoU."""
    latency_runs: int = 20
    """Timed passes per size, one image each, on rank 0 while the other ranks wait."""
    latency_warmup: int = 3
    """Untimed passes before those."""

    def __post_init__(self) -> None:
        require(bool(self.sizes), "--sizes: must name at least one size; give for example 512x1024")
        for size in self.sizes:
            parse_size(size, "sizes")
        require(len(set(self.sizes)) == len(self.sizes), f"--sizes {' '.join(self.sizes)}: name each size once")
        check_view(self.window, self.stride, self.scales)
        _at_least("overlays", self.overlays, 0)
        _at_least("latency-runs", self.latency_runs, 1)
        _at_least("latency-warmup", self.latency_warmup, 0)


def check_view(window: str, stride: str, scales: tuple[float, ...]) -> None:
    """Refuse a window, a stride and scales that leave holes or nothing to average."""
    require(bool(window) or not stride, f"--stride {stride}: needs a window; give for example --window 512x1024")
    if stride:
        sides = zip(parse_size(stride, "stride"), parse_size(window, "window"))
        require(
            all(step <= side for step, side in sides),
            f"--stride {stride}: must not be larger than --window {window}, or pixels are left out; give less",
        )
    elif window:
        parse_size(window, "window")
    require(
        bool(scales) and all(0 < scale <= 8 for scale in scales),
        f"--scales {' '.join(map(str, scales))}: must be above 0 and at most 8; give for example 0.75 1.0 1.25",
    )


@dataclass(frozen=True)
class QuantizationConfig:
    """Post-training static int8 with Intel Neural Compressor, tuned until the accuracy goal is met."""

    accuracy_drop: float = 0.01
    """How much mIoU may be lost."""
    relative: bool = True
    """The drop is a share of the fp32 mIoU (0.01 of 70 is 0.7 points); otherwise it is in absolute mIoU (0.01 is
    one point)."""
    allow_miss: bool = False
    """Exit with 0 also where the goal is missed (the best model is kept either way)."""
    calibration_images: int = 32
    """Training images from which activation ranges are taken."""
    tuning_images: int = 0
    """Validation images on which every trial is scored; 0 takes all."""
    max_trials: int = 10
    """Configurations tried at the most before giving up."""
    tuning_size: str = "512x1024"
    """Input size for calibration and scoring, HEIGHTxWIDTH in pixels."""

    def __post_init__(self) -> None:
        require(
            0 <= self.accuracy_drop < 1,
            f"--accuracy-drop {self.accuracy_drop}: must be in [0, 1); give for example 0.01",
        )
        _at_least("calibration-images", self.calibration_images, 1)
        _at_least("tuning-images", self.tuning_images, 0)
        _at_least("max-trials", self.max_trials, 1)
        parse_size(self.tuning_size, "tuning-size")


@dataclass(frozen=True)
class RuntimeConfig:
    """How the machine is used."""

    collectives: Literal["auto", "ccl", "gloo"] = "auto"
    """Gradient exchange: oneCCL, gloo, or oneCCL where it is installed."""
    interface: str = ""
    """Network interface of the ranks; empty takes the one that routes to the first node."""
    timeout: int = 600
    """Seconds after which a collective operation that a rank does not join is an error."""
    rendezvous_timeout: int = 180
    """Seconds that the ranks wait for each other at the start; those that have not come are then named."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Training arithmetic; "auto" takes bf16 where the CPU has instructions for it."""
    ipex: Literal["auto", "on", "off"] = "auto"
    """Intel Extension for PyTorch in training: for bf16 on Intel CPUs where it is installed, always, or never."""
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    """Layout of activations and weights."""
    threads: int = 0
    """Threads per rank; 0 takes this rank's share of the node's cores."""

    def __post_init__(self) -> None:
        _at_least("timeout", self.timeout, 1)
        _at_least("rendezvous-timeout", self.rendezvous_timeout, 1)
        _at_least("threads", self.threads, 0)


@dataclass(frozen=True)
class TrainConfig:
    """Train a net with one process per rank (DDP); per epoch, score it on the validation split."""

    run: str = ""
    """Run folder on storage that all nodes share; made where it is missing."""
    overwrite: bool = False
    """Replace an earlier result of this step."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    net: NetConfig = field(default_factory=NetConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        require(
            self.net.model != "unet" or min(parse_size(self.training.crop)) >= STRIDE,
            f"--crop {self.training.crop}: both sides must be at least {STRIDE}; give for example 256x512",
        )


@dataclass(frozen=True)
class EvaluateConfig:
    """Score a model on a split (loss, mIoU, pixel accuracy, IoU per class) and time it."""

    run: str = ""
    """Run folder."""
    name: str = "fp32"
    """Name of this evaluation: its results go to RUN/evaluate/NAME."""
    weights: str | None = None
    """model.pt or model_int8.torchscript; by default RUN/train/model.pt."""
    overwrite: bool = False
    """Replace an earlier result of this step."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
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

    run: str = ""
    """Run folder."""
    weights: str | None = None
    """Trained model.pt; by default RUN/train/model.pt."""
    overwrite: bool = False
    """Replace an earlier result of this step."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass(frozen=True)
class PipelineConfig:
    """train, evaluate, quantize, evaluate the int8 model, write the report; a failed step stops those after it."""

    run: str = ""
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


TaskConfig = TrainConfig | EvaluateConfig | QuantizeConfig
TASKS: dict[str, type[TrainConfig] | type[EvaluateConfig] | type[QuantizeConfig]] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "quantize": QuantizeConfig,
}
"""The tasks a rank can run, by the name they have on the command line."""


def task_of(config: TaskConfig) -> str:
    """The task of a config: ``train``, ``evaluate`` or ``quantize``."""
    return next(task for task, cls in TASKS.items() if isinstance(config, cls))


def to_plain(config: Any) -> dict[str, Any]:
    """The config as nested dicts of JSON values: what is written to the run folder."""
    plain: dict[str, Any] = dataclasses.asdict(config)
    return plain


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: where the file is missing, unreadable or not TOML; the message has its name.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML ({error}); mend the file at that place") from error
