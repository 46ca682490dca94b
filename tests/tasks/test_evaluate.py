"""Evaluation is exact on any number of ranks, agrees with the official evaluator, and leaves what it says."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segdist.__main__ import run_rank
from segdist.config import ConfigError, DatasetConfig, EvaluateConfig, EvaluationConfig, RuntimeConfig
from segdist.data.labels import load_label_set
from segdist.models.build import build_net, count_parameters
from segdist.models.load import LoadedModel
from segdist.models.model_file import ModelInfo, save_model
from segdist.run.folder import RunFolder
from segdist.run.result import Result
from segdist.runtime.collectives import Collectives
from segdist.runtime.rank_context import RankContext
from segdist.system.cpu import read_cpu
from segdist.system.ranks import detect_ranks
from segdist.tasks.evaluate import evaluate

from ..evaluation.fixture import NearestColour, colour_data, run_ranks, train_ids

pytestmark = pytest.mark.slow  # trains, or starts many processes

QUICK = RuntimeConfig(threads=1)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 images of 48x96 pixels."""
    return colour_data(tmp_path_factory.mktemp("colours"), 16)


def evaluate_here(
    monkeypatch: pytest.MonkeyPatch, run: Path, data: Path, labels: str, name: str = "fp32", **options: Any
) -> dict[str, Any]:
    """Evaluate the nearest colour in this process; its metrics, which are written as well."""
    known = load_label_set(labels)
    net = NearestColour(known).eval()
    info = ModelInfo("nearest", 0, known, count_parameters(net))
    precision = options.pop("precision", "fp32")
    model = LoadedModel(net, info, precision, 1000, None, {"48x96": 48 * 96 * 3 * len(known)})
    monkeypatch.setattr("segdist.tasks.model_form.load_model_file", lambda *_: model)
    evaluation = EvaluationConfig(**{"sizes": ("48x96",), "latency_runs": 2, "latency_warmup": 0, **options})
    config = EvaluateConfig(str(run), name, None, True, DatasetConfig(str(data), labels), evaluation, QUICK)
    step = RunFolder(run).step("evaluate", name)
    ranks = detect_ranks({})
    context = RankContext(ranks, [0], read_cpu(), Collectives(ranks, "gloo"), step, QUICK)
    metrics = evaluate(context, config)
    step.write_result(Result("evaluate", name, "completed", "2026-01-31T12:00:00Z", metrics=metrics))
    return metrics


def official(data: Path, predictions: Path) -> dict[str, Any]:
    """What cityscapesScripts says of a folder of predictions; it looks for them itself."""
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as script

    script.args.evalInstLevelScore = False
    script.args.quiet = True
    script.args.JSONOutput = False
    script.args.predictionPath, script.args.predictionWalk = str(predictions), None
    truths = sorted(str(path) for path in (data / "gtFine" / "val").glob("*/*_gtFine_labelIds.png"))
    found = [script.getPrediction(script.args, truth) for truth in truths]
    result: dict[str, Any] = script.evaluateImgLists(found, truths, script.args)
    return result


def test_the_official_evaluator_gives_the_same_scores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, colours: Path
) -> None:
    metrics = evaluate_here(monkeypatch, tmp_path, colours, "cityscapes19", export=True)
    theirs = official(colours, tmp_path / "evaluate" / "fp32" / "export" / "48x96")
    ours = metrics["sizes"]["48x96"]
    assert 5 < ours["miou_pct"] < 95  # neither empty nor perfect
    assert ours["miou_pct"] / 100 == pytest.approx(theirs["averageScoreClasses"], abs=1e-6)
    assert ours["category_miou_pct"] / 100 == pytest.approx(theirs["averageScoreCategories"], abs=1e-6)
    for kind, scores in (("iou_pct", theirs["classScores"]), ("category_iou_pct", theirs["categoryScores"])):
        absent = {name for name, value in ours[kind].items() if value is None}
        assert absent == {name for name in ours[kind] if np.isnan(scores[name])}
        for name in ours[kind].keys() - absent:
            assert ours[kind][name] / 100 == pytest.approx(scores[name], abs=1e-6), name
    # All kinds of class are among them: absent, named but never there, and right more or less often.
    assert {name for name, value in ours["iou_pct"].items() if value is None} == {"train", "traffic sign"}
    assert any(value == 0 for value in ours["iou_pct"].values())


def test_an_independent_count_of_the_13_classes_gives_the_same_scores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, colours: Path
) -> None:
    metrics = evaluate_here(monkeypatch, tmp_path, colours, "street13", export=True)
    labels, exported = load_label_set("street13"), tmp_path / "evaluate" / "fp32" / "export" / "48x96"
    truths = sorted((colours / "gtFine" / "val").glob("*/*_labelIds.png"))
    stems = [path.name.removesuffix("_gtFine_labelIds.png") for path in truths]
    assert sorted(path.name for path in exported.iterdir()) == sorted(f"{stem}_pred_labelIds.png" for stem in stems)
    truth = np.stack([train_ids(path, labels) for path in truths])
    prediction = np.stack([train_ids(exported / f"{stem}_pred_labelIds.png", labels) for stem in stems])
    ious = []
    for index, name in enumerate(labels.classes):
        both = ((truth == index) & (prediction == index)).sum()
        either = (((truth == index) | (prediction == index)) & (truth != 255)).sum()
        said = metrics["sizes"]["48x96"]["iou_pct"][name]
        assert (said is None) == (either == 0)
        if either:
            ious.append(both / either)
            assert said / 100 == pytest.approx(both / either, abs=1e-6)
    assert metrics["sizes"]["48x96"]["miou_pct"] / 100 == pytest.approx(np.mean(ious), abs=1e-6)
    matrix = np.load(tmp_path / "evaluate" / "fp32" / "confusion.npy")
    assert matrix.dtype == np.int64
    assert matrix.sum() == (truth != 255).sum()


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model.pt of a small UNet with fresh weights."""
    torch.manual_seed(3)
    labels = load_label_set("cityscapes19")
    net = build_net("unet", len(labels), 4)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(path, ModelInfo("unet", 4, labels, count_parameters(net)), net.state_dict())
    return path


def test_1_2_3_4_and_7_ranks_count_the_same_integers(untrained: Path, colours: Path, tmp_path: Path) -> None:
    evaluation = EvaluationConfig(sizes=("48x96", "64x128"), latency_runs=1, latency_warmup=0, export=True, overlays=3)
    dataset = DatasetConfig(str(colours), "cityscapes19")
    found = {}
    for world in (1, 2, 3, 4, 7):
        config = EvaluateConfig(str(tmp_path), f"on-{world}", str(untrained), False, dataset, evaluation, QUICK)
        assert run_ranks(world, partial(run_rank, "evaluate", config)) == [0] * world
        step = RunFolder(tmp_path).step("evaluate", config.name)
        assert step.read_result().metrics["images"] == 16
        exported = {path.relative_to(step.path): path.read_bytes() for path in step.path.glob("export/*/*.png")}
        assert len(exported) == 32
        pictures = {path.name: path.read_bytes() for path in step.overlays.iterdir()}
        assert len(pictures) == 12
        matrices = np.load(step.confusion_npy)
        found[world] = (matrices.tolist(), (step.path / "images.csv").read_text(), exported, pictures)
    assert np.count_nonzero(matrices) > 20  # the net says more than one thing
    assert all(found[world] == found[1] for world in found)


def test_result_has_latency_memory_compute_and_where_the_time_went(
    untrained: Path, colours: Path, tmp_path: Path
) -> None:
    for precision in ("fp32", "bf16"):
        evaluation = EvaluationConfig(sizes=("64x128",), latency_runs=100, latency_warmup=1, eval_precision=precision)
        dataset = DatasetConfig(str(colours), "cityscapes19")
        config = EvaluateConfig(str(tmp_path), precision, str(untrained), False, dataset, evaluation, QUICK)
        assert run_ranks(2, partial(run_rank, "evaluate", config)) == [0, 0]
        result = RunFolder(tmp_path).step("evaluate", precision).read_result()
        values = result.metrics["sizes"]["64x128"]
        assert result.metrics["precision"] == precision
        assert 0 < values["latency_ms_p50"] <= values["latency_ms_p95"] <= values["latency_ms_p99"]
        assert values["images_per_s"] == pytest.approx(1000 / values["latency_ms_mean"], rel=1e-2)
        assert values["threads"] == 1
        assert 50 < values["peak_memory_mb"] < 16_000
        assert values["traced_latency_ms_p50"] > 0
        assert values["latency_passes"] == 100
        assert "latency_p99_missing" not in values
        beside = [values.get(f"{name}_latency_ms_p50") for name in ("fp32", "fp32_traced")]
        assert all(beside) if precision == "bf16" else beside == [None, None]
        assert values["traced_peak_memory_mb"] > 50
        assert values["gmacs"] > 0
        assert set(values["seconds"]) == {"decode_wait", "net", "resize", "count"}
        assert 0 < values["net_share_pct"] < 100
        assert result.machine["isa"] == read_cpu().isa
    assert result.decisions["precision"].startswith("bf16 (asked for")
    steps = [RunFolder(tmp_path).step("evaluate", name).read_result().metrics for name in ("fp32", "bf16")]
    assert steps[0]["sizes"]["64x128"]["gmacs"] == steps[1]["sizes"]["64x128"]["gmacs"]
    matrices = [np.load(RunFolder(tmp_path).step("evaluate", name).confusion_npy) for name in ("fp32", "bf16")]
    assert matrices[0].sum() == matrices[1].sum()
    assert (matrices[0] != matrices[1]).any()  # bf16 is another arithmetic


def test_worst_median_and_best_images_are_shown_and_other_precisions_show_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, colours: Path
) -> None:
    metrics = evaluate_here(monkeypatch, tmp_path, colours, "street13", overlays=3)
    folder = tmp_path / "evaluate" / "fp32"
    with (folder / "images.csv").open() as file:
        scores = {row["image"]: float(row["miou_pct"]) for row in csv.DictReader(file)}
    assert len(scores) == 16
    shown = {one["role"]: one for one in metrics["shown"]}
    assert shown["worst"]["miou_pct"] == min(scores.values())
    assert shown["best"]["miou_pct"] == max(scores.values())
    assert sorted(scores.values())[7] <= shown["median"]["miou_pct"] <= sorted(scores.values())[8]
    assert all(scores[one["stem"]] == one["miou_pct"] for one in metrics["shown"])
    kinds = ("image", "truth", "prediction", "error")
    expected = sorted(f"{one['stem']}_{kind}.png" for one in metrics["shown"] for kind in kinds)
    assert sorted(path.name for path in (folder / "overlays").iterdir()) == expected
    error = np.asarray(Image.open(folder / "overlays" / f"{shown['worst']['stem']}_error.png"))
    labels = load_label_set("street13")
    truth = train_ids(next(colours.glob(f"gtFine/val/*/{shown['worst']['stem']}_*.png")), labels)
    assert ((error == 2) == (truth == 255)).all()
    right = (error == 0).sum() / (error != 2).sum()
    assert 0 < right < 1
    again = evaluate_here(monkeypatch, tmp_path, colours, "street13", "int8", overlays=3, precision="int8", mirror=True)
    assert again["shown_by"] == "fp32"
    assert [(one["stem"], one["role"]) for one in again["shown"]] == [
        (one["stem"], one["role"]) for one in metrics["shown"]
    ]


def test_another_evaluation_in_its_place_leaves_no_picture_of_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, colours: Path
) -> None:
    folder = tmp_path / "evaluate" / "fp32"
    evaluate_here(monkeypatch, tmp_path, colours, "street13", overlays=6, export=True)
    assert len(list((folder / "overlays").iterdir())) == 24
    metrics = evaluate_here(monkeypatch, tmp_path, colours, "street13", overlays=1)
    assert {path.name.rpartition("_")[0] for path in (folder / "overlays").iterdir()} == {metrics["shown"][0]["stem"]}
    assert not (folder / "export").exists()


def test_images_without_a_counted_pixel_have_no_score_but_can_be_exported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = colour_data(tmp_path / "data", 2, split="test")
    for path in data.glob("gtFine/test/*/*.png"):  # as the official test split is: nothing to count
        Image.fromarray(np.zeros((48, 96), np.uint8)).save(path)
    metrics = evaluate_here(monkeypatch, tmp_path, data, "cityscapes19", split="test", export=True)
    assert metrics["sizes"]["48x96"]["miou_pct"] is None
    assert metrics["shown"] == []
    assert len(list((tmp_path / "evaluate" / "fp32" / "export" / "48x96").iterdir())) == 2
    assert "no mIoU" in capsys.readouterr().out


def test_the_rule_for_absent_classes_is_an_option(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, colours: Path
) -> None:
    by_rule = {
        rule: evaluate_here(monkeypatch, tmp_path, colours, "cityscapes19", absent=rule)["sizes"]["48x96"]
        for rule in ("skip", "zero", "nan")
    }
    ious = [value for value in by_rule["skip"]["iou_pct"].values() if value is not None]
    assert len(ious) < 19
    assert by_rule["skip"]["miou_pct"] == pytest.approx(sum(ious) / len(ious), abs=1e-3)
    assert by_rule["zero"]["miou_pct"] == pytest.approx(sum(ious) / 19, abs=1e-3)
    assert by_rule["nan"]["miou_pct"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": "8x8"}, "--stride 8x8: needs a window"),
        ({"window": "32x32", "stride": "8x64"}, "--stride 8x64: must not be larger than --window 32x32"),
        ({"window": "big"}, "--window 'big': a size is HEIGHTxWIDTH"),
        ({"scales": ()}, "--scales : must be above 0"),
        ({"scales": (0.5, 0.0)}, "--scales 0.5 0.0: must be above 0"),
    ],
)
def test_a_window_that_leaves_holes_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluationConfig(**options)


def test_bf16_is_refused_for_an_int8_model() -> None:
    with pytest.raises(ConfigError, match="--eval-precision bf16 with a.torchscript: an int8 model has its own"):
        EvaluateConfig("run", weights="a.torchscript", evaluation=EvaluationConfig(eval_precision="bf16"))
