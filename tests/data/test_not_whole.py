"""A data set that is not quite what it seems is refused before the work, and what is only odd is taken as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdist.data.labels import load_label_set
from segdist.data.layout import list_split
from segdist.data.png import DataError, read_png_header
from segdist.data.source import former_word_note, is_painted
from segdist.data.verify import check_samples, summarize

from .test_layout import check, write_sample

NO_CAPABILITIES = "-dac_override,-dac_read_search"


def test_a_word_that_is_also_a_folder_is_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_painted("@scenes")
    assert is_painted("scenes")
    assert 'write "@scenes"' in (former_word_note("scenes") or "")
    Path("scenes").mkdir()
    assert not is_painted("scenes")
    assert former_word_note("scenes") is None
    Path("@scenes").mkdir()
    assert not is_painted("@scenes")
    assert not is_painted("elsewhere")


def test_a_file_named_like_a_label_set_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    built_in = load_label_set("street13")
    Path("street13").write_text('[[classes]]\nid = 0\nname = "x"\ncolor = [1, 2, 3]\nmembers = ["road"]\n')
    with pytest.raises(Exception, match="label set street13: has a hole"):
        load_label_set("street13")
    assert len(built_in) == 13


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="wants root and setpriv")
@pytest.mark.parametrize("part", ["leftImg8bit", "gtFine"])
def test_a_city_that_may_not_be_read_is_named(tmp_path: Path, part: str) -> None:
    write_sample(tmp_path, "ulm_000000_000019")
    write_sample(tmp_path, "bonn_000000_000019")
    city = tmp_path / part / "train" / "ulm"
    city.chmod(0)
    code = f"from segdist.data.layout import list_split; list_split({str(tmp_path)!r}, 'train')"
    words = ["setpriv", "--bounding-set", NO_CAPABILITIES, "--inh-caps", NO_CAPABILITIES, sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 1
    assert f"DataError: {city}: cannot be read (Permission denied), so its images would be left out" in done.stderr


def test_labels_without_their_images_are_counted(tmp_path: Path) -> None:
    for number in range(4):
        image, _ = write_sample(tmp_path, f"ulm_{number:06}_000019")
        if number < 2:
            image.unlink()
    said = r"ulm_000000_000019_leftImg8bit.png: is missing \(and 1 more, of 4 labels\), its label is there.*interrupted"
    with pytest.raises(DataError, match=said):
        list_split(tmp_path, "train")


def test_an_image_of_another_name_beside_the_missing_one_is_named(tmp_path: Path) -> None:
    write_sample(tmp_path, "ulm_000000_000019")
    image, _ = write_sample(tmp_path, "ulm_000001_000019")
    image.rename(image.with_suffix(".jpg"))
    with pytest.raises(DataError, match=r"is missing, but ulm/ulm_000001_000019_leftImg8bit.jpg is there; convert"):
        list_split(tmp_path, "train")


@pytest.mark.parametrize(
    "ending", ["_rgb_anon.png", "_leftImg8bit_foggy_beta_0.02.png", "_leftImg8bit.jpg", "_leftImg8bit.PNG"]
)
def test_files_of_other_names_are_shown_and_no_zip_is_asked_for(tmp_path: Path, ending: str) -> None:
    image, _ = write_sample(tmp_path, "ulm_000000_000019")
    image.rename(image.with_name(f"ulm_000000_000019{ending}"))
    with pytest.raises(DataError, match="there is 1 file of other names, such as ulm/ulm_000000_000019") as refused:
        list_split(tmp_path, "train")
    assert "unpack" not in str(refused.value)


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    image, _ = write_sample(tmp_path, "ulm_000000_000019")
    (image.parent / f"._{image.name}").write_bytes(b"")
    assert len(list_split(tmp_path, "train")) == 1


def test_files_of_one_name_in_two_folders_have_stems_of_their_own(tmp_path: Path) -> None:
    for city in ("day", "night"):
        image, label = write_sample(tmp_path, "ulm_000000_000019")
        for path in (image, label):
            folder = path.parent.with_name(city)
            folder.mkdir(exist_ok=True)
            path.rename(folder / path.name.replace("ulm_000000_000019", "000000"))
    assert [sample.stem for sample in list_split(tmp_path, "train")] == ["day_000000", "night_000000"]


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(
    ("mode", "said"), [("L", "8-bit grey"), ("RGBA", "8-bit RGBA"), ("P", "8-bit palette"), ("I;16", "16-bit grey")]
)
def test_an_image_of_another_format_is_found_at_every_level_of_checking(
    tmp_path: Path, mode: str, said: str, full: bool
) -> None:
    image, _ = write_sample(tmp_path)
    write_sample(tmp_path, "ulm_000000_000019")
    if mode == "I;16":
        Image.fromarray(np.zeros((64, 128), np.uint16)).save(image)
    else:
        Image.open(image).convert(mode).save(image)
    with pytest.raises(DataError, match=f"{image.name}: is {said}; Cityscapes images are 8-bit RGB"):
        check(tmp_path, full)


@pytest.mark.parametrize("full", [True, False])
def test_a_palette_label_is_told_how_to_keep_its_indices(tmp_path: Path, full: bool) -> None:
    _, label = write_sample(tmp_path)
    picture = Image.open(label)
    picture = Image.fromarray(np.array(picture), "P")
    picture.putpalette([value for index in range(256) for value in (index, 255 - index, 0)])
    picture.save(label)
    with pytest.raises(DataError, match=r"is 8-bit palette; labels are 8-bit grey; save the indices themselves"):
        check(tmp_path, full)


def test_bytes_behind_the_end_of_a_png_do_not_matter(tmp_path: Path) -> None:
    image, _ = write_sample(tmp_path)
    image.write_bytes(image.read_bytes() + bytes(512))
    check(tmp_path)
    assert read_png_header(image).size == (64, 128)


@pytest.mark.parametrize(
    ("data", "said"), [(b"", r"\(it is empty\)"), (b"\xff\xd8\xff" + bytes(40), r"\(it is a JPEG\)")]
)
def test_what_a_file_is_instead_is_said(tmp_path: Path, data: bytes, said: str) -> None:
    image, _ = write_sample(tmp_path)
    image.write_bytes(data)
    with pytest.raises(DataError, match=f"{image.name}: is not a PNG file {said}"):
        check(tmp_path, full=False)


def test_a_set_of_few_labels_is_advised_and_can_be_taken_as_it_is(tmp_path: Path) -> None:
    write_sample(tmp_path, values=(7, 8, 11, 17))
    with pytest.raises(
        DataError, match="look like trainIds.*of few classes, take them as they are with --check headers"
    ):
        check(tmp_path)
    check(tmp_path, full=False)


def test_a_split_without_a_counted_pixel_is_refused_where_it_is_scored(tmp_path: Path) -> None:
    write_sample(tmp_path, values=(0, 1, 3, 4))
    samples = list_split(tmp_path, "train")
    findings = [check_samples(samples, full=True)]
    summarize(findings, samples)
    with pytest.raises(DataError, match=r"no pixel of its 1 labels belongs to a class of label set street13"):
        summarize(findings, samples, load_label_set("street13"))
