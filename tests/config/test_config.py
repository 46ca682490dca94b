"""Configs refuse what cannot be, by value, rule and fix; the command line, TOML and JSON agree with the dataclass."""

import json
import subprocess
import sys

import pytest

from segdist.cli import from_plain, parse, run_command
from segdist.config import (
    ConfigError,
    EvaluateConfig,
    PipelineConfig,
    QuantizeConfig,
    TrainConfig,
    TrainingConfig,
    parse_size,
    to_plain,
)


def test_a_size_is_height_then_width():
    assert parse_size("256x512") == (256, 512)


@pytest.mark.parametrize("text", ["256", "0x512", "256X512", "256x", "-1x5", "axb"])
def test_another_form_of_a_size_is_refused(text):
    with pytest.raises(ConfigError, match=r"--crop .*HEIGHTxWIDTH in pixels; write for example 256x512"):
        parse_size(text, "crop")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "--epochs 0: must be at least 1"),
        (["--batch", "0"], "--batch 0: must be at least 1"),
        (["--crop", "16x512"], "--crop 16x512: both sides must be at least 32"),
        (["--lr", "0"], "--lr 0.0: must be above 0"),
        (["--momentum", "1"], r"--momentum 1.0: must be in \[0, 1\)"),
        (["--scale-min", "3"], "--scale-min 3.0 --scale-max 2.0: must be 0 < min <= max"),
        (["--width", "6"], "--width 6: must be a multiple of 4"),
        (["--workers", "-1"], "--workers -1: must be at least 0"),
        (["--timeout", "0"], "--timeout 0: must be at least 1"),
        (["--val-size", "big"], "--val-size 'big': a size is HEIGHTxWIDTH"),
    ],
)
def test_impossible_values_of_train_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        parse(TrainConfig, options, "train")


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (
            EvaluateConfig,
            ["--sizes", "512x1024", "512x1024"],
            "--sizes 512x1024 512x1024: name each size once",
        ),
        (EvaluateConfig, ["--name", "../up"], "--name '../up': must be a file name"),
        (EvaluateConfig, ["--latency-runs", "0"], "--latency-runs 0: must be at least 1"),
        (QuantizeConfig, ["--accuracy-drop", "1.5"], r"--accuracy-drop 1.5: must be in \[0, 1\)"),
        (QuantizeConfig, ["--max-trials", "0"], "--max-trials 0: must be at least 1"),
        (PipelineConfig, ["--crop", "8x8"], "--crop 8x8"),
    ],
)
def test_impossible_values_of_the_other_tasks_are_refused(cls, options, message):
    with pytest.raises(ConfigError, match=message):
        parse(cls, options, "task")


def test_the_command_line_overrides_the_file_and_the_file_the_defaults(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('run = "runs/x"\n[training]\nepochs = 3\ncrop = "64x128"\n[net]\nmodel = "hrnetv2_w18"\n')
    config = parse(TrainConfig, ["--config", str(file), "--epochs", "5"], "train")
    assert (config.run, config.training.epochs, config.training.crop) == ("runs/x", 5, "64x128")
    assert (config.net.model, config.training.batch) == ("hrnetv2_w18", TrainingConfig().batch)


def test_the_record_in_the_run_folder_is_a_config_file_again(tmp_path):
    config = parse(EvaluateConfig, ["--sizes", "64x128", "96x96", "--name", "mine"], "evaluate")
    record = tmp_path / "config.json"
    record.write_text(json.dumps(to_plain(config)))
    assert parse(EvaluateConfig, ["--config", str(record)], "evaluate") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epohcs = 3", r"unknown key 'epohcs' at the top level; known here: run, overwrite, dataset"),
        ("[training]\nepohcs = 3", r"unknown key 'epohcs' in \[training\]; known here: epochs, batch"),
        ("training = 3", r"training is a table; write it as \[training\]"),
        ('[training]\nepochs = "three"', "epochs"),
        ("[training]\nepochs = 0", "--epochs 0: must be at least 1"),
        ("epochs = = 3", "is not TOML"),
        ('[net]\nmodel = "segformer"', "model"),
    ],
)
def test_a_file_that_says_something_else_is_refused_with_its_name(tmp_path, text, message):
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as refused:
        parse(TrainConfig, ["--config", str(file)], "train")
    assert str(file) in str(refused.value)


def test_a_missing_file_is_refused_with_its_name():
    with pytest.raises(ConfigError, match=r"nowhere.toml: cannot be read"):
        parse(TrainConfig, ["--config", "nowhere.toml"], "train")
    with pytest.raises(ConfigError, match="--config: needs a file"):
        parse(TrainConfig, ["--config"], "train")


def test_bad_input_is_one_line_on_stderr_and_exit_code_2(capsys):
    assert run_command(lambda: parse_size("x") and 0) == 2
    assert capsys.readouterr().err.startswith("error: --size 'x': a size is HEIGHTxWIDTH")


def test_a_wrong_type_names_the_field():
    with pytest.raises(ConfigError, match="lr"):
        from_plain(TrainConfig, {"training": {"lr": "fast"}}, "here.toml")


def test_help_is_grouped_with_units_and_defaults_and_loads_nothing_heavy():
    code = (
        "import sys, segdist.__main__ as m\n"
        "try: m.main(['train', '--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for part in (
        "training options",
        "runtime options",
        "HEIGHTxWIDTH in pixels",
        "(default: 0.01)",
        "--config FILE",
    ):
        assert part in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "task []: known are train, evaluate, quantize"),
        (["tain"], "task ['tain']: known are train, evaluate, quantize"),
        (["train"], '--run "": must name the run folder'),
    ],
)
def test_a_rank_without_task_or_run_is_refused(arguments, message):
    done = subprocess.run([sys.executable, "-m", "segdist", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_reader_that_has_seen_enough_is_no_traceback():
    run = "run_command(lambda: print('x' * 2**20), output_is_result=True)"
    code = f"import sys; from segdist.cli import run_command\nsys.exit({run})"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.read(1) == "x"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141
