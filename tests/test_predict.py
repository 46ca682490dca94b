"""A person's own pictures: their overlays, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segdist.data.labels import LABEL_IDS, load_label_set
from segdist.models.build import build_net, count_parameters
from segdist.models.int8_file import save_int8
from segdist.models.model_file import ModelInfo, save_model
from segdist.predict import MAX_SIDE, PredictConfig, largest_size, predict, read_picture

pytestmark = pytest.mark.slow  # trains, or starts many processes

LABELS = load_label_set("street13")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same net as model.pt and as the file of an int8 model."""
    torch.manual_seed(1)
    net = build_net("unet", len(LABELS), 4).eval()
    info = ModelInfo("unet", 4, LABELS, count_parameters(net))
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "model.pt", info, net.state_dict())
    traced = torch.jit.freeze(torch.jit.trace(net, torch.zeros(1, 3, 64, 64)))
    save_int8(folder / "model_int8.torchscript", traced, {"info": info.to_plain(), "macs": {}})
    return {"pt": folder / "model.pt", "int8": folder / "model_int8.torchscript"}


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG of 60x100 pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (60, 100, 3), np.uint8)
    path = tmp_path_factory.mktemp("pictures") / "street.jpg"
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("kind", ["pt", "int8"])
def test_an_overlay_has_the_pictures_size_and_the_classes_colours(
    models: dict[str, Path], street: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    written = predict(PredictConfig((str(street),), str(models[kind]), str(tmp_path), opacity=1.0, label_ids=True))
    assert written == [tmp_path / "street_overlay.png", tmp_path / "street_labelIds.png"]
    overlay, ids = (np.asarray(Image.open(path)) for path in written)
    assert overlay.shape == (60, 100, 3)
    assert ids.shape == (60, 100)
    for train_id, members in enumerate(LABELS.members):
        where = ids == LABEL_IDS[members[0]]
        assert (overlay[where] == LABELS.colors[train_id]).all()
    said = capsys.readouterr().out
    assert f"{tmp_path}/street_overlay.png: " in said
    assert " %" in said


def test_both_models_and_other_ways_to_look_say_nearly_the_same(
    models: dict[str, Path], street: Path, tmp_path: Path
) -> None:
    found = {}
    for name, model, options in (
        ("whole", "pt", {}),
        ("traced", "int8", {}),
        ("window", "pt", {"window": "64x128"}),
        ("mirror", "pt", {"size": "60x100", "mirror": True, "scales": (1.0, 1.5)}),
    ):
        out = tmp_path / name
        predict(PredictConfig((str(street),), str(models[model]), str(out), label_ids=True, **options))
        found[name] = np.asarray(Image.open(out / "street_labelIds.png"))
    assert (found["whole"] == found["traced"]).mean() > 0.99
    assert (found["whole"] == found["window"]).all()  # one window holds the picture
    assert (found["whole"] != found["mirror"]).any()


def test_the_command_writes_where_it_says(models: dict[str, Path], street: Path, tmp_path: Path, run_python) -> None:
    done = run_python("segdist.predict", street, "--model", models["pt"], "--out", tmp_path / "new", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path}/new/street_overlay.png: ")
    assert (tmp_path / "new" / "street_overlay.png").exists()


def test_what_cannot_be_used_is_named(models: dict[str, Path], street: Path, tmp_path: Path, run_python) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    done = run_python("segdist.predict", street, text, "--model", models["pt"], "--out", tmp_path)
    assert done.returncode == 2
    assert f"error: {text}: cannot be read as a picture" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("images", "model", "message"),
    [
        ((), "pt", "IMAGE: no picture was named"),
        (("a/x.jpg", "b/x.png"), "pt", "IMAGE x: two pictures have this name"),
        (("missing.jpg",), "pt", "missing.jpg: cannot be read as a picture .No such file"),
        (("missing.jpg",), "", '--model "": must name a model'),
    ],
)
def test_bad_input_is_refused(
    models: dict[str, Path], tmp_path: Path, images: tuple[str, ...], model: str, message: str
) -> None:
    from segdist.config import ConfigError

    with pytest.raises(ConfigError, match=message):
        predict(PredictConfig(images, str(models.get(model, "")), str(tmp_path)))


def test_pictures_of_every_kind_are_read_upright_and_as_rgb(tmp_path: Path) -> None:
    grey = np.arange(0, 240, 4, np.uint8).reshape(6, 10)
    kinds = {
        "grey.png": Image.fromarray(grey),
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "palette.gif": Image.fromarray(grey),
        "clear.png": Image.fromarray(np.dstack([grey, grey, grey, np.full_like(grey, 255)])),
    }
    for name, picture in kinds.items():
        picture.save(tmp_path / name)
        np.testing.assert_allclose(read_picture(tmp_path / name), np.dstack([grey] * 3), atol=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "turned.png")[..., 0], np.rot90(grey, -1))
    Image.new("RGBA", (2, 1), (10, 20, 30, 0)).save(tmp_path / "nothing.png")
    assert (read_picture(tmp_path / "nothing.png") == 255).all()


def test_large_pictures_are_shown_to_the_net_smaller() -> None:
    assert largest_size(1024, 2048) == (1024, 2048)
    assert largest_size(3000, 4000) == (1536, MAX_SIDE)
    assert largest_size(1, 100_000) == (1, MAX_SIDE)
