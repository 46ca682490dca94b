"""Files say what they mean: a value of another type, encoding or range is refused by name, in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from segdist.cli import parse, path_argument, run_command
from segdist.config import ConfigError, EvaluateConfig, PipelineConfig, TrainConfig, read_text, settle
from segdist.data.labels import load_label_set
from segdist.data.scenes.dataset import main as scenes
from segdist.predict import PredictConfig
from segdist.report.__main__ import ReportConfig


def read(folder: Path, text: str | bytes, name: str = "run.toml") -> PipelineConfig:
    """A pipeline's config from a file that holds this."""
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return parse(PipelineConfig, ["--config", str(file)], "pipeline")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('sizes = "64x128"', ("64x128",)),
        ('sizes = ["64x128", "96x96"]', ("64x128", "96x96")),
        ("scales = 1", (1.0,)),
        ("scales = 0.5", (0.5,)),
        ("scales = [1, 0.5]", (1.0, 0.5)),
    ],
)
def test_one_value_where_several_may_stand_is_a_list_of_one(
    tmp_path: Path, text: str, found: tuple[object, ...]
) -> None:
    value = getattr(read(tmp_path, f"[evaluation]\n{text}\n").evaluation, text.split()[0])
    assert value == found
    assert [type(one) for one in value] == [type(one) for one in found]


def test_a_whole_number_is_a_number(tmp_path: Path) -> None:
    lr = read(tmp_path, "[training]\nlr = 1\n").training.lr
    assert (lr, type(lr)) == (1.0, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run = true", 'run = true at the top level: is true or false, and must be a text; write for example run = "t'),
        ("run = 2026-01-31", 'run = "2026-01-31" at the top level: is a date or time, and must be a text'),
        ('run = ["a"]', 'run = ["a"] at the top level: is a list, and must be a text'),
        ('overwrite = "false"', "is a text, and must be true or false; write for example overwrite = false"),
        (
            "[training]\nepochs = 3.0",
            "epochs = 3.0 in [training]: is a number with a point, and must be a whole number",
        ),
        ("[training]\nepochs = true", "is true or false, and must be a whole number; write for example epochs = 10"),
        ("[training.epochs]\na = 1", 'epochs = {"a": 1} in [training]: is a table, and must be a whole number'),
        (
            '[training]\nlr = "0.1"',
            'lr = "0.1" in [training]: is a text, and must be a number; write for example lr = 0.1',
        ),
        ("[training]\nlr = false", "lr = false in [training]: is true or false, and must be a number"),
        (f"[training]\nlr = {'9' * 400}", "is a whole number, and must be a number; write for example lr = 0.01"),
        ("[training]\nflip = 0", "flip = 0 in [training]: is a whole number, and must be true or false"),
        ("[training]\ncrop = [64, 128]", 'is a list, and must be a text; write for example crop = "256x512"'),
        ('[net]\nmodel = "vgg"', 'is a text, and must be one of "unet", "hrnetv2_w18", "hrnetv2_w32", "hrnetv2_w48"'),
        ("[net]\nmodel = 5", 'model = 5 in [net]: is a whole number, and must be one of "unet"'),
        ('[net]\ninit = "imagenet w.pth"', 'must be a list of 2: one of "imagenet", "weights", then a text; write for'),
        ('[net]\ninit = ["imagenet"]', 'init = ["imagenet"] in [net]: is a list, and must be a list of 2'),
        ("[evaluation]\nsizes = [64]", "sizes = [64] in [evaluation]: holds a whole number, and must be a list, each"),
        ('[evaluation]\nscales = [1.0, "2"]', "holds a text, and must be a list, each of it a number"),
        ("[evaluation]\nscales = []", "--scales : must be above 0"),
        ("[training]\nlr = nan", "--lr nan: must be above 0"),
        ("[training]\nlr = inf", "--lr inf: must be a finite number"),
        ("[training]\nweight_decay = inf", "--weight-decay inf: must be a finite number"),
        ("[training]\nseed = 99999999999", "--seed 99999999999: is out of range; give at most 4294967295"),
        ('[training]\ncrop = "999999x64"', "--crop '999999x64': a size is HEIGHTxWIDTH in pixels"),
        ('[dataset]\ndata = ""', '--data "": must name a folder'),
        ('[dataset]\nlabels = ""', '--labels "": must name a label set'),
        ('run = "  "', "--run '  ': is blank"),
        ('run = "-x"', "--run -x: begins with a dash"),
        ('run = "a\\nb"', "--run 'a\\nb': has a line end or another control character; give one line of text"),
        ('run = "a\\u0000b"', "--run 'a\\x00b': has a line end"),
        ('run = "a"\nrun = "b"', "is not TOML (Cannot overwrite a value"),
        (f"a = {'[' * 5000}", "is not TOML (nested too deeply)"),
        (f"[training]\nepochs = {'9' * 5000}", "is not TOML (Exceeds the limit"),
    ],
)
def test_what_a_file_cannot_say_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    assert run_command(lambda: read(tmp_path, text) and 0) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {tmp_path / 'run.toml'}: ")
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_windows_line_ends_are_line_ends(tmp_path: Path) -> None:
    config = read(tmp_path, b'run = "x"\r\n[training]\r\nepochs = 3\r\n')
    assert (config.run, config.training.epochs) == ("x", 3)


@pytest.mark.parametrize(("name", "text"), [("run.toml", 'run = "größe"\n'), ("run.json", '{"run": "größe"}')])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, name: str, text: str) -> None:
    assert read(tmp_path, text.encode("utf-8-sig"), name).run == "größe"


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-16", "is UTF-16; save it as UTF-8"),
        ("utf-16-be", "is UTF-16, or no text; save it as UTF-8"),
        ("utf-32", "is UTF-32; save it as UTF-8"),
        ("latin-1", "is not UTF-8 (byte 0xf6 in line 2); save it as UTF-8"),
    ],
)
@pytest.mark.parametrize(("name", "text"), [("run.toml", '\nrun = "größe"\n'), ("run.json", '{\n"run": "größe"}')])
def test_another_encoding_is_named_with_the_one_that_is_wanted(
    tmp_path: Path, encoding: str, message: str, name: str, text: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text.encode(encoding), name)
    assert str(refused.value) == f"{tmp_path / name}: {message}"


def test_a_label_set_is_held_to_the_same_encodings(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "segdist/data/labelsets/street13.toml").read_text(encoding="utf-8")
    file = tmp_path / "mine.toml"
    file.write_bytes(text.encode("utf-8-sig"))
    assert load_label_set(str(file)).classes == load_label_set("street13").classes
    file.write_bytes(text.encode("utf-16"))
    with pytest.raises(ConfigError, match=r"mine.toml: is UTF-16; save it as UTF-8"):
        load_label_set(str(file))


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'a\\x00b': cannot be read \(embedded null byte\)"):
        read_text("a\0b")


def test_the_home_folder_is_meant_by_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    config = read(tmp_path, 'run = "~/r"\n[dataset]\ndata = "~/d"\n[net]\ninit = ["weights", "~/w"]\n')
    assert (config.run, config.dataset.data, config.net.init) == ("/home/u/r", "/home/u/d", ("weights", "/home/u/w"))
    given = parse(EvaluateConfig, ["--run=~/r", "--weights=~/w", "--labels=~/l.toml", "--data=~"], "evaluate")
    assert (given.run, given.weights, given.dataset.labels) == ("/home/u/r", "/home/u/w", "/home/u/l.toml")
    assert given.dataset.data == "/home/u"
    own = parse(PredictConfig, ["~/a.png", "b.png", "--model=~/m", "--out=~/o"], "predict")
    assert (own.images, own.model, own.out) == (("/home/u/a.png", "b.png"), "/home/u/m", "/home/u/o")
    page = parse(ReportConfig, ["~/r", "--out=~/p.html"], "report")
    assert (page.runs, page.out) == (("/home/u/r",), "/home/u/p.html")
    assert path_argument("~/t.csv") == Path("/home/u/t.csv")


def test_a_config_below_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.toml").write_text('run = "x"\n')
    assert parse(TrainConfig, ["--config=~/run.toml"], "train").run == "x"
    assert scenes(["--out=~/s", "--train", "1", "--val", "1", "--size", "64x64"]) == 0
    assert (tmp_path / "s" / "leftImg8bit").is_dir()


@pytest.mark.parametrize("run", ["r", "./~/r", "a~", "~nobody-of-this-name/r", "../r", "größe"])
def test_another_path_keeps_its_meaning(run: str) -> None:
    assert settle(TrainConfig(run=run)).run == run


def test_no_home_folder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 3999999999)
    with pytest.raises(ConfigError, match="--data ~/d: HOME is not set; give the path without ~"):
        parse(TrainConfig, ["--data=~/d"], "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weight-decay", "inf"], "--weight-decay inf: must be a finite number"),
        (["--seed", "4294967296"], "--seed 4294967296: is out of range"),
        (["--crop", "9" * 5000 + "x64"], "a size is HEIGHTxWIDTH in pixels"),
        (["--run", "a\nb"], r"--run 'a\nb': has a line end"),
        (["--run", "a\udcffb"], r"--run 'a\udcffb': is not text in UTF-8"),
        (["--run=-x"], "--run -x: begins with a dash"),
        (["--data", "a\x1b[1m"], r"--data 'a\x1b[1m': has a line end or another control character"),
        (["--config", "a.toml", "--config", "b.toml"], "--config a.toml --config b.toml: give one file"),
    ],
)
def test_options_are_held_to_the_same_rules(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(TrainConfig, options, "train")
