"""The tasks end to end, at a small size: what they leave behind, and how they end where something is wrong."""

import json
import shutil

import numpy as np
import pytest
import torch

from segdist.data.labels import load_label_set
from segdist.models.build import build_net, count_parameters
from segdist.models.model_file import ModelInfo, load_model, save_model
from segdist.run.folder import RunFolder
from segdist.run.result import read_metrics

from ..evaluation.fixture import NearestColour, colour_data

pytestmark = pytest.mark.slow  # trains, or starts many processes

SMALL = ("--width", "4", "--epochs", "2", "--crop", "64x128", "--batch", "4", "--workers", "0", "--ipex", "off")


@pytest.fixture(scope="module")
def trained(streets, run_python, tmp_path_factory):
    """A run folder with a UNet trained by two ranks."""
    run = tmp_path_factory.mktemp("runs") / "first"
    done = run_python("segdist.launch", "--ranks-per-node", "2", "train", "--run", run, "--data", streets, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return RunFolder(run), done


def test_training_leaves_result_metrics_model_and_checkpoints(trained):
    run, done = trained
    step = run.step("train")
    result = step.read_result()
    assert (result.status, result.error, result.task) == ("completed", None, "train")
    assert result.machine["ranks"] == 2
    assert result.machine["threads_per_rank"] >= 1
    assert result.decisions["collectives"].startswith("gloo")
    assert result.decisions["data"].endswith(
        "(Cityscapes layout): 8 train, 5 val images; label set street13 (13 classes)"
    )
    assert result.decisions["ipex"] == "off, as asked for"
    assert result.versions["torch"].startswith("2.8")
    rows = read_metrics(step.metrics_jsonl)
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 2), (2, 4)]
    assert result.metrics["best_miou_pct"] == max(row["miou_pct"] for row in rows)
    assert set(rows[0]["iou_pct"]) == set(result.metrics["classes"])
    assert json.loads(step.config_json.read_text())["training"]["batch"] == 4
    _, info = load_model(run.model_pt)
    assert (info.model, info.width, info.labels.name) == ("unet", 4, "street13")
    last = torch.load(step.checkpoints / "last.pt", weights_only=True)
    assert last["position"]["rows"] == rows
    assert [row["step"] for row in read_metrics(step.steps_jsonl)] == [1, 2, 3, 4]
    assert (step.checkpoints / "best.pt").exists()
    assert "epoch 2/2: loss" in done.stdout
    assert "epoch 2/2: loss" in step.rank_log(0).read_text()
    assert "epoch" not in step.rank_log(1).read_text()  # rank 0 alone speaks


def test_a_second_training_into_the_same_run_is_refused_and_nothing_is_lost(trained, streets, run_python):
    run, _ = trained
    before = run.step("train").result_json.read_text()
    for command in ("segdist", "segdist.launch"):
        done = run_python(command, "train", "--run", run.path, "--data", streets, *SMALL)
        assert done.returncode == 2
        assert "train/result.json: exists; give another --run, or --overwrite to replace it" in done.stderr
    assert run.step("train").result_json.read_text() == before


def test_evaluation_counts_the_same_on_1_and_3_ranks(trained, streets, run_python):
    run, _ = trained
    options = ("--data", streets, "--sizes", "64x128", "96x160", "--latency-runs", "2", "--overlays", "2")
    for name, ranks in (("one", "1"), ("three", "3")):
        done = run_python(
            "segdist.launch", "--ranks-per-node", ranks, "evaluate", "--run", run.path, "--name", name, *options
        )
        assert done.returncode == 0, done.stdout + done.stderr
    one, three = run.step("evaluate", "one"), run.step("evaluate", "three")
    assert (np.load(one.confusion_npy) == np.load(three.confusion_npy)).all()
    metrics = one.read_result().metrics
    assert metrics["images"] == 5
    at_label_size = metrics["sizes"]["64x128"]
    assert at_label_size["miou_pct"] == three.read_result().metrics["sizes"]["64x128"]["miou_pct"]
    assert at_label_size["loss"] == pytest.approx(three.read_result().metrics["sizes"]["64x128"]["loss"], rel=1e-5)
    assert at_label_size["latency_ms_p95"] >= at_label_size["latency_ms_p50"] > 0
    assert at_label_size["traced_latency_ms_p50"] > 0
    assert metrics["sizes"]["96x160"]["gmacs"] > at_label_size["gmacs"] > 0
    # what training said about its best epoch is what the saved model does
    assert at_label_size["miou_pct"] == pytest.approx(run.step("train").read_result().metrics["best_miou_pct"], abs=0.5)
    pictures = sorted(path.name for path in three.overlays.iterdir())
    assert pictures == sorted(path.name for path in one.overlays.iterdir())
    assert len(pictures) == 8


def model_that_int8_ruins(path):
    """A UNet that tells classes by their colours, and has a channel beside them that is 100 000 times as large.

    One range holds for all channels of a tensor, so int8 has no level left for the colours.
    """
    labels = load_label_set("cityscapes19")
    net, colours = build_net("unet", len(labels), 4), NearestColour(labels).conv
    factors = torch.tensor([1.0, 1.0, 1.0, 1e5])
    with torch.no_grad():
        for block in (net.down[0], net.merge[-1]):
            for conv in (block[0], block[3]):
                conv.weight.zero_()
                for channel in range(4):  # of eight channels the first four are the skip connection's
                    conv.weight[channel, channel % conv.in_channels, 1, 1] = 1.0
        net.down[0][0].weight.mul_(factors[:, None, None, None])
        net.down[0][1].bias.copy_(3 * factors)  # normalized colours are above -3: no ReLU cuts them
        net.head.weight.zero_()
        net.head.weight[:, :3] = colours.weight
        net.head.bias.copy_(colours.bias - 3 * colours.weight.sum((1, 2, 3)))
    save_model(path, ModelInfo("unet", 4, labels, count_parameters(net)), net.state_dict())


def test_a_goal_that_is_missed_says_so_exits_with_3_and_keeps_the_best_model(run_python, tmp_path):
    data, run = tmp_path / "data", RunFolder(tmp_path / "run")
    for split, count in (("train", 6), ("val", 4)):
        colour_data(data, count, split=split)
    model_that_int8_ruins(tmp_path / "model.pt")
    options = ("--run", run.path, "--data", data, "--labels", "cityscapes19", "--weights", tmp_path / "model.pt")
    quick = ("--tuning-size", "48x96", "--ipex", "off", "--max-trials", "1", "--calibration-images", "2")
    done = run_python("segdist.launch", "quantize", *options, *quick)
    assert done.returncode == 3, done.stdout + done.stderr
    result = run.step("quantize").read_result()
    assert result.status == "failed"
    assert result.error.startswith("MISSED: int8 mIoU")
    assert result.metrics["goal_met"] is False
    assert result.metrics["baseline_miou_pct"] > 20 > 2 * result.metrics["miou_pct"]
    assert result.metrics["tuning_split"] == "train"
    named = [result.metrics[key] for key in ("tuning_images", "calibration_images")]
    assert [len(stems) for stems in named] == [4, 2]
    stems = {path.name.removesuffix("_leftImg8bit.png") for path in data.glob("leftImg8bit/train/*/*.png")}
    assert set(named[0]) | set(named[1]) == stems
    assert run.model_int8.exists()
    assert not (run.path / "nc_workspace").exists()
    allowed = run_python("segdist.launch", "quantize", *options, *quick, "--overwrite", "--allow-miss")
    assert allowed.returncode == 0, allowed.stdout + allowed.stderr
    result = run.step("quantize").read_result()
    assert (result.status, result.metrics["goal_met"]) == ("completed", False)
    assert "MISSED, as allowed: int8 mIoU" in allowed.stdout


def test_an_int8_model_is_evaluated_in_a_fresh_process(trained, streets, run_python):
    run, _ = trained
    options = ("--data", streets, "--ipex", "off", "--overwrite")
    quantized = run_python(
        "segdist",
        "quantize",
        "--run",
        run.path,
        *options,
        "--tuning-size",
        "64x128",
        "--allow-miss",
        "--max-trials",
        "1",
        "--calibration-images",
        "4",
        "--tuning-split",
        "val",
    )
    assert quantized.returncode == 0, quantized.stdout + quantized.stderr
    sizes = ("--sizes", "64x128", "512x1024", "--latency-runs", "1", "--latency-warmup", "0")
    done = run_python(
        "segdist", "evaluate", "--run", run.path, "--name", "int8", "--weights", run.model_int8, *options, *sizes
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = run.step("evaluate", "int8").read_result().metrics
    assert (metrics["precision"], metrics["model"]) == ("int8", "unet")
    assert metrics["sizes"]["512x1024"]["gmacs"] > 0
    tuned = run.step("quantize").read_result().metrics
    assert metrics["sizes"]["64x128"]["miou_pct"] == pytest.approx(tuned["miou_pct"], abs=1e-3)
    here, elsewhere = metrics["sizes"]["64x128"], metrics["sizes"]["512x1024"]
    assert here["fp32_latency_ms_p50"] > 0
    assert here["fp32_traced_latency_ms_p50"] > 0
    assert (here["goal"], here["goal_fp32_by"]) == ("1 % relative", "one")
    assert here["goal_met"] is (here["miou_pct"] >= 0.99 * here["goal_fp32_miou_pct"])
    assert f"64x128: goal 1 % relative {'met' if here['goal_met'] else 'MISSED'}: int8 mIoU" in done.stdout
    assert elsewhere["goal_met"] is None
    assert "512x1024: goal not judged: no fp32 evaluation of this run is of the same model" in done.stdout
    assert "x over eager fp32)" in done.stdout or " eager fp32 (" in done.stdout
    assert "p99 needs at least 100 passes, there were 1; give --latency-runs 100" in here["latency_p99_missing"]
    run.model_pt.rename(run.path / "gone.pt")
    without = ("--name", "alone", "--weights", run.model_int8, *options, "--sizes", "64x128", "--latency-runs", "1")
    done = run_python("segdist", "evaluate", "--run", run.path, *without)
    (run.path / "gone.pt").rename(run.model_pt)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "64x128: int8 no speed-up is claimed: fp32 was not timed beside it: " in done.stdout
    assert "model.pt: is missing, or another net; put the model.pt that was quantized there" in done.stdout


def test_quantization_on_two_ranks_is_refused(trained, streets, run_python):
    run, _ = trained
    done = run_python(
        "segdist.launch",
        "--ranks-per-node",
        "2",
        "quantize",
        "--run",
        run.path,
        "--data",
        streets,
        "--overwrite",
        "--ipex",
        "off",
    )
    assert done.returncode == 2
    assert "error: quantize on 2 ranks: it runs on one; start it with one rank" in done.stdout


def test_a_damaged_image_is_found_before_the_training_starts(streets, run_python, tmp_path):
    root = tmp_path / "streets"
    shutil.copytree(streets, root)
    image = sorted((root / "leftImg8bit" / "train").glob("*/*.png"))[5]
    data = bytearray(image.read_bytes())
    data[len(data) // 2] ^= 0xFF
    image.write_bytes(data)
    done = run_python(
        "segdist.launch", "--ranks-per-node", "2", "train", "--run", tmp_path / "run", "--data", root, *SMALL
    )
    assert done.returncode == 2
    assert f"error: {image}: is damaged" in done.stdout
    assert "epoch 1" not in done.stdout
    result = RunFolder(tmp_path / "run").step("train").read_result()
    assert result.status == "failed"
    assert str(image) in result.error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--collectives", "ccl"), "--collectives ccl: oneccl_bindings_for_pytorch is not installed; python -m pip"),
        (("--init", "weights", "nowhere.pth"), "nowhere.pth: is missing"),
        (("--labels", "nothing"), "--labels nothing: is neither street13 nor cityscapes19 nor a file"),
    ],
)
def test_what_a_rank_refuses_is_one_line_exit_code_2_and_a_failed_result(
    options, message, streets, run_python, tmp_path
):
    done = run_python("segdist", "train", "--run", tmp_path, "--data", streets, *SMALL, *options)
    assert done.returncode == 2
    assert f"error: {message}" in done.stderr
    assert "Traceback" not in done.stderr
    result = RunFolder(tmp_path).step("train").read_result()
    assert (result.status, message in result.error) == ("failed", True)


def test_starting_from_the_own_model_says_how_much_of_it_loaded(trained, streets, run_python, tmp_path):
    run, _ = trained
    done = run_python(
        "segdist", "train", "--run", tmp_path, "--data", streets, *SMALL, "--init", "weights", run.model_pt
    )
    assert done.returncode == 0, done.stderr
    count = len(load_model(run.model_pt)[0].state_dict())
    assert f"init {run.model_pt}: {count} of the net's {count} tensors loaded\n" in done.stdout
