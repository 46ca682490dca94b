"""Where the time of an evaluation goes, and what a second rank saves; printed, nothing is asserted about time.

Run with ``make bench``. A rank has one thread, so that one rank and two compare like with like; on a machine with
fewer than two free cores the ratio says little.
"""

from functools import partial
from pathlib import Path

import pytest
import torch

from segdist.__main__ import run_rank
from segdist.config import DatasetConfig, EvaluateConfig, EvaluationConfig, RuntimeConfig
from segdist.data.labels import load_label_set
from segdist.data.scenes import ScenesConfig, ensure_scenes
from segdist.models.build import build_net, count_parameters
from segdist.models.model_file import ModelInfo, save_model
from segdist.run.folder import RunFolder
from tests.evaluation.fixture import run_ranks

IMAGES = 16


@pytest.mark.parametrize(("model", "width"), [("unet", 32), ("hrnetv2_w18", 18)])
def bench_two_ranks_over_one(model: str, width: int, tmp_path: Path) -> None:
    data = ensure_scenes(ScenesConfig(out=tmp_path / "scenes", train=1, val=IMAGES, size="256x512", workers=0))
    torch.manual_seed(0)
    labels = load_label_set("cityscapes19")
    net = build_net(model, len(labels), width)
    save_model(tmp_path / "model.pt", ModelInfo(model, width, labels, count_parameters(net)), net.state_dict())
    evaluation = EvaluationConfig(sizes=("256x512",), overlays=0, latency_runs=1, latency_warmup=1)
    took: dict[int, float] = {}
    lines = []
    for world in (1, 2) * 3:  # the best of three: the machine may be shared
        config = EvaluateConfig(
            str(tmp_path / "run"), f"on-{world}", str(tmp_path / "model.pt"), True,
            DatasetConfig(str(data), "cityscapes19"), evaluation, RuntimeConfig(threads=1),
        )  # fmt: skip
        assert run_ranks(world, partial(run_rank, "evaluate", config)) == [0] * world
        values = RunFolder(tmp_path / "run").step("evaluate", config.name).read_result().metrics["sizes"]["256x512"]
        took[world] = min(took.get(world, float("inf")), values["scoring_s"])
        parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in values["seconds"].items())
        total = f"{world} rank{'s' if world > 1 else ' '}  {values['scoring_s']:6.2f} s"
        lines.append(f"  {total}, {values['net_share_pct']:.1f} % in the net; seconds: {parts}")
    ratio = took[2] / (took[1] / 2)
    print(f"\n{model}, {IMAGES} images of 256x512: 2 ranks take {ratio:.2f} of half of one's time")
    print("\n".join(lines))
