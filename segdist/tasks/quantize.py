"""Quantize a trained model to int8 until the accuracy goal is met; keep the best one found either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segdist.config import QuantizationConfig, QuantizeConfig, parse_size
from segdist.data.cityscapes import WholeImages
from segdist.data.tuning import choose_images
from segdist.evaluation.metrics import ConfusionMatrix, percent
from segdist.evaluation.scoring import Score, score_images
from segdist.evaluation.tta import InferenceMode
from segdist.models.build import macs_by_size
from segdist.models.forward import Net, resize_input, to_input
from segdist.models.int8_file import save_int8
from segdist.models.load import file_sha256
from segdist.models.model_file import ModelInfo, load_model
from segdist.quantization import inc
from segdist.quantization.search import Quantized
from segdist.run.folder import RunFolder
from segdist.runtime.rank_context import GoalMissed, RankContext
from segdist.system.progress import Progress
from segdist.tasks.dataset import open_splits


def quantize(context: RankContext, config: QuantizeConfig) -> dict[str, Any]:
    """Quantize as ``config`` says; returns the metrics of ``result.json``.

    Calibrates on training images and scores every trial on others, those of ``quantization.tuning_split``, at
    ``quantization.tuning_size``. Writes ``model_int8.torchscript``, which torch alone can load.

    Raises:
        ConfigError: with more than one rank: the tuning is one process with all the cores.
        GoalMissed: where no trial reached the goal and ``allow_miss`` is off; the best model is there all the same.
    """
    context.require_one_rank()
    cfg, run = config.quantization, RunFolder(config.run)
    weights = Path(config.weights) if config.weights else run.model_pt
    net, info = load_model(weights)
    train_images, val_images = open_splits(context, config.dataset, config.run, ("train", "val"), info.labels)
    size = parse_size(cfg.tuning_size)
    calibrating, scored = choose_images(cfg, len(train_images), len(val_images))
    scored_images = val_images if cfg.tuning_split == "val" else train_images
    calibration = [resize_input(network_input(train_images, index), size) for index in calibrating]
    context.log(
        f"{info.model}: calibrating on {len(calibrating)} images of train, scoring on {len(scored)} of "
        f"{cfg.tuning_split}, at {cfg.tuning_size}"
    )

    def miou(model: Net) -> float:
        score = Score(ConfusionMatrix(len(info.labels)))
        with Progress("scoring", len(scored), context.is_rank0) as progress:
            score_images(model, scored_images, scored, InferenceMode(size), score, lambda *_: progress.step())
        return score.confusion.miou()

    found = inc.quantize(
        net, calibration, miou, calibration[0],
        drop=cfg.accuracy_drop,
        relative=cfg.relative,
        max_trials=cfg.max_trials,
        log=context.log,
    )  # fmt: skip
    macs = macs_by_size(net, (cfg.tuning_size,))
    save_int8(run.model_int8, found.module, {"info": info.to_plain(), "macs": macs, **int8_record(cfg, weights)})
    images = {
        "tuning_split": cfg.tuning_split,
        "tuning_images": [scored_images.samples[index].stem for index in scored],
        "calibration_images": [train_images.samples[index].stem for index in calibrating],
    }
    metrics = {**quantization_metrics(info, found, cfg.tuning_size), **file_sizes(run.model_int8, weights), **images}
    outcome = (
        f"int8 mIoU {metrics['miou_pct']:.2f} %, fp32 {metrics['baseline_miou_pct']:.2f} %, "
        f"goal {metrics['goal_miou_pct']:.2f} %"
    )
    if not found.met and not cfg.allow_miss:
        raise GoalMissed(
            f"MISSED: {outcome}; the best model is kept in {run.model_int8}. "
            "Give a larger --accuracy-drop, more --max-trials, or --allow-miss",
            metrics,
        )
    context.log(f"{'met' if found.met else 'MISSED, as allowed'}: {outcome}")
    return metrics


def int8_record(cfg: QuantizationConfig, fp32: Path) -> dict[str, Any]:
    """What an int8 file says of its making: the accuracy goal, and which fp32 model it comes from."""
    return {
        "goal": {"accuracy_drop": cfg.accuracy_drop, "relative": cfg.relative},
        "fp32": {"path": str(fp32.resolve()), "sha256": file_sha256(fp32)},
    }


def quantization_metrics(info: ModelInfo, found: Quantized, size: str) -> dict[str, Any]:
    """What ``result.json`` says of the int8 model, and of the trials that led to it."""
    return {
        "model": info.model,
        "width": info.width,
        "precision": "int8",
        "size": size,
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
    }


def file_sizes(int8: Path, fp32: Path) -> dict[str, float]:
    """Sizes of the two model files in 1e6 bytes."""
    return {name: round(path.stat().st_size / 1e6, 3) for name, path in (("size_mb", int8), ("fp32_size_mb", fp32))}


def network_input(images: WholeImages, index: int) -> Tensor:
    """One image as the net sees it at its own size: float32 ``[1, 3, H, W]``."""
    return to_input(torch.from_numpy(images[index][0])[None])
