"""Pictures of a run folder as data URIs, small enough for one page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

PICTURE_WIDTH = 512
"""Overlays wider than this (pixels) are scaled down."""


class PictureError(ValueError):
    """A picture that is missing or not whole. The message names the file."""


def data_uri(path: Path, width: int = PICTURE_WIDTH) -> str:
    """A picture as a data URI: a palette PNG where it has at most 256 colours (labels), else a JPEG.

    Raises:
        PictureError: for a file that is missing or not a whole picture.
    """
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(f"{path}: cannot be read as a picture ({error}); copy the run folder again") from error
    is_label = image.getcolors(256) is not None
    if image.width > width:
        size = (width, max(1, round(image.height * width / image.width)))
        image = image.resize(size, Image.Resampling.NEAREST if is_label else Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if is_label:
        _with_palette(image).save(buffer, "PNG", optimize=True)
        return _encode("image/png", buffer)
    image.save(buffer, "JPEG", quality=88, optimize=True)
    return _encode("image/jpeg", buffer)


def _with_palette(image: Image.Image) -> Image.Image:
    """The same RGB picture with a palette; exact, unlike a quantizer's, for up to 256 colours."""
    codes = np.asarray(image).astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    palette = np.unique(codes)
    result = Image.fromarray(np.searchsorted(palette, codes).astype(np.uint8))
    result.putpalette(b"".join(int(code).to_bytes(3, "big") for code in palette))
    return result


def _encode(media_type: str, buffer: io.BytesIO) -> str:
    return f"data:{media_type};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
