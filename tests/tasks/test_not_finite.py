"""A model whose weights are not finite: evaluation, table, CSV, JSON and report all say so, and none dies of it."""

import csv
import io
import json

import pytest
import torch

from segdist.data.labels import load_label_set
from segdist.models.build import build_net, count_parameters
from segdist.models.model_file import ModelInfo, save_model
from segdist.run.folder import RunFolder

pytestmark = pytest.mark.slow  # starts processes


def test_a_model_of_nan_is_evaluated_collected_and_reported(streets, run_python, tmp_path):
    run = RunFolder(tmp_path / "run")
    labels = load_label_set("street13")
    net = build_net("unet", len(labels), 4)
    weights = {n: torch.full_like(t, float("nan")) if t.is_floating_point() else t for n, t in net.state_dict().items()}
    save_model(run.model_pt, ModelInfo("unet", 4, labels, count_parameters(net)), weights)
    done = run_python(
        *("segdist.launch", "evaluate", "--run", run.path, "--data", streets, "--sizes", "64x128"),
        *("--latency-runs", "2", "--overlays", "1"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "64x128: the loss is nan, as logits of the model are not finite; mistrust its scores" in done.stdout
    text = run.step("evaluate").result_json.read_text()
    values = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert values["metrics"]["sizes"]["64x128"]["loss"] is None
    assert values["not_finite"]["metrics.sizes.64x128.loss"] == "was nan, which JSON cannot hold"
    table = run_python("jobs.collect", run.path)
    assert (table.returncode, "Traceback" in table.stderr) == (0, False)
    assert "64x128" in table.stdout
    (row,) = csv.DictReader(io.StringIO(run_python("jobs.collect", run.path, "--format", "csv").stdout))
    assert (row["size"], row["loss"]) == ("64x128", "")
    (entry,) = json.loads(run_python("jobs.collect", run.path, "--format", "json").stdout)
    assert entry["loss"] is None
    report = run_python("jobs.collect", run.path, "--format", "html", "--out", tmp_path / "report.html")
    assert report.returncode == 0, report.stderr
    assert "Traceback" not in report.stderr
    assert (tmp_path / "report.html").stat().st_size > 10_000
