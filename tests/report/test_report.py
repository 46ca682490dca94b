"""The report says what the run folders say; and its command."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from segdist.config import ConfigError
from segdist.report.__main__ import main
from segdist.report.page import write_report

from .page_fixture import Page, edit, report, report_two
from .run_fixture import HRNET, UNET, make_run


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return report_two(tmp_path_factory.mktemp("two"))


def test_says_what_and_when(two: Page) -> None:
    assert "unet (width 16) and hrnetv2_w18" in two.text
    assert "street13, 13 classes" in two.text
    assert "2026-01-31 12:00 UTC to 2026-01-31 12:09 UTC" in two.text


def test_sums_up_each_net_in_a_sentence(two: Page) -> None:
    assert "hrnetv2_w18: int8 61.2 % mIoU (fp32 61.5 %), 1.5× faster than traced fp32 (1.9× over eager), " in two.text
    assert "4.1× smaller; goal 1 % relative met in tuning, met in the evaluation" in two.text
    assert (
        "unet (width 16): int8 58.0 % mIoU (fp32 58.3 %), 1.6× faster than traced fp32 (2.2× over eager), " in two.text
    )
    assert "3.9× smaller; goal 1 % relative met in tuning, met in" in two.text


def test_table_has_every_number_with_its_digits(two: Page) -> None:
    #       model       mIoU  change  PA     p50 p95  speed-up MB  parameters GMAC
    assert "fp32 eager 61.5 % – 88.3 % 190 209 0.79× 1.0× 39.0 9.64 19.4" in two.text
    assert "fp32 traced – – – 151 166 1.0× 1.3× – – –" in two.text
    assert "int8 61.2 % −0.3 88.3 % 100 110 1.5× 1.9× 9.50 9.64 19.4" in two.text
    assert "int8 58.0 % −0.3 88.3 % 52.9 58.2 1.6× 2.2× 2.02 1.94 12.1" in two.text


def test_says_how_latency_was_measured(two: Page) -> None:
    assert "one image at a time (batch 1) on rank 0 while the other ranks wait." in two.text
    assert "20 timed runs after 3 to warm up, 1 thread, AVX512_VNNI." in two.text


def test_speed_table_has_threads_and_instruction_set(two: Page) -> None:
    #            p50  p95 p99 mean images/s  threads
    assert "int8 100 110 – 102 10.0 1.5× 1.9× 1 AVX512_VNNI" in two.text


def test_the_table_of_every_measurement_has_memory_scores_and_the_nets_share(two: Page) -> None:
    assert "1 AVX512_VNNI 700 61.2 % 72.2 % 88.3 % 93.4 %" in two.text


def test_each_figure_has_the_command_that_made_it(two: Page) -> None:
    figures = two.text.split("made by")[1:]
    assert len(figures) == 6 + 1 + 1 + 1 + 2 + 1 + 2  # bars, scatter, curves, classes, matrices, images, trials
    assert all(text.startswith(" python -m segdist.launch --ranks-per-node 2 ") for text in figures)
    evaluated = "python -m segdist.launch --ranks-per-node 2 evaluate --config"
    assert figures[0].count(evaluated) == 4  # two nets in two precisions
    assert "demo-unet/evaluate/int8/config.json" in figures[0]
    assert "this page python -m jobs.collect" in two.text


def test_a_step_for_each_size_is_one_evaluation(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", HRNET, sizes=("256x512", "512x1024"))
    for precision in ("fp32", "int8"):
        whole = run / "evaluate" / precision
        for size in ("256x512", "512x1024"):
            own = whole.with_name(f"{precision}-{size}")
            shutil.copytree(whole, own)

            def change(result: dict[str, Any], size: str = size) -> None:
                result["metrics"]["sizes"] = {size: result["metrics"]["sizes"][size]}
                del result["metrics"]["precision"]  # the name says it

            edit(own / "result.json", change)
        shutil.rmtree(whole)
    edit(run / "run.json", lambda record: record.update(steps=[]))
    page = report(run)
    assert page.faults == []
    assert "went wrong" not in page.text
    assert "int8 62.2 % mIoU (fp32 62.5 %) at 512×1024, 1.5× faster" in page.text
    assert "hrnetv2_w18 256×512, 16 images fp32 eager 61.5 % –" in page.text
    assert "int8 62.2 % −0.3 88.3 %" in page.text
    assert "not evaluated" not in page.text
    assert "· int8-" not in page.text  # the size stands in the table; the name adds nothing
    assert any("of rider is taken for person" in str(svg["aria-label"]) for svg in page.all("svg"))


def test_bf16_is_compared_where_it_was_measured(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", HRNET)
    shutil.copytree(run / "evaluate" / "fp32", run / "evaluate" / "bf16")
    edit(run / "evaluate" / "bf16" / "result.json", lambda result: result["metrics"].update(precision="bf16"))
    page = report(run)
    assert "bf16 eager 61.5 % 0.0 88.3 %" in page.text.replace("+0.0", "0.0").replace("−0.0", "0.0")
    assert "bf16 traced" in page.text
    labels = [str(svg["aria-label"]).replace("\N{NO-BREAK SPACE}", " ") for svg in page.all("svg")]
    assert any("hrnetv2_w18 bf16: 61.5 % in 151 ms" in label for label in labels)


@pytest.mark.parametrize("content", [b"no array", b""])
def test_a_confusion_matrix_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    run = make_run(tmp_path / "run", HRNET)
    (run / "evaluate" / "fp32" / "confusion.npy").write_bytes(content)
    page = report(run)
    assert "evaluate/fp32/confusion.npy: is no confusion matrix of 13 classes" in page.text
    assert "What is taken for what" not in page.text


def test_says_how_it_was_quantized(two: Page) -> None:
    assert "goal 1 % relative: met" in two.text
    assert "61.2 %, fp32 61.5 % (−0.3 points)" in two.text
    assert "trial 2, 1 min 15 s" in two.text
    assert "goal 60.9" in two.text  # 0.99 of 61.52
    assert "stem.conv1, head.3" in two.text
    assert "weights 7 bits of 8, so that 16-bit sums cannot saturate on CPUs without VNNI kept in fp32" in two.text


@pytest.mark.parametrize(
    ("recorded", "says"),
    [
        ({"weight_bits": 8, "reduce_range": False}, "weights 8 bits kept in fp32"),
        ({"weight_bits": 8}, "weights 8 bits kept in fp32"),
        ({}, "weights not recorded kept in fp32"),
    ],
)
def test_weights_of_all_bits_and_of_unrecorded_ones(tmp_path: Path, recorded: dict[str, Any], says: str) -> None:
    def change(result: dict[str, Any]) -> None:
        kept = {key: result["metrics"][key] for key in result["metrics"].keys() - {"weight_bits", "reduce_range"}}
        result["metrics"] = kept | recorded

    run = make_run(tmp_path / "run", UNET, images=1)
    edit(run / "quantize" / "result.json", change)
    assert says in report(run).text


def test_says_how_it_was_made(two: Page) -> None:
    assert "Example Xeon 8480+ every step" in two.text
    assert "gloo (oneCCL is not installed) every step" in two.text
    assert "torch 2.8.0 every step" in two.text
    assert "python -m jobs.submit pipeline --net.model hrnetv2_w18 --run runs/demo-hrnet" in two.text


def test_absent_class_is_no_zero(two: Page) -> None:
    assert "rider absent absent absent absent" in two.text
    assert "road 94.3 % 94.0 % 97.0 % 97.0 %" in two.text


def test_sizes_have_rows_of_their_own_and_bars_are_of_the_largest(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run", HRNET, sizes=("256x512", "512x1024")))
    assert "hrnetv2_w18 256×512, 16 images fp32 eager 61.5 %" in page.text
    assert "hrnetv2_w18 512×1024, 16 images fp32 eager 62.5 % – 88.3 % 760 836" in page.text
    assert "hrnetv2_w18 fp32, 512×1024" in page.text
    assert "hrnetv2_w18 fp32, 256×512" not in page.text
    assert "int8 62.2 % mIoU (fp32 62.5 %) at 512×1024, 1.5× faster" in page.text


def test_single_run(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run", UNET))
    assert "hrnetv2" not in page.text
    assert page.text.count("int8 58.0 % mIoU") == 1
    assert "went wrong" not in page.text


def test_same_net_twice_is_told_apart_by_the_folder(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "a", UNET), make_run(tmp_path / "b", UNET))
    assert "unet (width 16) · a and unet (width 16) · b" in page.text


def test_precision_decides_which_evaluation_is_which(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", HRNET)
    (run / "evaluate" / "int8").rename(run / "evaluate" / "a-first")
    (run / "evaluate" / "fp32").rename(run / "evaluate" / "int8")
    edit(run / "run.json", lambda record: record.update(steps=[]))
    page = report(run)
    assert "int8 61.2 % mIoU (fp32 61.5 %), 1.5× faster" in page.text
    assert "int8 · a-first 61.2 % −0.3" in page.text


def test_command_writes_the_page_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = make_run(tmp_path / "run", UNET), tmp_path / "new" / "report.html"
    assert main([str(run), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.exists()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["missing"], "RUN 'missing': is no folder; give a run folder, for example runs/unet"),
        (["empty"], "RUN 'empty': holds no run.json and no step (train, evaluate, quantize); give a run folder"),
        (["run", "./run"], "RUN run run: name each run folder once"),
        (["run", "--out", "empty"], "--out 'empty': is a folder; give the name of a file, for example report.html"),
        (["run", "--out", "file/x.html"], "--out 'file/x.html': cannot be written (File exists); give another file"),
    ],
)
def test_command_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "run" / "train").mkdir(parents=True)
    (tmp_path / "run" / "train" / "config.json").write_text("{}")
    (tmp_path / "empty" / "train").mkdir()  # a folder of that name alone, as data sets have, is no run
    assert main(argv if "--out" in argv else [*argv, "--out", "report.html"]) == 2
    assert capsys.readouterr().err == f"error: {says}\n"
    assert not (tmp_path / "report.html").exists()


def test_command_wants_runs_and_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run"])
    assert stop.value.code == 2
    assert "--out" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no run folder was named"):
        write_report([], Path("report.html"))
    assert main(["--out", "report.html"]) == 2
    assert "error: RUN: no run folder was named; give at least one" in capsys.readouterr().err
