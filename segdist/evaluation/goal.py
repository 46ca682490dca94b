"""Whether an int8 model keeps the accuracy goal of its quantization at the size and on the images of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segdist.cli import read_values
from segdist.config import ConfigError, EvaluateConfig, to_plain
from segdist.models.load import LoadedModel
from segdist.run.folder import RunFolder, StepFolder
from segdist.run.result import ResultError, as_number

_SAME = ("split", "absent", "window", "stride", "scales", "mirror")
"""Options of an evaluation that must be those of the fp32 evaluation."""


def judge_goal(config: EvaluateConfig, model: LoadedModel, size: str, miou_pct: float | None) -> dict[str, Any]:
    """What ``result.json`` says of the goal at one size: nothing but for an int8 model.

    ``goal_met`` is None where it cannot be said, and ``goal_missing`` has the reason. The fp32 mIoU is that of the
    evaluation of the model that was quantized, in the same run, with the same options and at the same size.
    """
    if model.precision != "int8":
        return {}
    goal, fp32 = model.record.get("goal"), model.record.get("fp32")
    if not isinstance(goal, Mapping) or not isinstance(fp32, Mapping):
        return _unknown("the int8 file does not say its goal, as none of earlier versions does; quantize again")
    if miou_pct is None:
        return _unknown("there is no mIoU")
    for step in RunFolder(config.run).steps():
        baseline = _fp32_miou(step, config, str(fp32["sha256"]), size) if step.task == "evaluate" else None
        if baseline is None:
            continue
        drop = float(goal["accuracy_drop"])
        least = baseline * (1 - drop) if goal["relative"] else baseline - 100 * drop
        return {
            "goal": f"{100 * drop:g} {'% relative' if goal['relative'] else 'points'}",
            "goal_met": miou_pct >= least - 1e-9,
            "goal_miou_pct": round(least, 4),
            "goal_fp32_miou_pct": baseline,
            "goal_fp32_by": step.name,
        }
    return _unknown(
        f"no fp32 evaluation of this run is of the same model, data, options and size {size}; evaluate its model.pt "
        "so, then the int8 model again"
    )


def _unknown(reason: str) -> dict[str, Any]:
    return {"goal_met": None, "goal_missing": reason}


def _fp32_miou(step: StepFolder, config: EvaluateConfig, sha256: str, size: str) -> float | None:
    """mIoU in percent of an fp32 evaluation that the int8 one can be held against, else None."""
    try:
        result, theirs = step.read_result(), read_values(str(step.config_json))
    except (ResultError, ConfigError):  # the report names such files
        return None
    ours, metrics = to_plain(config), result.metrics
    comparable = (
        result.status == "completed"
        and metrics.get("precision") == "fp32"
        and metrics.get("model_sha256") == sha256
        and theirs.get("dataset", {}).get("data") == ours["dataset"]["data"]
        and all(_plain(theirs.get("evaluation", {}).get(key)) == _plain(ours["evaluation"][key]) for key in _SAME)
    )
    return as_number(metrics["sizes"].get(size, {}).get("miou_pct")) if comparable else None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
