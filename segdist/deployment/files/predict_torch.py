"""Colour pictures by the classes of this folder's model: python predict.py street.jpg other.png [--out FOLDER].

Needs torch, numpy and Pillow. Each picture gets a PNG of class ids and one of itself under their colours.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

HERE = Path(__file__).parent
ABOUT = json.loads((HERE / "model.json").read_text(encoding="utf-8"))


def load(threads=0):
    """The model; a TorchScript file is a program: run one that you trust."""
    if threads:
        torch.set_num_threads(threads)
    return torch.jit.load(HERE / ABOUT["file"]).eval()


def class_ids(model, picture):
    """uint8 picture [H, W, 3] → uint8 class ids [H, W]. The net wants sides that are multiples of 32."""
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((0, -height % 32), (0, -width % 32), (0, 0)), mode="edge")
    pixels = torch.from_numpy(padded)[None].float()
    if ABOUT["normalized"]:  # the net takes normalized images, not pixels
        pixels = (pixels - torch.tensor(ABOUT["mean"]) * 255) / (torch.tensor(ABOUT["std"]) * 255)
        pixels = pixels.permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits = model(pixels).float()
        stride = ABOUT["stride"]
        logits = logits[..., : -(-height // stride), : -(-width // stride)]
        if stride > 1:
            logits = torch.nn.functional.interpolate(logits, size=(height, width), mode="bilinear")
        return logits[0].argmax(0).to(torch.uint8).numpy()


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
