"""Quantize a trained model to int8 until the accuracy goal is met; keep the best one found either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segdist import int8
from segdist.config import ConfigError, QuantizeConfig, parse_size
from segdist.data.dataset import WholeImages
from segdist.metrics import percent
from segdist.models.build import count_macs
from segdist.models.files import load_model
from segdist.models.inference import Net, resize_input, to_input
from segdist.overlays import spread
from segdist.progress import Progress
from segdist.results import RunFolder
from segdist.scoring import score_images
from segdist.session import GoalMissed, Session
from segdist.splits import data_root, open_split

MAC_SIZES = ("256x512", "512x1024", "1024x2048")
"""Sizes for which the fp32 net's multiply-adds go into the int8 file, beside the size it was tuned at."""


def quantize(session: Session, config: QuantizeConfig) -> dict[str, Any]:
    """Quantize as ``config`` says; returns the metrics of ``result.json``.

    Calibrates on training images and scores every trial on the validation split, at ``quantization.tuning_size``.
    Writes ``model_int8.torchscript``, which torch alone can load.

    Raises:
        ConfigError: with more than one rank: the tuning is one process with all the cores.
        GoalMissed: where no trial reached the goal and ``allow_miss`` is off; the best model is there all the same.
    """
    if session.ranks.world > 1:
        raise ConfigError(f"quantize on {session.ranks.world} ranks: it runs on one; start it with one rank")
    how, run = config.quantization, RunFolder(config.run)
    weights = Path(config.weights) if config.weights else run.model_pt
    net, info = load_model(weights)
    root = data_root(session, config.dataset, config.run)
    splits = {split: open_split(session, config.dataset, root, split, info.labels) for split in ("train", "val")}
    size = parse_size(how.tuning_size)
    calibration = calibration_inputs(splits["train"], how.calibration_images, size)
    scored = spread(len(splits["val"]), how.tuning_images or len(splits["val"]))
    session.log(
        f"{info.model}: calibrating on {len(calibration)} images, scoring on {len(scored)}, at {how.tuning_size}"
    )

    def score(model: Net) -> float:
        with Progress("scoring", len(scored), session.is_main) as progress:
            return score_images(
                model, splits["val"], scored, size, len(info.labels), on_image=lambda *_: progress.step()
            ).confusion.miou()

    found = int8.quantize(
        net,
        calibration,
        score,
        calibration[0],
        drop=how.accuracy_drop,
        relative=how.relative,
        max_trials=how.max_trials,
        log=session.log,
    )
    macs = {text: count_macs(net, parse_size(text)) for text in dict.fromkeys((*MAC_SIZES, how.tuning_size))}
    int8.save_int8(run.model_int8, found.module, {"info": info.to_plain(), "macs": macs})
    metrics = {
        "model": info.model,
        "width": info.width,
        "precision": "int8",
        "size": how.tuning_size,
        "baseline_miou_pct": percent(found.baseline),
        "goal_miou_pct": percent(found.goal),
        "miou_pct": percent(found.best.score),
        "drop_points": percent(found.baseline - found.best.score),
        "goal_met": found.met,
        "trials": [
            {
                "trial": trial.number,
                "miou_pct": percent(trial.score),
                "seconds": round(trial.seconds, 3),
                "ranges": trial.plan.ranges,
                "functions": trial.plan.functions,
                "layers_in_fp32": len(trial.plan.kept_fp32),
            }
            for trial in found.trials
        ],
        "fp32_ops": list(found.best.plan.kept_fp32),
        "weight_bits": found.weight_bits,
        "reduce_range": found.weight_bits < 8,
        "size_mb": round(run.model_int8.stat().st_size / 1e6, 3),
        "fp32_size_mb": round(weights.stat().st_size / 1e6, 3),
    }
    outcome = (
        f"int8 mIoU {metrics['miou_pct']:.2f} %, fp32 {metrics['baseline_miou_pct']:.2f} %, "
        f"goal {metrics['goal_miou_pct']:.2f} %"
    )
    if not found.met and not how.allow_miss:
        raise GoalMissed(
            f"MISSED: {outcome}; the best model is kept in {run.model_int8}. "
            "Give a larger --accuracy-drop, more --max-trials, or --allow-miss",
            metrics,
        )
    session.log(f"{'met' if found.met else 'MISSED, as allowed'}: {outcome}")
    return metrics


def calibration_inputs(images: WholeImages, count: int, size: tuple[int, int]) -> list[Tensor]:
    """``count`` images spread over the split, as the net sees them: float32 ``[1, 3, *size]`` each."""
    inputs = (to_input(torch.from_numpy(images[index][0])[None]) for index in spread(len(images), count))
    return [resize_input(one, size) for one in inputs]
