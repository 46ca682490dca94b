"""Which configurations of a net are tried, in which order, until an accuracy goal is met; the best model is kept.

Every trial is laid out, written to a file and scored from that file in the engine that will run it. The order is ours
rather than INC's own tuning: it is the same for every quantizer, keeps the best model where the goal is missed (INC's
``fit`` then returns nothing), and lets an error of the scoring through.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import onnx

from segdist.config import ConfigError
from segdist.quantization.forms import Form, for_quantizer, lay_out
from segdist.quantization.layer_errors import sensitive_layers
from segdist.quantization.quantizers.interface import Pixels, Quantizer, Ranges

FALLBACK_SHARES = (16, 8, 4, 2)
"""One layer in so many goes back to fp32: the last steps of the tuning, the most sensitive layers first."""
FUNCTIONS = ("Add", "Concat", "Resize")


@dataclass(frozen=True)
class Plan:
    """One configuration of the net."""

    ranges: Ranges
    functions: Literal["int8", "fp32"]
    """Precision of what has no weights: additions, concatenations, upsampling."""
    kept_fp32: tuple[str, ...]
    """Layers with weights that stay in fp32."""


@dataclass(frozen=True)
class Trial:
    """A plan that was quantized and scored."""

    number: int
    """Counted from 1."""
    plan: Plan
    score: float
    """mIoU in [0, 1]."""
    seconds: float
    """Quantizing and scoring."""


@dataclass(frozen=True)
class Quantized:
    """The best int8 model that was found, and how."""

    model: onnx.ModelProto
    """uint8 pixels → fp32 logits."""
    raw: onnx.ModelProto
    """As the quantizer gave it: what :func:`segdist.quantization.forms.lay_out` takes for another form."""
    best: Trial
    baseline: float
    """mIoU of the fp32 net."""
    goal: float
    """The least mIoU that was asked for."""
    trials: tuple[Trial, ...]
    form: Form
    weight_bits: int

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        return self.best.score >= self.goal


@dataclass
class _Tuning:
    """What the trials share: the trials so far, and the best model."""

    fp32: onnx.ModelProto
    given: onnx.ModelProto
    calibration: Sequence[Pixels]
    weight_bits: int
    trials: list[Trial] = field(default_factory=list)
    models: tuple[onnx.ModelProto, onnx.ModelProto] | None = None

    @property
    def best(self) -> Trial:
        """The first of the trials with the highest score."""
        return max(self.trials, key=lambda trial: trial.score)

    def plans(self) -> Iterator[Plan]:
        """What to try, one after the other, until the goal is met."""
        yield Plan("minmax", "int8", ())
        yield Plan("kl", "int8", ())
        yield dataclasses.replace(self.best.plan, functions="fp32")
        base = self.best.plan
        layers = [node.name for node in self.given.graph.node if node.op_type == "Conv"]
        order = sensitive_layers(self.given, self.calibration[0], layers, self.weight_bits)
        for count in dict.fromkeys(math.ceil(len(order) / share) for share in FALLBACK_SHARES):
            yield dataclasses.replace(base, kept_fp32=tuple(order[:count]))

    def fp32_nodes(self, plan: Plan) -> list[str]:
        """The nodes that a plan leaves in fp32."""
        functions = [node.name for node in self.given.graph.node if node.op_type in FUNCTIONS]
        return [*plan.kept_fp32, *(functions if plan.functions == "fp32" else ())]


def search(
    fp32: onnx.ModelProto,
    calibration: Sequence[Pixels],
    score: Callable[[Path], float],
    quantizer: Quantizer,
    *,
    form: Form = "transposed",
    weight_bits: int = 8,
    drop: float = 0.01,
    relative: bool = True,
    max_trials: int = 10,
    log: Callable[[str], None] = print,
) -> Quantized:
    """Quantize a prepared model to int8 with as little fp32 as the accuracy goal needs.

    Args:
        fp32: of a :class:`segdist.models.prepared.PreparedNet`; it is not changed.
        calibration: pictures uint8 ``[1, H, W, 3]`` from which activation ranges are taken.
        score: mIoU in [0, 1] of an ONNX file; called once with the fp32 model and once per trial.
        quantizer: makes each trial's model.
        form: see :data:`segdist.quantization.forms.Form`.
        weight_bits: 7 or 8.
        drop: mIoU that may be lost, as a share of the fp32 mIoU if ``relative``, else absolute.
        relative: see ``drop``.
        max_trials: configurations tried at the most; the search knows seven at the most.
        log: takes one line per trial.

    Raises:
        ConfigError: where the quantizer is not installed, there is no calibration picture, or a score is no number in
            [0, 1].
    """
    if not calibration or max_trials < 1:
        raise ConfigError(f"quantize: {len(calibration)} images, {max_trials} trials: must be at least 1; give more")
    tuning = _Tuning(fp32, for_quantizer(fp32), calibration, weight_bits)
    with tempfile.TemporaryDirectory(prefix="segdist-int8-") as name:
        folder = Path(name)
        source, prepared = folder / "model.onnx", folder / "given.onnx"
        onnx.save(fp32, source)
        onnx.save(tuning.given, prepared)
        baseline = checked_score(score(source))
        goal = baseline * (1 - drop) if relative else baseline - drop
        log(f"fp32 mIoU {baseline:.4f}; goal {goal:.4f}; {quantizer.name}, {weight_bits}-bit weights, {form}")
        for number, plan in enumerate(tuning.plans(), 1):
            started = time.perf_counter()
            raw = quantizer(prepared, calibration, plan.ranges, tuning.fp32_nodes(plan))
            model = lay_out(raw, fp32, form, weight_bits)
            file = folder / f"trial{number}.onnx"
            onnx.save(model, file)
            trial = Trial(number, plan, checked_score(score(file)), time.perf_counter() - started)
            tuning.trials.append(trial)
            if tuning.best is trial:
                tuning.models = model, raw
            log(_line(trial, goal))
            if trial.score >= goal or number == max_trials:
                break
    assert tuning.models is not None
    return Quantized(*tuning.models, tuning.best, baseline, goal, tuple(tuning.trials), form, weight_bits)


def _line(trial: Trial, goal: float) -> str:
    plan = trial.plan
    return (
        f"trial {trial.number}: mIoU {trial.score:.4f} {'meets' if trial.score >= goal else 'misses'} the goal "
        f"{goal:.4f}; ranges by {plan.ranges}, functions {plan.functions}, {len(plan.kept_fp32)} layers fp32; "
        f"{trial.seconds:.1f} s"
    )


def checked_score(score: float) -> float:
    """The score as a float, if it is one in [0, 1]."""
    if not 0 <= score <= 1:
        raise ConfigError(f"quantize: score {score!r}: must be a mIoU in [0, 1]; divide percentages by 100")
    return float(score)
