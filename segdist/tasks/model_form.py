"""The model that an evaluation is of, in the form in which it runs fastest here, and the fp32 net beside it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from segdist.config import ConfigError, EvaluateConfig
from segdist.machine.choices import find_inference
from segdist.machine.profile import Work
from segdist.models.load import LoadedModel, load_model_file
from segdist.run.folder import RunFolder
from segdist.runtime.ipex import Ipex
from segdist.runtime.precision import choose_precision
from segdist.runtime.rank_context import RankContext


def open_model(context: RankContext, config: EvaluateConfig) -> LoadedModel:
    """The model that ``config`` names, by default that of the run, in the precision that it asks for."""
    weights = Path(config.weights) if config.weights else RunFolder(config.run).model_pt
    wanted = config.evaluation.eval_precision
    model = load_model_file(weights, wanted, context.memory_format)
    if model.precision == "fp32" and model.module is not None:
        model = in_fastest_form(context, model)
    if wanted == "bf16":
        precision = choose_precision("bf16", context.cpu, Ipex(None, "not used in evaluation"))
        context.record_choice("precision", f"bf16 ({precision.reason})", precision.warning)
    return model


def in_fastest_form(context: RankContext, model: LoadedModel) -> LoadedModel:
    """An fp32 model in the memory format, and traced for scoring, as it was measured to be fastest here; recorded."""
    work = Work(model.info.model, model.info.width if model.info.model == "unet" else 0, "", 0)
    find = partial(find_inference, context.runtime, context.cpu, len(context.cores), work)
    name, traced, why = context.run_on_rank0(find)
    context.record_choice("memory-format", f"{name}{', traced for scoring' if traced else ''} ({why})")
    choices = replace(context.start.choices, memory_format=name)  # type: ignore[arg-type]
    context.start = replace(context.start, choices=choices)
    return model.in_layout(context.memory_format, traced)


def open_fp32_base(context: RankContext, config: EvaluateConfig, model: LoadedModel) -> LoadedModel:
    """The fp32 net that a bf16 or int8 model is timed against: of an int8 model the one that was quantized.

    Where its file has gone, the run's own will do if it is of the same architecture: the weights take no part in how
    long a pass takes.

    Raises:
        ConfigError: where there is none.
    """
    if model.module is not None:
        return model.in_fp32()
    named = (model.record.get("fp32") or {}).get("path")
    files = dict.fromkeys([*([Path(named)] if named else []), RunFolder(config.run).model_pt])
    for path in files:
        if path.is_file():
            fp32 = load_model_file(path, "fp32", context.memory_format)
            if fp32.info == model.info:
                return fp32
    raise ConfigError(
        f"fp32 was not timed beside it: {' and '.join(map(str, files))}: is missing, or another net; put the model.pt "
        "that was quantized there"
    )
