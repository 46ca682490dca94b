"""Colour pictures by the classes of this folder's model: python predict.py street.jpg other.png [--out FOLDER].

Each picture gets a PNG of class ids and one of itself under their colours.
"""

import argparse
from pathlib import Path

import numpy as np
from net import ABOUT, class_ids, load
from PIL import Image, ImageOps


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("predictions"))
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model, colors = load(options.threads), np.array(ABOUT["colors"], np.uint8)
    for path in options.pictures:
        try:
            picture = np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        except (OSError, ValueError) as error:
            parser.error(f"{path}: cannot be read as a picture ({error}); give a JPEG, a PNG or the like")
        ids = class_ids(model, picture)
        Image.fromarray(ids).save(options.out / f"{path.stem}_classIds.png")
        overlay = (0.45 * picture + 0.55 * colors[ids]).astype(np.uint8)
        Image.fromarray(overlay).save(options.out / f"{path.stem}_overlay.png")
        shares = np.bincount(ids.ravel(), minlength=len(colors)) / ids.size
        print(path, *(f"{ABOUT['classes'][k]} {shares[k]:.0%}" for k in np.argsort(-shares) if shares[k] >= 0.005))


if __name__ == "__main__":
    main()
