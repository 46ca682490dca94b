"""Which configurations of a net are tried, in which order, until an accuracy goal is met; the best model is kept.

Every trial is laid out, written to a file and scored from that file in the engine that will run it. The order is ours
rather than INC's own tuning: it is the same for every quantizer, keeps the best model where the goal is missed (INC's
``fit`` then returns nothing), and lets an error of the scoring through.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from segdist.config import ConfigError
from segdist.quantization.forms import Form, for_quantizer, lay_out
from segdist.quantization.layer_errors import sensitive_layers
from segdist.quantization.quantizers.interface import Pixels, Quantizer
from segdist.quantization.trials import Plan, Trial, best_of, checked_score, least_score, plans

FUNCTIONS = ("Add", "Concat", "Resize")


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
        return best_of(self.trials)

    def plans(self) -> Iterator[Plan]:
        """What to try, one after the other, until the goal is met."""

        def order() -> list[str]:
            layers = [node.name for node in self.given.graph.node if node.op_type == "Conv"]
            return sensitive_layers(self.given, self.calibration[0], layers, self.weight_bits)

        return plans(self.trials, order)

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
        goal = least_score(baseline, drop, relative)
        log(f"fp32 mIoU {baseline:.4f}; goal {goal:.4f}; {quantizer.name}, {weight_bits}-bit weights, {form}")
        for number, plan in enumerate(tuning.plans(), 1):
            started = time.perf_counter()
            raw = quantizer(prepared, calibration, plan.ranges, tuning.fp32_nodes(plan))
            model = lay_out(raw, fp32, tuning.given, form, weight_bits)
            file = folder / f"trial{number}.onnx"
            onnx.save(model, file)
            trial = Trial(number, plan, checked_score(score(file)), time.perf_counter() - started)
            tuning.trials.append(trial)
            if tuning.best is trial:
                tuning.models = model, raw
            log(trial.line(goal))
            if trial.score >= goal or number == max_trials:
                break
    assert tuning.models is not None
    return Quantized(*tuning.models, tuning.best, baseline, goal, tuple(tuning.trials), form, weight_bits)
