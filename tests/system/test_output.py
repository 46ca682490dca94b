"""No command dies of a standard output that is closed, full, or of an encoding that lacks a character."""

import os
import shutil
import subprocess
import sys

import pytest

from segdist.run.result import read_result

PRINT = """
import os, sys
from segdist.system.output import prepare_output
{before}
prepare_output({options})
with open(sys.argv[1], "w") as file:
    print("── ö → ──", flush=True)
    print("after", "\\udce9", file=sys.stderr)
    for _ in range(3):
        print("x" * 100_000, flush=True)
    print(file.fileno(), os.fstat(1).st_rdev == os.stat(os.devnull).st_rdev, file=sys.stderr)
"""


def python(redirect, *words, **environment):
    """Run python through a shell that redirects; stdout and stderr as bytes."""
    line = f'exec "$0" "$@" {redirect}'
    return subprocess.run(
        ["sh", "-c", line, sys.executable, *map(str, words)],
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.fixture(scope="module")
def latin1(tmp_path_factory):
    """The environment of a real locale of 8 bits."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None:
        pytest.skip("needs localedef, to make the locale en_US.ISO-8859-1")
    made = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US.ISO-8859-1")]
    done = subprocess.run(made, capture_output=True, text=True, check=False)
    if not (folder / "en_US.ISO-8859-1").is_dir():
        pytest.skip(f"localedef: {done.stderr.strip()}")
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1"}


def test_a_closed_output_gives_its_number_to_no_file(tmp_path):
    code = PRINT.format(before="", options="")
    done = python(f">&- 2>{tmp_path}/err <&-", "-c", code, tmp_path / "file")
    assert done.returncode == 0
    assert (tmp_path / "err").read_text().splitlines()[-1].split()[1] == "True"
    assert int((tmp_path / "err").read_text().splitlines()[-1].split()[0]) > 2
    assert (tmp_path / "file").read_bytes() == b""


def test_all_three_closed_end_nothing(tmp_path):
    done = python(">&- 2>&- <&-", "-c", PRINT.format(before="", options=""), tmp_path / "file")
    assert done.returncode == 0
    assert (tmp_path / "file").read_bytes() == b""


def test_a_full_output_ends_no_work_and_is_said_once(tmp_path):
    done = python(">/dev/full", "-c", PRINT.format(before="", options=""), tmp_path / "file")
    assert done.returncode == 0
    assert done.stderr.count(b"warning: standard output cannot be written (No space left on device); the") == 1


def test_a_full_error_output_ends_no_work(tmp_path):
    assert python("2>/dev/full", "-c", PRINT.format(before="", options=""), tmp_path / "file").returncode == 0


@pytest.mark.parametrize(
    ("encoding", "expected"), [("ascii", "?? ? ? ??"), ("latin-1", "?? ö ? ??"), ("utf-8", "── ö → ──")]
)
def test_what_the_encoding_lacks_is_replaced(tmp_path, encoding, expected):
    code = PRINT.format(before="", options="")
    done = python("", "-c", code, tmp_path / "file", PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == expected.encode(encoding)


def test_a_log_is_utf8_whatever_the_locale(tmp_path):
    code = PRINT.format(before="", options='encoding="utf-8"')
    done = python("", "-c", code, tmp_path / "file", PYTHONIOENCODING="ascii")
    assert done.stdout.splitlines()[0].decode() == "── ö → ──"


def test_a_pipe_that_does_not_block_is_waited_for(tmp_path):
    code = PRINT.format(before="os.set_blocking(1, False)", options="")
    done = python("", "-c", code, tmp_path / "file")
    assert (done.returncode, len(done.stdout.splitlines()[-1])) == (0, 100_000)


@pytest.fixture(scope="module")
def run(tmp_path_factory, run_python):
    """A run whose name only UTF-8 can hold, with a result."""
    path = tmp_path_factory.mktemp("runs") / "läuft→"
    step = path / "train"
    step.mkdir(parents=True)
    (step / "result.json").write_text(
        '{"schema_version": 1, "task": "train", "name": "train", "status": "failed", "error": "weil: ö → ─",'
        ' "started_at": "2026-01-01T00:00:00Z"}',
        encoding="utf-8",
    )
    (step / "logs").mkdir()
    return path


@pytest.mark.slow
@pytest.mark.parametrize("module", ["jobs.status", "jobs.collect"])
@pytest.mark.parametrize("where", ["ascii", "latin1", "posix"])
def test_the_commands_print_in_every_locale(run, module, where, request):
    environ = {
        "ascii": {"PYTHONIOENCODING": "ascii"},
        "posix": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    }.get(where) or request.getfixturevalue("latin1")
    done = python("", "-m", module, run, **environ)
    assert (done.returncode, done.stderr.count(b"Traceback")) == (0, 0)
    assert b"failed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("module", ["jobs.status", "jobs.collect"])
def test_what_only_prints_fails_where_that_is_lost(run, module):
    full = python(">/dev/full", "-m", module, run)
    assert full.returncode == 1
    assert full.stderr.decode().splitlines()[-1].startswith("error: standard output: No space left on device; ")
    assert b"Traceback" not in full.stderr
    assert b"Exception ignored" not in full.stderr
    assert python(">&-", "-m", module, run).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("redirect", [">/dev/full", ">&- 2>&-", "2>/dev/full"])
def test_a_training_does_not_end_for_its_output(streets, tmp_path, redirect):
    options = ("--width", "4", "--epochs", "1", "--crop", "32x64", "--batch", "2", "--workers", "0", "--ipex", "off")
    words = ("-m", "segdist.launch", "train", "--run", tmp_path / "r", "--data", streets, *options)
    done = python(redirect, *words, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert read_result(tmp_path / "r" / "train" / "result.json").status == "completed"
    assert "epoch 1/1" in (tmp_path / "r" / "train" / "logs" / "rank0.log").read_text(encoding="utf-8")
    if redirect == ">/dev/full":
        assert done.stderr.count(b"the output cannot be written (No space left on device); rank 0 goes on") == 1
