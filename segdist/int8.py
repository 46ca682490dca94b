"""Static int8 by Intel Neural Compressor (INC), tuned until an accuracy goal is met; and the file of an int8 model.

INC 3.7.1 (2.x API) quantizes through torch's FX graphs. What is ours is the order of its trials and what a trial is:

* A trial's model is lowered (traced, frozen), saved and loaded again before it is scored: what is scored is what runs.
* The best model is kept, also where the goal is missed (INC's ``fit`` then returns nothing).
* Weights have 7 bits. Without VNNI, FBGEMM adds pairs of uint8 x int8 products in 16 bits: 2 x 255 x 127 saturates,
  2 x 255 x 64 does not. So a file gives the same answer on every x86 CPU, wherever it was made. (INC would take the
  bit from the activations, and only on a CPU without VNNI; that loses more, and a file from a CPU with VNNI saturates.)
* ``ConvTranspose2d`` stays in fp32: in torch 2.8 its int8 form on oneDNN, taken on CPUs with VNNI, is plainly wrong.
* The layer that gives the logits stays in fp32: rounding logits to 256 levels costs more than any other layer.
* All inputs of a concatenation get one range (:func:`share_ranges`).
* Where that misses the goal: ranges by histograms; then additions, concatenations and upsampling in fp32; then the
  layers that lose most, a few at first, then more.

Loading an int8 file needs torch alone.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import io
import json
import logging
import math
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.ao.quantization import ObserverBase
from torch.ao.quantization.quantize_fx import fuse_fx
from torch.jit._trace import TracerWarning

from segdist.config import ConfigError
from segdist.results import write_atomic

INSTALL = 'python -m pip install "neural-compressor==3.7.1" six'
METADATA = "segdist.json"
"""Name of the metadata inside the TorchScript archive."""
WEIGHT_BITS = 7
"""Bits of an int8 weight that are used, so that 16-bit sums of two products cannot saturate."""
FP32_TYPES = ("ConvTranspose2d",)
"""Layer types that are never quantized."""
FALLBACK_SHARES = (16, 8, 4, 2)
"""One layer in so many goes back to fp32: the last steps of the tuning, the most sensitive layers first."""
STRATEGY = "segdist"

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """One configuration of the net."""

    ranges: Literal["minmax", "kl"]
    """How activation ranges are taken: ``kl`` is by histograms, slower and less moved by outliers."""
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
    """Quantizing, lowering and scoring."""


@dataclass(frozen=True)
class Quantized:
    """The best int8 model that was found, and how."""

    module: torch.jit.ScriptModule
    """Traced and frozen: float32 ``[N, 3, H, W]`` → float32 logits, as the fp32 net."""
    best: Trial
    baseline: float
    """mIoU of the fp32 net."""
    goal: float
    """The least mIoU that was asked for."""
    trials: tuple[Trial, ...]
    weight_bits: int = WEIGHT_BITS

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        return self.best.score >= self.goal


def quantize(
    net: nn.Module,
    calibration: Iterable[Tensor],
    score: Callable[[Model], float],
    example: Tensor,
    *,
    drop: float = 0.01,
    relative: bool = True,
    max_trials: int = 10,
    log: Callable[[str], None] = print,
) -> Quantized:
    """Quantize a net to int8 with as little fp32 as the accuracy goal needs.

    Args:
        net: fp32 net on the CPU in eval mode, traceable by torch.fx; it is not changed.
        calibration: float32 images ``[N, 3, H, W]`` from which activation ranges are taken.
        score: mIoU in [0, 1] of a model; called once with ``net`` and once per trial.
        example: float32 image ``[1, 3, H, W]`` to trace with; the result takes other sizes, too.
        drop: mIoU that may be lost, as a share of the fp32 mIoU if ``relative``, else absolute.
        relative: see ``drop``.
        max_trials: configurations tried at the most; the tuning knows seven at the most.
        log: takes one line per trial.

    Raises:
        ConfigError: where INC is not installed, the net is in training mode or not on the CPU, there is no calibration
            image, or a score is no number in [0, 1].
        Exception: whatever ``score`` raises; INC itself would swallow it.
    """
    if net.training or any(weight.device.type != "cpu" for weight in net.parameters()):
        raise ConfigError("quantize: the net must be on the CPU and in eval mode; call net.cpu().eval()")
    images = list(calibration)
    if not images or max_trials < 1:
        raise ConfigError(f"quantize: {len(images)} images, {max_trials} trials: must be at least 1; give more")
    baseline = _checked(score(net))
    goal = baseline * (1 - drop) if relative else baseline - drop
    tuning = _Tuning(net, images, score, example, baseline, goal, log)
    log(f"fp32 mIoU {baseline:.4f}; goal {goal:.4f}")
    _fit(tuning, drop, relative, max_trials)
    return Quantized(_from_bytes(tuning.best_file), tuning.best, baseline, goal, tuple(tuning.trials))


def save_int8(path: Path, module: torch.jit.ScriptModule, metadata: Mapping[str, Any]) -> None:
    """Write a model and its metadata (JSON values) as one TorchScript file, whole or not at all."""
    buffer = io.BytesIO()
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    torch.jit.save(module, buffer, _extra_files={METADATA: text.encode()})
    write_atomic(Path(path), buffer.getvalue())


def load_int8(path: Path) -> tuple[torch.jit.ScriptModule, dict[str, Any]]:
    """Read a model that :func:`save_int8` wrote, and its metadata.

    Raises:
        ConfigError: where the file is missing, damaged or something else; the message has its name.
    """
    extra = {METADATA: ""}
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not hold the contents against their checksums
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        metadata = json.loads(extra[METADATA])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of an int8 model") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{path}: is damaged, or no int8 model of this suite ({reason}); copy it again") from error
    if damaged is not None:
        raise ConfigError(f"{path}: is damaged at {damaged}; copy the file again")
    return module.eval(), metadata


@dataclass
class _Tuning:
    """What the trials share: the task, the trials so far, and the best model as a file in memory."""

    net: nn.Module
    images: list[Tensor]
    score: Callable[[Model], float]
    example: Tensor
    baseline: float
    goal: float
    log: Callable[[str], None]
    trials: list[Trial] = field(default_factory=list)
    best_file: bytes = b""
    error: BaseException | None = None
    plan: Plan | None = None
    started: float = 0.0

    def plans(self, layers: list[str], always: list[str]) -> Iterator[Plan]:
        """What to try, one after the other, until the goal is met.

        Args:
            layers: names of the layers with weights.
            always: those of them that stay in fp32.
        """
        fp32 = tuple(always)
        yield Plan("minmax", "int8", fp32)
        yield Plan("kl", "int8", fp32)
        yield dataclasses.replace(self.best.plan, functions="fp32")
        base = self.best.plan
        order = sensitive_layers(self.net, self.images[0], [name for name in layers if name not in always])
        for count in dict.fromkeys(math.ceil(len(order) / share) for share in FALLBACK_SHARES):
            yield dataclasses.replace(base, kept_fp32=(*fp32, *order[:count]))

    def begin(self, plan: Plan) -> None:
        """Note that a trial of ``plan`` starts."""
        self.plan, self.started = plan, time.perf_counter()

    def end(self, model: nn.Module) -> float:
        """Lower and score the trial's model, keep it if it is the best, and return its mIoU."""
        file = _lowered(model, self.example)
        score = _checked(self.score(_from_bytes(file)))
        assert self.plan is not None  # begin was called
        seconds = time.perf_counter() - self.started
        self.trials.append(Trial(len(self.trials) + 1, self.plan, score, seconds))
        if self.best is self.trials[-1]:
            self.best_file = file
        self.log(
            f"trial {len(self.trials)}: mIoU {score:.4f} {'meets' if self.met else 'misses'} the goal {self.goal:.4f}; "
            f"ranges by {self.plan.ranges}, functions {self.plan.functions}, "
            f"{len(self.plan.kept_fp32)} layers fp32; {seconds:.1f} s"
        )
        return score

    @property
    def best(self) -> Trial:
        """The first of the trials with the highest score."""
        return max(self.trials, key=lambda trial: trial.score)

    @property
    def met(self) -> bool:
        """Whether the last trial reached the goal."""
        return bool(self.trials) and self.trials[-1].score >= self.goal


def sensitive_layers(net: nn.Module, image: Tensor, layers: Iterable[str]) -> list[str]:
    """Convolutions and linear layers, those first whose output suffers most from int8.

    Input (8 bits) and weights of one layer at a time are rounded; its error is the squared change of the output over
    the output's variance. Costs three passes.

    Args:
        net: fp32 net in eval mode.
        image: float32 ``[N, 3, H, W]``.
        layers: names of modules.
    """
    fused = fuse_fx(copy.deepcopy(net))
    errors: dict[str, float] = {}

    def watch(name: str, module: nn.Module) -> None:
        layer = module[0] if isinstance(module, nn.Sequential) else module  # a fused convolution and ReLU
        weight: Tensor = layer.get_parameter("weight")

        def measure(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            handle.remove()
            original = weight.clone()
            peaks = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True).clamp(min=1e-12)
            step = 2 * peaks / (2**WEIGHT_BITS - 1)
            weight.copy_((weight / step).round() * step)
            x = inputs[0]
            step = (x.max().clamp(min=1e-12) - x.min().clamp(max=0)) / 255
            rounded = module((x / step).round() * step)
            weight.copy_(original)
            errors[name] = float((rounded - output).square().mean() / output.var().clamp(min=1e-12))

        handle = module.register_forward_hook(measure)

    with torch.no_grad():
        for name in layers:
            watch(name, fused.get_submodule(name))
        fused(image)
    return sorted(errors, key=lambda name: -errors[name])


def share_ranges(prepared: torch.fx.GraphModule) -> None:
    """Give all inputs of each concatenation one range, that of all of them.

    FX does so, but does not look behind an interpolation, which hands on the scale that it gets. Such an input would
    be rounded twice, and torch would warn of "large numerical inaccuracies" in each process that runs the model.

    Args:
        prepared: what ``prepare_fx`` returned; its observers are replaced.
    """
    modules = dict(prepared.named_modules(remove_duplicate=False))
    for cat in (node for node in prepared.graph.nodes if node.target is torch.cat):
        observers = [user for user in cat.users if _is_observer(user, modules)]
        for source in cat.args[0]:
            while _is_observer(source, modules) or source.target is nn.functional.interpolate:
                if _is_observer(source, modules):
                    observers.append(source)
                source = source.args[0]
        for node in observers[1:]:
            parent, _, name = node.target.rpartition(".")
            setattr(prepared.get_submodule(parent), name, modules[observers[0].target])


def _is_observer(node: torch.fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(modules[str(node.target)], ObserverBase)


def _checked(score: float) -> float:
    """The score as a float, if it is one in [0, 1]."""
    if not 0 <= score <= 1:
        raise ConfigError(f"quantize: score {score!r}: must be a mIoU in [0, 1]; divide percentages by 100")
    return float(score)


def _lowered(model: nn.Module, example: Tensor) -> bytes:
    """The model traced and frozen, as a TorchScript file."""
    with torch.no_grad():
        traced = torch.jit.trace(model.eval(), example, check_trace=False)
        frozen = torch.jit.freeze(traced)
    buffer = io.BytesIO()
    torch.jit.save(frozen, buffer)
    return buffer.getvalue()


def _from_bytes(file: bytes) -> torch.jit.ScriptModule:
    module: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(file))
    return module


def _fit(tuning: _Tuning, drop: float, relative: bool, max_trials: int) -> None:
    """Let INC quantize and score until the goal is met, the plans are used up, or ``max_trials`` is reached."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # syntax warnings of INC's own files
            from neural_compressor import quantization
            from neural_compressor.config import AccuracyCriterion, PostTrainingQuantConfig, TuningCriterion
    except ImportError as error:
        raise ConfigError(f"int8 needs neural-compressor 3.7 ({error}); install it: {INSTALL}") from error

    criterion = TuningCriterion(max_trials=max_trials)
    criterion._strategy = STRATEGY  # its setter knows INC's own strategies alone
    config = PostTrainingQuantConfig(
        quant_level=1,
        excluded_precisions=["bf16"],
        tuning_criterion=criterion,
        accuracy_criterion=AccuracyCriterion(
            criterion="relative" if relative else "absolute", tolerable_loss=float(drop)
        ),
    )

    def calibrate(model: torch.fx.GraphModule) -> None:
        share_ranges(model)
        with torch.no_grad():
            for image in tuning.images:
                model(image)

    def evaluate(model: nn.Module) -> float:  # INC reads the source of this one and refuses some words in it
        return tuning.end(model) if tuning.started else tuning.baseline

    with _tamed_inc(tuning):
        quantization.fit(tuning.net, config, calib_func=calibrate, eval_func=evaluate)
    if tuning.error is not None:
        raise tuning.error


def _strategy(tuning: _Tuning) -> type:
    """INC's tuning strategy that tries ``tuning``'s plans."""
    from neural_compressor.strategy.strategy import TuneStrategy
    from neural_compressor.strategy.utils.tuning_structs import OpTuningConfig

    class PlansTuneStrategy(TuneStrategy):  # type: ignore[misc]
        def next_tune_cfg(self) -> Iterator[dict[Any, Any]]:
            _, _, ops = self.initial_tuning_cfg()
            layers = [name for (name, _), op in ops.items() if op.has_weight]
            always = [name for name, kind in ops if kind in FP32_TYPES or name == layers[-1]]
            self.adaptor.get_fused_list = lambda _: {}  # for inspecting tensors; 5 s of repr(net) with HRNet
            for plan in tuning.plans(layers, always):
                for (name, kind), op in ops.items():
                    if name in plan.kept_fp32:
                        ops[name, kind] = OpTuningConfig(name, kind, "fp32", self.tuning_space)
                    elif op.op_quant_mode == "static":
                        op.kwargs["activation", "scheme"] = "asym"
                        op.kwargs["activation", "algorithm"] = plan.ranges
                        if op.has_weight:
                            op.weight_dtype = f"int{WEIGHT_BITS}"
                types = ("uint8", "int8") if plan.functions == "int8" else ("fp32", "fp32")
                common = {"scheme": "asym", "granularity": "per_tensor", "quant_mode": "static"}
                self.adaptor.default_qconfig = {  # of what has no name in INC: functions
                    "activation": {**common, "dtype": [types[0]], "algorithm": plan.ranges},
                    "weight": {**common, "dtype": [types[1]], "algorithm": "minmax"},
                }
                tuning.begin(plan)
                # INC skips what it takes for tried: tell it apart by the functions' precision, too
                yield {**ops, "calib_sampling_size": len(tuning.images), "functions": plan.functions}
                if tuning.met:
                    return

        def traverse(self) -> None:
            try:
                super().traverse()
            except BaseException as error:  # fit would print and forget it; _fit raises it again
                tuning.error = error

        def _save(self) -> None:
            """INC's history, for resuming, is not written."""

    return PlansTuneStrategy


@contextmanager
def _tamed_inc(tuning: _Tuning) -> Iterator[None]:
    """INC with our strategy, without its log, files and MPI, and with torch's FX passes sped up; undone at the end."""
    from neural_compressor.adaptor import pytorch as adaptor
    from neural_compressor.config import options
    from neural_compressor.strategy import STRATEGIES

    logger = logging.getLogger("neural_compressor")
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for package in (r"torch\.(ao|jit|fx|quantization)", "neural_compressor"):
            warnings.filterwarnings("ignore", module=package)
        warnings.filterwarnings("ignore", category=TracerWarning)  # scales become constants, as they should
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)  # its errors reach us as exceptions, see traverse
        stack.callback(setattr, options, "workspace", options.workspace)
        options.workspace = stack.enter_context(tempfile.TemporaryDirectory(prefix="segdist-inc-")) + "/"
        stack.callback(STRATEGIES.pop, STRATEGY)
        STRATEGIES[STRATEGY] = _strategy(tuning)
        stack.callback(setattr, adaptor, "REDUCE_RANGE", adaptor.REDUCE_RANGE)
        adaptor.REDUCE_RANGE = False  # the weights give the bit, not the activations
        # Where mpi4py is installed, INC would start MPI and share its trials among the ranks.
        if "mpi4py" not in sys.modules:
            stack.callback(sys.modules.pop, "mpi4py")
            sys.modules["mpi4py"] = None  # type: ignore[assignment]
        # FX asks for the device of the whole net at each observer: two thirds of HRNet's quantizing time.
        for name in ("convert", "prepare", "utils"):
            module: Any = importlib.import_module(f"torch.ao.quantization.fx.{name}")
            stack.callback(setattr, module, "assert_and_get_unique_device", module.assert_and_get_unique_device)
            module.assert_and_get_unique_device = lambda _module: torch.device("cpu")
        yield
