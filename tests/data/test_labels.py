"""Label sets against the official table, and the files that describe none."""

import pytest
from cityscapesscripts.helpers.labels import labels as official

from segdist.config import ConfigError
from segdist.data.labels import BUILT_IN, EVALUATED, IGNORE, LABEL_IDS, label_set_from, load_label_set


def test_ids_are_the_official_ones():
    assert {label.name: label.id for label in official if label.id >= 0} == dict(LABEL_IDS)


def test_the_evaluated_labels_are_the_official_ones_in_order():
    evaluated = sorted((label for label in official if not label.ignoreInEval), key=lambda label: label.trainId)
    assert tuple(label.name for label in evaluated) == EVALUATED


def test_cityscapes19_is_the_official_train_id_table_with_its_colours():
    table = load_label_set("cityscapes19").table()
    for label in official:
        if label.id >= 0:
            assert table[label.id] == (label.trainId if label.trainId >= 0 else IGNORE)
    colors = {label.trainId: label.color for label in official if 0 <= label.trainId < 255}
    assert load_label_set("cityscapes19").colors == tuple(colors[train_id] for train_id in range(19))


def test_street13_groups_all_19_into_13():
    street = load_label_set("street13")
    assert len(street) == 13
    groups = dict(zip(street.classes, street.members))
    assert groups == {
        "road": ("road",),
        "sidewalk": ("sidewalk",),
        "building": ("building", "wall", "fence"),
        "pole": ("pole",),
        "traffic light": ("traffic light",),
        "traffic sign": ("traffic sign",),
        "vegetation": ("vegetation", "terrain"),
        "sky": ("sky",),
        "person": ("person",),
        "rider": ("rider",),
        "car": ("car",),
        "large vehicle": ("truck", "bus", "train"),
        "two-wheeler": ("motorcycle", "bicycle"),
    }
    counted = [label for label in official if label.id >= 0 and street.table()[label.id] != IGNORE]
    assert sorted(label.name for label in counted) == sorted(EVALUATED)


@pytest.mark.parametrize("name", BUILT_IN)
def test_colours_tell_the_classes_apart(name):
    colors = load_label_set(name).colors
    assert len(set(colors)) == len(colors)


def _set(**changes):
    values = {
        "name": "two",
        "ignore": [name for name in EVALUATED if name not in ("road", "sky")],
        "classes": [
            {"id": 0, "name": "road", "color": [1, 2, 3], "members": ["road"]},
            {"id": 1, "name": "sky", "color": [4, 5, 6], "members": ["sky"]},
        ],
    }
    return {**values, **changes}


def _classes(**changes):
    first, second = _set()["classes"]
    return [first, {**second, **changes}]


def test_a_set_of_ones_own_from_a_file(tmp_path):
    file = tmp_path / "two.toml"
    ignored = ", ".join(f'"{name}"' for name in _set()["ignore"])
    file.write_text(
        f'name = "two"\nignore = [{ignored}]\n'
        '[[classes]]\nid = 1\nname = "sky"\ncolor = [4, 5, 6]\nmembers = ["sky"]\n'
        '[[classes]]\nid = 0\nname = "road"\ncolor = [1, 2, 3]\nmembers = ["road", "parking"]\n'
    )
    own = load_label_set(str(file))
    assert own.classes == ("road", "sky")
    assert (
        own.table()[LABEL_IDS["parking"]],
        own.table()[LABEL_IDS["sky"]],
        own.table()[LABEL_IDS["car"]],
    ) == (0, 1, 255)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            _set(classes=_classes(id=2)),
            r"class ids \[0, 2\]: have a hole or a double at 1; number them 0 to 1",
        ),
        (_set(classes=_classes(id=0)), r"class ids \[0, 0\]: have a hole or a double"),
        (_set(ignore=["car"]), "has a hole: sidewalk, building, .* in no class; add to a class or to ignore"),
        (
            _set(classes=_classes(members=["heaven"])),
            "unknown label 'heaven' in class 'sky'; known: unlabeled, ego",
        ),
        (
            _set(classes=_classes(members=["sky", "road"])),
            "label 'road' is in 'road' and in 'sky'; keep it in one",
        ),
        (
            _set(classes=_classes(color=[1, 2, 300])),
            r"color \[1, 2, 300\] must be three numbers from 0 to 255",
        ),
        (_set(classes=[{"id": 0}]), "must have exactly the keys id, name, color, members"),
        (_set(classes=[]), r"has no classes; add \[\[classes\]\] tables"),
        (_set(ignore=["clouds"]), "unknown label 'clouds' under ignore"),
        (_set(colour=1), "unknown key 'colour'; known: name, ignore, classes"),
        (_set(classes=_classes(id="1")), "id '1' must be a whole number"),
        (_set(classes=_classes(id=True)), "id True must be a whole number"),
        (_set(classes=_classes(name="road")), "two classes have the name 'road'"),
        (_set(classes=_classes(name="")), "name '' must be a text"),
        (_set(classes=_classes(members="sky")), "'sky' must be a list of labels"),
        (_set(classes=_classes(members=[])), "has no members, so no pixel can be of it"),
        (_set(classes=_classes(members=[1])), "unknown label 1 in class"),
        (_set(classes=_classes(color="red")), "color 'red' must be three numbers"),
        (_set(classes={"id": 0}), r"has no classes; add"),
        (_set(ignore="car"), "ignore: 'car' must be a list of labels"),
        (_set(name=3), "name = 3: must be a text"),
    ],
)
def test_a_file_that_is_no_label_set_is_refused(values, message):
    with pytest.raises(ConfigError, match=message) as refused:
        label_set_from(values, "mine.toml")
    assert "label set mine.toml" in str(refused.value)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="--labels street14: is neither street13 nor cityscapes19 nor a file"):
        load_label_set("street14")
