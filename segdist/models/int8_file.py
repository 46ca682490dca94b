"""The file of an int8 model: TorchScript with metadata. Loading one needs torch alone."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from segdist.config import ConfigError
from segdist.run.files import write_atomic

METADATA = "segdist.json"
"""Name of the metadata inside the TorchScript archive."""


def save_int8(path: Path, module: torch.jit.ScriptModule, metadata: Mapping[str, Any]) -> None:
    """Write a model and its metadata (JSON values) as one TorchScript file, whole or not at all."""
    buffer = io.BytesIO()
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    torch.jit.save(module, buffer, _extra_files={METADATA: text.encode()})
    write_atomic(Path(path), buffer.getvalue())


def load_int8(path: Path) -> tuple[torch.jit.ScriptModule, dict[str, Any]]:
    """Read a model that :func:`save_int8` wrote, and its metadata.

    Raises:
        ConfigError: where the file is missing, damaged or something else; the message has its name.
    """
    extra = {METADATA: ""}
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not hold the contents against their checksums
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        metadata = json.loads(extra[METADATA])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of an int8 model") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{path}: is damaged, or no int8 model of this suite ({reason}); copy it again") from error
    if damaged is not None:
        raise ConfigError(f"{path}: is damaged at {damaged}; copy the file again")
    return module.eval(), metadata
