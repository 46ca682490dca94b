"""What --overwrite sets aside comes back, or goes once there is something new."""

from segdist.run.replaced import FOLDER, Replaced


def tree(run, **files):
    for name, text in files.items():
        path = run / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Replaced(run)


def everything(run):
    return {str(p.relative_to(run)): p.read_text() for p in sorted(run.rglob("*")) if p.is_file()}


def test_what_was_set_aside_comes_back_over_what_is_there_now(tmp_path):
    replaced = tree(tmp_path, train__result="old", train__checkpoints__last="old", train__config="old")
    before = everything(tmp_path)
    replaced.keep_copy(tmp_path / "train/config")
    replaced.take([tmp_path / "train/result", tmp_path / "train/checkpoints", tmp_path / "train/absent"])
    assert list((tmp_path / "train").iterdir()) == [tmp_path / "train/config"]
    tree(tmp_path, train__config="new", train__result="new")
    assert replaced.restore()
    assert everything(tmp_path) == before
    assert not (tmp_path / FOLDER).exists()
    assert not replaced.restore()


def test_what_was_set_aside_first_stays_and_an_unfinished_thing_in_its_place_goes(tmp_path):
    replaced = tree(tmp_path, train__result="good", train__checkpoints__last="good")
    paths = [tmp_path / "train/result", tmp_path / "train/checkpoints"]
    replaced.take(paths)
    tree(tmp_path, train__result="failed", train__checkpoints__last="half")
    replaced.take(paths)
    assert not any(path.exists() for path in paths)
    replaced.restore()
    assert set(everything(tmp_path).values()) == {"good"}


def test_a_step_that_has_something_new_lets_go_of_its_own_alone(tmp_path):
    replaced = tree(tmp_path, train__result="a", evaluate__fp32__result="b")
    replaced.take([tmp_path / "train/result", tmp_path / "evaluate/fp32/result"])
    assert replaced.holds(tmp_path / "train")
    replaced.discard(tmp_path / "train")
    assert not replaced.holds(tmp_path / "train")
    assert everything(tmp_path) == {f"{FOLDER}/evaluate/fp32/result": "b"}
    replaced.discard(tmp_path / "evaluate/fp32")
    assert not (tmp_path / FOLDER).exists()
    replaced.discard(tmp_path / "evaluate/fp32")
