"""What export leaves: a folder that runs where there is no torch, and gives the classes that predict gives."""

import json
import subprocess
import sys
import venv
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from segdist.__main__ import run_rank
from segdist.cli import parse
from segdist.config import ExportConfig, ExportOptions
from segdist.data.labels import load_label_set
from segdist.models.build import build_net, count_parameters
from segdist.models.forward import predict_logits, to_input
from segdist.models.model_file import ModelInfo, save_model
from segdist.run.folder import RunFolder
from tests.evaluation.fixture import run_ranks

WITHOUT_TORCH = """
import sys, runpy
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "segdist"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
sys.path.insert(0, "")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module", params=[("unet", 4), ("hrnetv2_w18", 18)], ids=["unet", "hrnet"])
def trained(request, tmp_path_factory):
    """A run with a net of random weights, a picture whose sides are no multiples of 32, and its class ids."""
    torch.manual_seed(0)
    model, width = request.param
    run = RunFolder(tmp_path_factory.mktemp("export") / "run")
    labels = load_label_set("cityscapes19")
    net = build_net(model, len(labels), width).eval()
    save_model(run.model_pt, ModelInfo(model, width, labels, count_parameters(net)), net.state_dict())
    pixels = np.random.default_rng(0).integers(0, 256, (12, 18, 3), np.uint8)
    picture = np.asarray(Image.fromarray(pixels).resize((150, 100), Image.Resampling.BICUBIC))
    Image.fromarray(picture).save(run.path / "street.png")
    with torch.inference_mode():
        logits = predict_logits(net, to_input(torch.from_numpy(picture.copy())[None]), picture.shape[:2])
    return run, logits[0].argmax(0).numpy()


def export(run, form, precision="fp32", overwrite=True):
    config = ExportConfig(str(run.path), overwrite, ExportOptions(form, precision))
    (code,) = run_ranks(1, partial(run_rank, "export", config))
    return code, run.step_of(config)


def run_package(package, run, program, *python):
    out = package / "out"
    done = subprocess.run(
        [*python, *program, "predict.py", run.path / "street.png", "--out", out, "--threads", "1"],
        cwd=package, capture_output=True, text=True, timeout=200, check=False, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return np.asarray(Image.open(out / "street_classIds.png")), done.stdout


@pytest.mark.parametrize("form", ["openvino", "onnx"])
def test_the_folder_runs_without_torch_and_gives_the_same_classes(trained, form, tmp_path):
    run, wanted = trained
    code, step = export(run, form)
    assert code == 0
    package = tmp_path / "elsewhere"
    (step.path / "model").rename(package)
    ids, said = run_package(package, run, ("-c", WITHOUT_TORCH), sys.executable)
    assert (ids == wanted).mean() > 0.9995  # fp32 sums in another order
    assert "%" in said
    about = json.loads((package / "model.json").read_text())
    assert about["classes"][:2] == ["road", "sidewalk"]
    assert step.read_result().metrics["bytes"] > 10_000
    assert len((package / "predict.py").read_text().splitlines()) <= 80
    assert len((package / "README.md").read_text().splitlines()) <= 12


@pytest.mark.parametrize("form", ["openvino", "torchscript"])
def test_what_is_no_picture_is_named_and_no_traceback(trained, form, tmp_path):
    run, _ = trained
    package = export(run, form)[1].path / "model"
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "nothing.png"):
        command = [sys.executable, "predict.py", tmp_path / name, "--out", tmp_path / "out"]
        done = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 2
        assert f"{name}: cannot be read as a picture" in done.stderr
        assert "Traceback" not in done.stderr


def test_torchscript_gives_the_same_classes(trained, tmp_path):
    run, wanted = trained
    code, step = export(run, "torchscript")
    assert code == 0
    ids, _ = run_package(step.path / "model", run, (), sys.executable)
    assert (ids == wanted).mean() > 0.9995


def test_an_int8_model_that_was_not_made_is_refused(trained):
    run, _ = trained
    code, step = export(run, "openvino", "int8")
    assert code == 2
    assert "run quantize first, or give --precision fp32" in step.read_result().error


def test_an_int8_model_in_another_format_is_named_with_the_format_that_takes_it(trained):
    run, _ = trained
    run.model_int8.parent.mkdir(exist_ok=True)
    run.model_int8.write_bytes(b"TorchScript")
    code, step = export(run, "onnx", "int8")
    run.model_int8.unlink()
    assert code == 2
    assert f"{run.model_int8} is TorchScript; give --format torchscript" in step.read_result().error


def test_an_int8_model_that_was_not_made_has_no_torchscript_either(trained):
    run, _ = trained
    code, step = export(run, "torchscript", "int8")
    assert code == 2
    assert "model_int8.torchscript: is not there; run quantize first" in step.read_result().error


def test_an_export_is_not_written_over_without_asking(trained):
    run, _ = trained
    assert export(run, "onnx")[0] == 0
    assert export(run, "onnx", overwrite=False)[0] == 2


def test_the_command_line_names_format_and_precision():
    config = parse(ExportConfig, ["--run", "r", "--format", "onnx", "--precision", "fp32"], "export")
    assert RunFolder("r").step_of(config).path.as_posix() == "r/export/onnx-fp32"


@pytest.mark.slow
def test_a_virtual_environment_without_torch_is_enough(trained, tmp_path):
    run, wanted = trained
    code, step = export(run, "openvino")
    assert code == 0
    package = tmp_path / "elsewhere"
    (step.path / "model").rename(package)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    import openvino

    install = (python, "-m", "pip", "install", "--quiet", f"openvino=={openvino.__version__.split('-')[0]}")
    subprocess.run([*install, "numpy", "pillow"], check=True, timeout=280)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode != 0
    ids, _ = run_package(package, run, (), python)
    assert (ids == wanted).mean() > 0.9995
