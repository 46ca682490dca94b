"""This folder's model in OpenVINO; needs openvino and numpy."""

import json
from pathlib import Path

import numpy as np
import openvino as ov

HERE = Path(__file__).parent
ABOUT = json.loads((HERE / "model.json").read_text(encoding="utf-8"))


def load(threads=0):
    """The model, compiled for this CPU; OpenVINO would take bf16 for fp32 where it can, so the precision is named."""
    core = ov.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "CACHE_DIR": str(HERE / "cache")}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(core.read_model(HERE / ABOUT["file"]), "CPU", settings)


def class_ids(model, picture):
    """uint8 picture [H, W, 3] → uint8 class ids [H, W]. The net wants sides that are multiples of 32."""
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((0, -height % 32), (0, -width % 32), (0, 0)), mode="edge")
    outputs = {output.any_name: value for output, value in model([padded[None]]).items()}
    if "class_ids" in outputs:
        return outputs["class_ids"][0, :height, :width]
    stride = ABOUT["stride"]
    logits = outputs["logits"][0, :, : -(-height // stride), : -(-width // stride)]
    ids = np.empty((height, width), np.uint8)
    columns = blend(np.moveaxis(logits, 2, 0), width)  # [width, classes, h]
    for begin in range(0, width, 64):  # a strip at a time, which needs little memory
        strip = blend(np.moveaxis(columns[begin : begin + 64], 2, 0), height)  # [height, strip, classes]
        ids[:, begin : begin + 64] = strip.argmax(2)
    return ids


def blend(values, length):
    """Bilinear along the first axis, to ``length`` places; the values themselves where there are as many."""
    have = len(values)
    if have == length:
        return values
    at = np.clip((np.arange(length) + 0.5) * (have / length) - 0.5, 0, None).astype(np.float32)
    before = at.astype(int)
    share = (at - before).reshape(-1, 1, 1)
    return values[before] * (1 - share) + values[np.minimum(before + 1, have - 1)] * share
