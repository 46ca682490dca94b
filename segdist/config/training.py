"""How a net is trained: crops, optimizer, loss, schedule, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from segdist.config.values import at_least, parse_size, require


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
    val_every: int = 1
    """Score on the validation split after every so many epochs, and after the last; the best model is the best of
    those."""
    val_size: str = "label"
    """Size at which the net sees a validation image, HEIGHTxWIDTH, or "label": the label's own size."""
    seed: int = 0
    """Weights, data order and augmentation follow from it."""
    compress: Literal["none", "bf16", "auto"] = "none"
    """Type in which ranks exchange gradients: their own, or bf16 (a relative error of 2e-3 a step); "auto" takes bf16
    between nodes on a link of at most 1 Gbit/s, where alone it pays."""
    bucket_mb: int = 0
    """Size of the parts in which gradients are exchanged; 0 takes what "tune" has measured, else DDP's 25."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the training's step; "auto" takes what "tune" has measured, else does without."""
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
        at_least("epochs", self.epochs, 1)
        at_least("checkpoint-minutes", self.checkpoint_minutes, 0)
        at_least("keep", self.keep, 1)
        at_least("val-every", self.val_every, 1)
        at_least("bucket-mb", self.bucket_mb, 0)
        at_least("batch", self.batch, 1)
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
        at_least("weight-decay", self.weight_decay, 0)
        at_least("poly-power", self.poly_power, 0)
        at_least("warmup", self.warmup, 0)
        at_least("accumulate", self.accumulate, 1)
        at_least("clip-norm", self.clip_norm, 0)
        at_least("aux-weight", self.aux_weight, 0)
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
        at_least("seed", self.seed, 0)
