"""What a PNG file says of itself without being decoded (PNG specification, sections 5 and 11.2.2); standard library."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from segdist.config import ConfigError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"IEND\xaeB`\x82"
_COLOR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
_OTHER_FORMATS = {b"\xff\xd8\xff": "a JPEG", b"GIF8": "a GIF", b"BM": "a BMP", b"II*\0": "a TIFF", b"MM\0*": "a TIFF",
                  b"RIFF": "a WebP"}  # fmt: skip


class DataError(ConfigError):
    """A data set that cannot be used. The message names the file, the rule and the fix."""


@dataclass(frozen=True)
class PngHeader:
    """Height and width in pixels, bits of a sample, and the kind of its colours."""

    height: int
    width: int
    depth: int
    colors: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def __str__(self) -> str:
        return f"{self.depth}-bit {self.colors}"


def read_png_header(path: Path) -> PngHeader:
    """The header of a PNG that is whole, as far as its chunks tell; bytes behind its end do not matter.

    Raises:
        DataError: where the file cannot be read, is no PNG, or ends before its last chunk (a copy that was cut short).
    """
    try:
        with path.open("rb") as file:
            head = file.read(33)
            if len(head) < 33 or not head.startswith(_SIGNATURE) or head[12:16] != b"IHDR":
                raise DataError(f"{path}: is not a PNG file{_what_it_is(head)}; copy or convert it again")
            file.seek(max(-len(_END), -file.seek(0, 2)), 2)
            if file.read() != _END and not _reaches_end(file):
                raise DataError(f"{path}: is cut short (a PNG ends with IEND); copy it again")
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); mend the storage, or let its owner allow it"
        raise DataError(f"{path}: {reason}") from error
    width, height, depth, color_type = struct.unpack(">IIBB", head[16:26])
    return PngHeader(height, width, depth, _COLOR_TYPES.get(color_type, f"colour type {color_type}"))


def _what_it_is(head: bytes) -> str:
    if not head:
        return " (it is empty)"
    return next((f" (it is {name})" for start, name in _OTHER_FORMATS.items() if head.startswith(start)), "")


def _reaches_end(file: BinaryIO) -> bool:
    """Whether the chunks, one after the other, come to IEND within the file."""
    size = file.seek(0, 2)
    at = len(_SIGNATURE)
    while at + 12 <= size:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        at += 12 + length
        if kind == b"IEND":
            return at <= size
    return False
