"""What is wrong with a data set is found before the work starts, and the message has the file's name."""

import numpy as np
import pytest
from PIL import Image

from segdist.config import ConfigError, DatasetConfig, TrainConfig, TrainingConfig
from segdist.data.cityscapes import WholeImages, read_png
from segdist.data.labels import load_label_set
from segdist.data.layout import list_split
from segdist.data.png import DataError, read_png_header
from segdist.data.preflight import preflight
from segdist.data.verify import Findings, check_samples, summarize


def write_sample(root, stem="aachen_000000_000019", split="train", size=(64, 128), values=(7, 8, 23, 26), image=None):
    """One Cityscapes sample of noise, its label made of the given label ids in vertical stripes."""
    city = stem.split("_")[0]
    images, labels = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*(image or size), 3), np.uint8)
    Image.fromarray(pixels).save(images / f"{stem}_leftImg8bit.png")
    stripes = np.asarray(values, np.uint8)[np.arange(size[1]) * len(values) // size[1]]
    Image.fromarray(np.tile(stripes, (size[0], 1))).save(labels / f"{stem}_gtFine_labelIds.png")
    return images / f"{stem}_leftImg8bit.png", labels / f"{stem}_gtFine_labelIds.png"


def check(root, full=True, labels=None):
    samples = list_split(root, "train")
    summarize([check_samples(samples, full)], samples, labels)


def test_samples_are_listed_by_city_and_name(tmp_path):
    for stem in ("ulm_000001_000019", "aachen_000002_000019", "aachen_000001_000019"):
        write_sample(tmp_path, stem)
    assert [sample.stem for sample in list_split(tmp_path, "train")] == [
        "aachen_000001_000019",
        "aachen_000002_000019",
        "ulm_000001_000019",
    ]


def test_labels_become_train_ids(tmp_path):
    write_sample(tmp_path, values=(7, 0, 23, 33))
    image, label = WholeImages(list_split(tmp_path, "train"), load_label_set("street13"))[0]
    assert (image.shape, image.dtype, label.shape, label.dtype) == (
        (64, 128, 3),
        np.uint8,
        (64, 128),
        np.uint8,
    )
    assert label[0, [0, 32, 64, 96]].tolist() == [0, 255, 7, 12]


def test_a_sound_data_set_passes(tmp_path):
    write_sample(tmp_path)
    check(tmp_path)
    check(tmp_path, full=False)


def test_a_root_that_is_none(tmp_path):
    with pytest.raises(DataError, match="leftImg8bit/train: is no folder; --data must be the Cityscapes root"):
        list_split(tmp_path, "train")


def test_an_empty_split(tmp_path):
    (tmp_path / "leftImg8bit" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds no <city>/\*_leftImg8bit.png"):
        list_split(tmp_path, "train")


def test_a_missing_label_file(tmp_path):
    write_sample(tmp_path)
    label = write_sample(tmp_path, "ulm_000000_000019")[1]
    label.unlink()
    with pytest.raises(DataError, match=rf"{label.name}: is missing; unpack gtFine"):
        list_split(tmp_path, "train")


def test_only_train_ids_where_label_ids_are_expected(tmp_path):
    label = write_sample(tmp_path)[1]
    label.rename(label.with_name(label.name.replace("labelIds", "labelTrainIds")))
    with pytest.raises(DataError, match="labelIds.png: is missing, but .*labelTrainIds.png is there"):
        list_split(tmp_path, "train")


@pytest.mark.parametrize("full", [True, False])
def test_a_size_mismatch(tmp_path, full):
    label = write_sample(tmp_path, image=(64, 96))[1]
    with pytest.raises(
        DataError, match=rf"{label.name}: is 64x128, its image 64x96; image and label must have one size"
    ):
        check(tmp_path, full)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("which", [0, 1])
def test_a_file_that_was_cut_short(tmp_path, full, which):
    path = write_sample(tmp_path)[which]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=rf"{path.name}: is cut short \(a PNG ends with IEND\)"):
        check(tmp_path, full)


@pytest.mark.parametrize("which", [0, 1])
def test_a_file_with_damaged_bytes(tmp_path, which):
    path = write_sample(tmp_path)[which]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"{path.name}: is damaged"):
        check(tmp_path)


def test_a_file_that_is_no_png(tmp_path):
    path = write_sample(tmp_path)[0]
    path.write_text("hello, this is not a picture at all")
    with pytest.raises(DataError, match=rf"{path.name}: is not a PNG file"):
        check(tmp_path)
    with pytest.raises(DataError, match=rf"{path.name}: is damaged"):
        read_png(path, "RGB")


def test_train_ids_in_files_named_label_ids(tmp_path):
    label = write_sample(tmp_path, values=(0, 1, 255, 13))[1]
    with pytest.raises(DataError, match=rf"{label.name}: holds 255, which is a trainId \(ignore\) and no labelId"):
        check(tmp_path)


def test_train_ids_without_an_ignored_pixel(tmp_path):
    label = write_sample(tmp_path, values=(0, 1, 2, 13))[1]
    with pytest.raises(
        DataError,
        match=rf"{label.name}: no label of the 1 files .* is above 18: they look like trainIds.*--check headers",
    ):
        check(tmp_path)


def test_labels_that_all_are_ignored_as_in_the_official_test_split(tmp_path):
    write_sample(tmp_path, values=(0, 1, 3, 4))
    check(tmp_path)


def test_a_value_that_is_no_label(tmp_path):
    label = write_sample(tmp_path, values=(7, 40))[1]
    with pytest.raises(DataError, match=rf"{label.name}: holds the value 40; labelIds are 0 to 33"):
        check(tmp_path)


def test_a_picture_of_another_mode(tmp_path):
    path = write_sample(tmp_path)[0]
    Image.open(path).convert("RGBA").save(path)
    with pytest.raises(DataError, match=rf"{path.name}: has mode RGBA; Cityscapes has 8-bit RGB here"):
        read_png(path, "RGB")


def test_many_errors_are_counted_and_ten_named():
    findings = [
        Findings([f"file{i}: is damaged" for i in range(7)]),
        Findings([f"other{i}: gone" for i in range(7)]),
    ]
    with pytest.raises(DataError) as refused:
        summarize(findings, None, True)
    lines = str(refused.value).splitlines()
    assert lines[0] == "14 files of the data set cannot be used:"
    assert len(lines) == 12
    assert lines[-1] == "  … and 4 more"


def test_size_of_a_png_without_decoding(tmp_path):
    assert read_png_header(write_sample(tmp_path, size=(96, 160))[0]).size == (96, 160)


def test_a_crop_larger_than_the_image_is_refused_before_anything_starts(tmp_path):
    write_sample(tmp_path)
    write_sample(tmp_path, split="val")
    sound = TrainConfig(dataset=DatasetConfig(str(tmp_path)), training=TrainingConfig(crop="64x128"))
    preflight(sound)
    large = TrainConfig(dataset=DatasetConfig(str(tmp_path)), training=TrainingConfig(crop="64x160"))
    with pytest.raises(
        ConfigError,
        match=r"--crop 64x160: is larger than the training images \(64x128\); give 64x128 or less",
    ):
        preflight(large)


def test_preflight_refuses_a_label_set_with_a_hole_and_a_missing_split(tmp_path):
    write_sample(tmp_path)
    with pytest.raises(DataError, match="leftImg8bit/val: is no folder"):
        preflight(TrainConfig(dataset=DatasetConfig(str(tmp_path)), training=TrainingConfig(crop="64x128")))
    file = tmp_path / "holes.toml"
    file.write_text('[[classes]]\nid = 0\nname = "road"\ncolor = [1, 2, 3]\nmembers = ["road"]\n')
    with pytest.raises(ConfigError, match="has a hole: sidewalk"):
        preflight(TrainConfig(dataset=DatasetConfig(labels=str(file))))
