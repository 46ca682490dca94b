"""A model gives the same answer in every engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segdist.config import ConfigError
from segdist.data.labels import LabelSet
from segdist.engines.interface import Engine
from segdist.engines.load import load_engine
from segdist.engines.probe import Probe, probe
from segdist.models.hrnet import HRNetV2
from segdist.models.model_file import save_model
from segdist.models.model_info import ModelInfo
from segdist.models.onnx_export import export_onnx
from segdist.models.unet import UNet

LABELS = LabelSet("two", ("road", "walk"), ((1, 2, 3), (4, 5, 6)), (("road",), ("sidewalk",)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.pt and model.onnx of a small UNet."""
    path = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    net = UNet(2, 4)
    with torch.no_grad():
        net(torch.randn(2, 3, 64, 96))
    info = ModelInfo("unet", 4, LABELS, 1234)
    save_model(path / "model.pt", info, net.eval().state_dict())
    export_onnx(net, info, path / "model.onnx")
    return path


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """model.onnx of a net of stride 4, and the net."""
    path = tmp_path_factory.mktemp("coarse") / "model.onnx"
    torch.manual_seed(0)
    net = HRNetV2(2, 4).eval()
    export_onnx(net, ModelInfo("hrnetv2_w18", 18, LABELS, 1), path)
    return path, net


def pictures(height: int, width: int, number: int = 1) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (number, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("size", [(64, 96), (45, 70)])
def test_an_onnx_engine_gives_torchs_logits_and_classes(folder: Path, name: str, size: tuple[int, int]) -> None:
    expected = load_engine(folder / "model.pt")
    found = load_engine(folder / "model.onnx", name, threads=1)  # type: ignore[arg-type]
    images = pictures(*size, number=2)
    logits = found.logits(images)
    assert logits.shape == (2, 2, *size)
    np.testing.assert_allclose(logits, expected.logits(images), atol=2e-4)
    assert (found.class_ids(images) == expected.class_ids(images)).mean() > 0.999
    assert found.info == expected.info
    found.close()


def test_a_net_of_stride_4_gives_classes_of_every_pixel_of_odd_sizes(coarse: tuple[Path, torch.nn.Module]) -> None:
    engine = load_engine(coarse[0], threads=1)
    images = pictures(45, 70)
    assert engine.stride == 4
    assert engine.logits(images).shape == (1, 2, 12, 18)
    assert engine.class_ids(images).shape == (1, 45, 70)


def test_many_pictures_of_many_sizes_come_back_in_their_order(folder: Path) -> None:
    engine = load_engine(folder / "model.onnx", threads=1)
    shown = [pictures(height, 64)[0] for height in (64, 33, 64, 70, 120, 64, 33)]
    found = list(engine.map_class_ids(iter(shown)))
    assert len(found) == len(shown)
    for one, ids in zip(shown, found):
        assert (ids == engine.class_ids(one[None])[0]).mean() > 0.999


def test_an_engine_says_what_it_runs(folder: Path) -> None:
    engine: Engine = load_engine(folder / "model.onnx", precision="fp32", threads=1)
    engine.prepare(64, 64)
    found = engine.describe()
    assert found["engine"] == "openvino"
    assert found["engine_version"] == probe("openvino").version
    assert (found["precision"], found["floating_point"]) == ("fp32", "fp32")
    assert set(found["convolutions"]) == {"f32"}
    assert found["load_s"] > 0


def test_a_compiled_model_is_found_in_the_cache(folder: Path, tmp_path: Path) -> None:
    for expected in (False, True):
        engine = load_engine(folder / "model.onnx", threads=1, cache_dir=tmp_path)
        engine.prepare(64, 64)
        assert engine.describe()["loaded_from_cache"] is expected


def test_what_an_engine_cannot_run_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"--engine openvino with .*model.pt.*onnx"):
        load_engine(folder / "model.pt", "openvino")
    with pytest.raises(ConfigError, match=r"--engine torch with .*model.onnx"):
        load_engine(folder / "model.onnx", "torch")
    with pytest.raises(ConfigError, match=r"--inference-precision int8.*fp32 or bf16"):
        load_engine(folder / "model.onnx", "openvino", "int8")
    with pytest.raises(ConfigError, match=r"--inference-precision bf16.*onnxruntime"):
        load_engine(folder / "model.onnx", "onnxruntime", "bf16")


def test_an_absent_engine_is_named_with_its_install_line() -> None:
    with pytest.raises(ConfigError, match="pip install openvino"):
        Probe("openvino", "", "pip install openvino").require()
