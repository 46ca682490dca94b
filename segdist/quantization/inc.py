"""Static int8 by Intel Neural Compressor (INC), tuned until an accuracy goal is met.

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
"""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import ObserverBase
from torch.jit._trace import TracerWarning

from segdist.config import ConfigError
from segdist.quantization.lowering import load_lowered
from segdist.quantization.search import Model, Quantized, Tuning
from segdist.quantization.sensitivity import WEIGHT_BITS
from segdist.quantization.trials import checked_score, least_score

INSTALL = 'python -m pip install "neural-compressor==3.7.1" six'
FP32_TYPES = ("ConvTranspose2d",)
"""Layer types that are never quantized."""
STRATEGY = "segdist"


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
    baseline = checked_score(score(net))
    goal = least_score(baseline, drop, relative)
    tuning = Tuning(net, images, score, example, baseline, goal, log)
    log(f"fp32 mIoU {baseline:.4f}; goal {goal:.4f}")
    _fit(tuning, drop, relative, max_trials)
    return Quantized(load_lowered(tuning.best_file), tuning.best, baseline, goal, tuple(tuning.trials))


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


def _fit(tuning: Tuning, drop: float, relative: bool, max_trials: int) -> None:
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


def _strategy(tuning: Tuning) -> type:
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
def _tamed_inc(tuning: Tuning) -> Iterator[None]:
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
