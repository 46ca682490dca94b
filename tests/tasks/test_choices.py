"""A training that goes on ends bit-identical to one that was never stopped, with every allocator and memory format."""

import signal
import subprocess
import sys

import pytest
import torch

from segdist.run.folder import RunFolder
from segdist.run.result import read_metrics
from segdist.system.allocator import find_allocator

pytestmark = pytest.mark.slow  # trains, or starts many processes

OPTIONS = (
    *("--width", "4", "--crop", "64x128", "--batch", "2", "--epochs", "3", "--workers", "0"),
    *("--checkpoint-minutes", "0"),
)


def train(run, streets, *options, stop_after=""):
    """Train to the end, or until a line with some text has been printed, then with SIGUSR1; gives the exit code."""
    command = [sys.executable, "-m", "segdist.launch", "train", "--run", str(run), "--data", str(streets), *OPTIONS]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if stop_after and stop_after in line:
            process.send_signal(signal.SIGUSR1)
    return process.wait(), "".join(lines)


def left(path):
    """What a training leaves but for its times."""
    run = RunFolder(path)
    rows = read_metrics(run.step("train").metrics_jsonl)
    rows = [{k: v for k, v in row.items() if not k.endswith("_s") and k != "time_per_image_ms"} for row in rows]
    return rows, torch.load(run.model_pt, weights_only=True)["weights"]


@pytest.mark.parametrize(
    ("memory_format", "allocator"),
    [("contiguous", "glibc"), ("channels_last", "tuned"), ("channels_last", "tcmalloc"), ("contiguous", "jemalloc")],
)
def test_a_resumed_training_is_bit_identical(streets, tmp_path, memory_format, allocator):
    if allocator not in ("glibc", "tuned") and find_allocator(allocator) is None:
        pytest.skip(f"{allocator} is not installed")
    options = ("--memory-format", memory_format, "--allocator", allocator)
    code, text = train(tmp_path / "whole", streets, *options)
    assert code == 0, text
    code, text = train(tmp_path / "parts", streets, *options, stop_after="epoch 1/3")
    assert code == 75, text
    code, text = train(tmp_path / "parts", streets)  # the choices of its first start, not those of this one
    assert code == 0, text
    assert f"memory-format: {memory_format} (as the run's first start)" in text
    assert f"allocator: {allocator} (" in text
    rows, weights = left(tmp_path / "whole")
    other_rows, other_weights = left(tmp_path / "parts")
    assert rows == other_rows
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
