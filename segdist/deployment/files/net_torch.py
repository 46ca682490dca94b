"""This folder's model in torch; needs torch and numpy."""

import json
from pathlib import Path

import numpy as np
import torch

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
