"""The net prepared for pixels, and its ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segdist.config import ConfigError
from segdist.data.labels import LabelSet
from segdist.models.forward import to_input
from segdist.models.hrnet import HRNetV2
from segdist.models.model_info import ModelInfo
from segdist.models.onnx_export import export_onnx
from segdist.models.onnx_file import load_onnx, read_metadata, save_onnx
from segdist.models.prepared import PreparedNet
from segdist.models.unet import UNet

LABELS = LabelSet("two", ("road", "Fußweg"), ((1, 2, 3), (4, 5, 6)), (("road",), ("sidewalk",)))
INFO = ModelInfo("unet", 4, LABELS, 1234)


def trained(cls: type[nn.Module], width: int) -> nn.Module:
    torch.manual_seed(0)
    net = cls(2, width)
    with torch.no_grad():
        net(torch.randn(2, 3, 64, 96))  # batch normalization that has seen something
    return net.eval()


def pixels(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("cls", "width"), [(UNet, 4), (HRNetV2, 4)])
def test_a_prepared_net_is_the_net_on_normalized_images_borders_included(cls: type[nn.Module], width: int) -> None:
    net = trained(cls, width).double()
    prepared = PreparedNet(net.float())
    for picture in (pixels(64, 96), pixels(32, 32)):
        with torch.inference_mode():
            expected = net(to_input(picture))
            for given in (picture, picture.float()):
                got = prepared(given)
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=float(expected.abs().max()) * 1e-5)
    assert prepared.stride == cls.stride  # type: ignore[attr-defined]


def test_what_cannot_be_prepared_is_refused() -> None:
    with pytest.raises(ConfigError, match="training mode"):
        PreparedNet(UNet(2, 4))
    with pytest.raises(ConfigError, match="3 channels"):
        PreparedNet(nn.Sequential(nn.Conv2d(4, 2, 1)).eval())


def test_an_exported_file_says_what_it_is_and_takes_other_sizes(tmp_path: Path) -> None:
    import onnxruntime

    net = trained(UNet, 4)
    path = tmp_path / "model.onnx"
    export_onnx(net, INFO, path, ["64x96"])
    metadata = read_metadata(path)
    assert (metadata.info, metadata.stride, metadata.precision, metadata.weight_bits) == (INFO, 1, "fp32", 32)
    assert set(metadata.macs) == {"256x512", "512x1024", "1024x2048", "64x96"}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for height, width in ((64, 96), (96, 32)):
        picture = pixels(height, width).repeat(2, 1, 1, 1)
        (got,) = session.run(["logits"], {"pixels": picture.numpy()})
        with torch.inference_mode():
            expected = net(to_input(picture)).numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=np.abs(expected).max() * 1e-4)


def test_metadata_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    given = export_onnx(trained(UNet, 4), INFO, path)
    model, metadata = load_onnx(path)
    assert metadata == given
    save_onnx(path, model, metadata)
    assert read_metadata(path) == given


def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(trained(UNet, 4), INFO, path)
    data = path.read_bytes()
    model, _ = load_onnx(path)
    del model.metadata_props[:]
    cases = {"half": data[: len(data) // 2], "empty": b"", "text": b"not a model", "bare": model.SerializeToString()}
    for name, content in cases.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
    for name in (*cases, "missing"):
        with pytest.raises(ConfigError, match=f"{name}.onnx: "):
            read_metadata(tmp_path / f"{name}.onnx")
