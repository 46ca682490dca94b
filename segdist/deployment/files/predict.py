"""Colour pictures by the classes of this folder's model: python predict.py street.jpg other.png [--out FOLDER].

Needs openvino, numpy and Pillow. Each picture gets a PNG of class ids and one of itself under their colours.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import openvino as ov
from PIL import Image, ImageOps

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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("predictions"))
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model, colors = load(options.threads), np.array(ABOUT["colors"], np.uint8)
    for path in options.pictures:
        picture = np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        ids = class_ids(model, picture)
        Image.fromarray(ids).save(options.out / f"{path.stem}_classIds.png")
        overlay = (0.45 * picture + 0.55 * colors[ids]).astype(np.uint8)
        Image.fromarray(overlay).save(options.out / f"{path.stem}_overlay.png")
        shares = np.bincount(ids.ravel(), minlength=len(colors)) / ids.size
        print(path, *(f"{ABOUT['classes'][k]} {shares[k]:.0%}" for k in np.argsort(-shares) if shares[k] >= 0.005))


if __name__ == "__main__":
    main()
