"""The file of an int8 model: torch alone runs it, and damage is refused by name."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from segdist.config import ConfigError
from segdist.models.int8_file import load_int8, save_int8
from segdist.quantization.inc import quantize

pytestmark = pytest.mark.slow  # trains, or starts many processes


@pytest.fixture(scope="module")
def lowered() -> torch.jit.ScriptModule:
    """An int8 model, as a quantization leaves it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    image = torch.randn(1, 3, 64, 96)
    return quantize(net, [image], lambda _: 0.5, image, log=lambda _: None).module


def test_a_file_runs_in_a_fresh_process_with_torch_alone(lowered: torch.jit.ScriptModule, tmp_path: Path) -> None:
    path = tmp_path / "model_int8.torchscript"
    save_int8(path, lowered, {"labels": ["road", "Fußweg"], "miou": 0.5})
    x = torch.randn(1, 3, 96, 64)
    torch.save(x, tmp_path / "x.pt")
    script = (
        "import sys, torch; from segdist.models.int8_file import load_int8;"
        "from pathlib import Path; here = Path(sys.argv[1]);"
        "module, metadata = load_int8(here / 'model_int8.torchscript');"
        "torch.save((module(torch.load(here / 'x.pt')), metadata), here / 'y.pt');"
        "sys.exit(bool({'neural_compressor', 'intel_extension_for_pytorch'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=Path(__file__).parents[2])
    logits, metadata = torch.load(tmp_path / "y.pt")
    assert torch.equal(logits, lowered(x))
    assert metadata == {"labels": ["road", "Fußweg"], "miou": 0.5}


def test_a_damaged_or_foreign_file_is_refused_by_name(lowered: torch.jit.ScriptModule, tmp_path: Path) -> None:
    good = tmp_path / "good.torchscript"
    save_int8(good, lowered, {})
    assert load_int8(good)[1] == {}
    data = good.read_bytes()
    with zipfile.ZipFile(good) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    flipped = bytearray(data)
    flipped[largest.header_offset + 200] ^= 0xFF
    plain = tmp_path / "plain.torchscript"
    torch.jit.save(lowered, str(plain))
    pickled = tmp_path / "pickled.torchscript"
    torch.save({"a": 1}, pickled)
    cases = {"half": data[: len(data) // 2], "flipped": bytes(flipped), "empty": b"", "text": b"not a model"}
    for name, content in cases.items():
        (tmp_path / f"{name}.torchscript").write_bytes(content)
    for name in (*cases, "plain", "pickled", "missing"):
        with pytest.raises(ConfigError, match=f"{name}.torchscript: "):
            load_int8(tmp_path / f"{name}.torchscript")
