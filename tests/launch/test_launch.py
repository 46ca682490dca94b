"""The launcher with real processes and real signals; small scripts stand in for the ranks."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import pytest

from segdist.config import ConfigError
from segdist.launch.__main__ import main, split_arguments
from segdist.launch.allocation import THIS_MACHINE
from segdist.launch.outcome import Outcome, RankEnd
from segdist.launch.plan import choose_master_port, plan_ranks
from segdist.launch.step import _what_follows, last_lines
from segdist.run.folder import RunFolder, StepFolder
from segdist.run.lease import acquire
from segdist.run.result import Result, read_result, utc_now
from segdist.system.affinity import physical_cores

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 15.0
"""Seconds after which something that should have happened counts as not happening."""

PRELUDE = """
import json, os, signal, subprocess, sys
from pathlib import Path
signal.alarm(60)  # whatever goes wrong, no test leaves a process behind for long
rank, step = int(os.environ["RANK"]), Path(sys.argv[1])

def ready(*words):
    os.write(alive, (" ".join(map(str, ("rank", rank, *words))) + "\\n").encode())

def wait_for_go(number):
    open(step / f"go{number}").readline()

def write_result(status="completed"):
    result = dict(task="train", name="train", status=status, started_at="2026-01-01T00:00:00Z")
    (step / "new.json").write_text(json.dumps({**result, "schema_version": 1}))
    os.replace(step / "new.json", step / "result.json")

def pause():
    while True:
        signal.pause()

alive = os.open(step / "alive", os.O_WRONLY)  # held open until this process ends
"""


class Launcher:
    """``segdist.launch.launch`` in a process of its own, with a script as the ranks' program.

    Every rank holds the FIFO ``alive`` open: a line in it says that a rank has come to some point, its end of
    file that every process of the job is gone.
    """

    def __init__(
        self,
        folder: Path,
        script: str,
        nodes: int = 1,
        ranks_per_node: int = 2,
        grace: float = 10.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.step = RunFolder(folder / "run").step("train")
        self.step.path.mkdir(parents=True, exist_ok=True)
        for name in ("alive", "go0", "go1"):
            (self.step.path / name).unlink(missing_ok=True)
            os.mkfifo(self.step.path / name)
        self._go = [os.open(self.step.path / name, os.O_RDWR) for name in ("go0", "go1")]
        (folder / "rank.py").write_text(PRELUDE + script)
        driver = (
            "import os, sys\n"
            "from segdist.launch.plan import choose_master_port, plan_ranks\n"
            "from segdist.launch.step import launch\n"
            "from segdist.run.folder import RunFolder\n"
            "from segdist.system.affinity import physical_cores\n"
            f"step = RunFolder({str(folder / 'run')!r}).step('train')\n"
            f"specs = plan_ranks({nodes}, {ranks_per_node}, [str(step.path)], step,"
            " physical_cores(os.sched_getaffinity(0)), choose_master_port({}),"
            f" [sys.executable, '-S', {str(folder / 'rank.py')!r}])\n"
            f"sys.exit(launch(specs, {grace}, step))"
        )
        self._alive = os.open(self.step.path / "alive", os.O_RDONLY | os.O_NONBLOCK)
        self._held = [os.open(self.step.path / "alive", os.O_WRONLY)]  # no end of file between one rank and the next
        self._lines = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", driver],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self) -> Launcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()
        for descriptor in (self._alive, *self._held, *self._go):
            os.close(descriptor)

    def _read_alive(self, until: float) -> bytes:
        assert select.select([self._alive], [], [], max(0.0, until - time.monotonic()))[0], (
            f"nothing happened within {DEADLINE} s; so far: {self._lines!r}"
        )
        return os.read(self._alive, 4096)

    def wait_for_lines(self, count: int) -> list[str]:
        """Wait until the ranks have sent ``count`` lines in all; they are returned sorted."""
        until = time.monotonic() + DEADLINE
        while self._lines.count(b"\n") < count:
            self._lines += self._read_alive(until)
        return sorted(self._lines.decode().splitlines())

    def wait_until_nobody_lives(self) -> None:
        """Wait until no process has the FIFO open any more."""
        while self._held:
            os.close(self._held.pop())
        until = time.monotonic() + DEADLINE
        while data := self._read_alive(until):
            self._lines += data

    def go(self, number: int) -> None:
        """Let the rank that waits for this number go on."""
        os.write(self._go[number], b"go\n")

    def end(self) -> tuple[int, str, str]:
        """Wait for the launcher: exit code, stdout, stderr. Nothing of the job may be left then."""
        out, err = self.process.communicate(timeout=DEADLINE)
        self.wait_until_nobody_lives()
        return self.process.returncode, (out or b"").decode(), err.decode()


def pid_of(lines: list[str], rank: int) -> int:
    """From ``rank 1 pid 123``."""
    return next(int(line.split()[3]) for line in lines if line.startswith(f"rank {rank} pid "))


def last_line(text: str) -> str:
    return text.splitlines()[-1]


@pytest.fixture
def step(tmp_path: Path) -> StepFolder:
    return RunFolder(tmp_path / "run").step("train")


# The plan ---------------------------------------------------------------------------------------------------


def test_plan_numbers_ranks_node_by_node_and_gives_each_node_its_own_cores(step: StepFolder) -> None:
    specs = plan_ranks(2, 2, ["train", "--epochs", "3"], step, [0, 2, 4, 6], 29500, ["program"])

    assert [spec.argv for spec in specs] == [("program", "train", "--epochs", "3")] * 4
    assert [spec.cores for spec in specs] == [(0, 2), (0, 2), (4, 6), (4, 6)]
    assert [spec.log.name for spec in specs] == ["rank0.log", "rank1.log", "rank2.log", "rank3.log"]
    assert specs[3].environment == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "PYTHONUNBUFFERED": "1",
    }


def test_plan_starts_the_package_by_default(step: StepFolder) -> None:
    (spec,) = plan_ranks(1, 1, ["train"], step, [0], 29500)
    assert spec.argv == (sys.executable, "-m", "segdist", "train")


def test_plan_gives_every_node_a_core_where_there_are_too_few(step: StepFolder) -> None:
    specs = plan_ranks(3, 1, ["train"], step, [5, 7], 29500)
    assert [spec.cores for spec in specs] == [(5,), (5,), (7,)]


@pytest.mark.parametrize(("nodes", "ranks", "named"), [(0, 1, "--nodes 0"), (1, -1, "--ranks-per-node -1")])
def test_plan_refuses_less_than_one(step: StepFolder, nodes: int, ranks: int, named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{named}: must be at least 1; give 1 or more$"):
        plan_ranks(nodes, ranks, ["train"], step, [0], 29500)


def test_master_port_is_inherited_or_free() -> None:
    assert choose_master_port({"MASTER_PORT": "29555"}) == 29555
    assert 1024 <= choose_master_port({}) <= 65535


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", ""])
def test_master_port_must_be_a_port(text: str) -> None:
    with pytest.raises(ConfigError, match=f"^MASTER_PORT='{text}': must be a port from 1 to 65535; unset it"):
        choose_master_port({"MASTER_PORT": text})


def test_own_options_come_before_the_task_and_its_options_stay_as_they_are() -> None:
    options, task, rest = split_arguments(["--nodes", "2", "train", "--nodes", "7", "--", "evaluate", "-x"])
    assert (options.nodes, options.ranks_per_node, options.grace) == (2, None, 10.0)
    assert (task, rest) == ("train", ["--nodes", "7", "--", "evaluate", "-x"])


def test_a_rank_that_dies_of_usr1_before_it_can_save_is_to_be_continued_too(step: StepFolder) -> None:
    spec = plan_ranks(1, 1, (), step, (0,), 1)[0]
    for end in (RankEnd(spec, exit_code=75), RankEnd(spec, signal=signal.SIGUSR1)):
        assert _what_follows(Outcome([end]), THIS_MACHINE, 10)[0]
    for end in (RankEnd(spec, exit_code=1), RankEnd(spec, signal=signal.SIGKILL)):
        assert _what_follows(Outcome([end]), THIS_MACHINE, 10) == (False, "")


def test_outcome_takes_the_code_of_the_first_rank_that_failed(step: StepFolder) -> None:
    first, second = plan_ranks(1, 2, ["train"], step, [0], 29500)
    fine, seven, killed = RankEnd(first), RankEnd(second, exit_code=7), RankEnd(first, signal=9)
    assert Outcome([fine, seven, killed]).exit_code == 7
    assert Outcome([killed, seven]).exit_code == 137
    assert Outcome([fine]).exit_code == 0
    late = Outcome([RankEnd(second, signal=9, late_after=15)], stopped_by=15)
    assert late.exit_code == 143
    assert str(late) == (
        "rank 1 was killed by SIGKILL after the launcher was sent SIGTERM, which the rank did not heed in time"
    )


def test_last_lines_reads_the_end_only_and_splits_a_redrawn_progress_bar(tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    log.write_bytes(b"x" * 100_000 + b"\n 10%\r 20%\r\n\nValueError: \xff\n")
    assert last_lines(log, 3) == [" 10%", " 20%", "ValueError: \ufffd"]
    assert last_lines(tmp_path / "none.log", 3) == [f"({tmp_path}/none.log is not there)"]


# All goes well ----------------------------------------------------------------------------------------------


def test_every_rank_logs_to_its_file_and_rank_0_is_shown_while_it_runs(tmp_path: Path) -> None:
    script = """
print("begin of", rank)
print("error stream of", rank, file=sys.stderr)
if rank == 0:
    ready()
    wait_for_go(0)
    write_result()
"""
    with Launcher(tmp_path, script) as launcher:
        assert launcher.process.stdout is not None
        assert launcher.process.stdout.readline() == b"begin of 0\n"  # rank 0 has not ended yet
        launcher.wait_for_lines(1)
        launcher.go(0)
        code, out, err = launcher.end()
    assert (code, out, err) == (0, "error stream of 0\n", "")
    assert launcher.step.rank_log(0).read_text() == "begin of 0\nerror stream of 0\n"
    assert launcher.step.rank_log(1).read_text() == "begin of 1\nerror stream of 1\n"


def test_ranks_get_their_environment_and_nodes_do_not_share_cores(tmp_path: Path) -> None:
    script = """
names = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK MASTER_ADDR PYTHONUNBUFFERED".split()
seen = dict(environment=[os.environ[name] for name in names], cores=sorted(os.sched_getaffinity(0)))
print(json.dumps({**seen, "group": os.getpgid(0), "port": os.environ["MASTER_PORT"]}))
if rank == 0:
    write_result()
"""
    stale = {"RANK": "9", "GROUP_RANK": "9"}
    with Launcher(tmp_path, script, nodes=2, ranks_per_node=2, environment=stale) as launcher:
        assert launcher.end()[0] == 0
    seen = [json.loads(launcher.step.rank_log(rank).read_text()) for rank in range(4)]
    assert [rank["environment"] for rank in seen] == [
        ["0", "4", "0", "2", "0", "127.0.0.1", "1"],
        ["1", "4", "1", "2", "0", "127.0.0.1", "1"],
        ["2", "4", "0", "2", "1", "127.0.0.1", "1"],
        ["3", "4", "1", "2", "1", "127.0.0.1", "1"],
    ]
    assert len({rank["port"] for rank in seen}) == 1
    groups = [rank["group"] for rank in seen]
    assert groups[0] == groups[1] != groups[2] == groups[3]
    cores = [set(rank["cores"]) for rank in seen]
    assert cores[0] == cores[1]
    assert cores[2] == cores[3]
    usable = physical_cores(os.sched_getaffinity(0))
    assert cores[0] | cores[2] == set(usable)
    if len(usable) >= 2:
        assert not cores[0] & cores[2]


def test_rank_0_may_end_before_the_others(tmp_path: Path) -> None:
    script = """
if rank == 0:
    write_result()
    print("x" * 200_000)
else:
    ready()
    wait_for_go(1)
"""
    with Launcher(tmp_path, script) as launcher:
        launcher.wait_for_lines(1)
        launcher.go(1)
        code, out, err = launcher.end()
    assert (code, err) == (0, "")
    assert out == "x" * 200_000 + "\n" == launcher.step.rank_log(0).read_text()


def test_what_rank_0_says_last_is_not_lost(tmp_path: Path) -> None:
    script = """
write_result()
for number in range(3000):
    os.write(1, b"%099d\\n" % number)
os._exit(0)
"""
    with Launcher(tmp_path, script, ranks_per_node=1) as launcher:
        code, out, _ = launcher.end()
    assert code == 0
    assert out.splitlines() == [f"{number:099}" for number in range(3000)]


def test_a_rank_goes_on_when_nobody_reads_the_launchers_output(tmp_path: Path) -> None:
    script = """
if rank == 0:
    ready()
    wait_for_go(0)
    print("into the void")
    write_result()
"""
    with Launcher(tmp_path, script) as launcher:
        launcher.wait_for_lines(1)
        assert launcher.process.stdout is not None
        launcher.process.stdout.close()
        launcher.process.stdout = None
        launcher.go(0)
        code, _, err = launcher.end()
    assert code == 0
    assert "nobody reads the output any more" in err
    assert launcher.step.rank_log(0).read_text() == "into the void\n"


def test_logs_of_the_launch_before_are_kept_also_of_ranks_no_longer_there(tmp_path: Path) -> None:
    for ranks in (3, 2):
        script = f"print('launch with', {ranks})\nif rank == 0: write_result()"
        with Launcher(tmp_path, script, ranks_per_node=ranks) as launcher:
            assert launcher.end()[0] == 0
    texts = {log.name: log.read_text() for log in launcher.step.logs.iterdir()}
    assert texts == {
        "rank0.log": "launch with 2\n",
        "rank1.log": "launch with 2\n",
        "rank0.log.1": "launch with 3\n",
        "rank1.log.1": "launch with 3\n",
        "rank2.log.1": "launch with 3\n",
    }


def test_what_a_rank_leaves_running_is_killed_at_the_end(tmp_path: Path) -> None:
    script = """
if rank == 0:
    write_result()
    code = "import signal; signal.alarm(60); signal.pause()"
    subprocess.Popen([sys.executable, "-S", "-c", code], pass_fds=[alive])
"""
    with Launcher(tmp_path, script) as launcher:
        assert launcher.end()[0] == 0  # and nobody holds the FIFO


# A rank fails -----------------------------------------------------------------------------------------------


def test_a_failing_rank_is_named_and_the_waiting_ones_are_terminated(tmp_path: Path) -> None:
    script = """
if rank == 1:
    sys.exit(print("before\\nValueError: no such label") or 7)
ready()
pause()
"""
    job = {"SEGDIST_JOB_CLUSTER": "local", "SEGDIST_JOB_ID": "42"}
    started = utc_now()
    with Launcher(tmp_path, script, ranks_per_node=3, grace=0.3, environment=job) as launcher:
        code, _, err = launcher.end()
    log = launcher.step.rank_log(1)
    assert code == 7
    assert "rank 1 ended with exit code 7; waiting 0.3 s for ranks 0, 2 to end" in err
    assert "ranks 0, 2 did not end in time; sending SIGTERM" in err
    assert "SIGKILL" not in err
    assert err.splitlines()[-4:] == [
        f"segdist.launch: the last lines of {log}:",
        "  | before",
        "  | ValueError: no such label",
        f"error: rank 1 ended with exit code 7; log: {log}",
    ]
    result = launcher.step.read_result()
    assert (result.task, result.name, result.status) == ("train", "train", "failed")
    assert result.error == "rank 1 ended with exit code 7: ValueError: no such label"
    assert result.log == str(log)
    assert result.job == {"cluster": "local", "id": "42"}
    assert result.ended_at is not None
    assert started <= result.started_at <= result.ended_at <= utc_now()
    assert result.elapsed_s is not None
    assert 0.3 <= result.elapsed_s < DEADLINE


def test_a_rank_that_ignores_sigterm_is_killed_after_the_grace_time_again(tmp_path: Path) -> None:
    script = """
if rank == 1:
    wait_for_go(1)
    sys.exit(7)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ready()
pause()
"""
    with Launcher(tmp_path, script, grace=0.2) as launcher:
        launcher.wait_for_lines(1)
        launcher.go(1)
        code, _, err = launcher.end()
    assert code == 7
    assert err.index("rank 0 did not end in time; sending SIGTERM") < err.index("sending SIGKILL")
    assert last_line(err).startswith("error: rank 1 ended with exit code 7;")


def test_ranks_that_end_by_themselves_in_the_grace_time_do_not_hide_the_first(tmp_path: Path) -> None:
    script = """
if rank == 2:
    sys.exit("MemoryError: rank 2 is the cause")
wait_for_go(rank)
sys.exit("ConnectionResetError: by peer")
"""
    with Launcher(tmp_path, script, ranks_per_node=3) as launcher:
        assert launcher.process.stderr is not None
        assert b"rank 2 ended with exit code 1; waiting" in launcher.process.stderr.readline()
        launcher.go(0)
        launcher.go(1)
        code, _, err = launcher.end()
    assert code == 1
    assert "sending" not in err
    assert last_line(err).startswith("error: rank 2 ended with exit code 1;")
    assert launcher.step.read_result().error == ("rank 2 ended with exit code 1: MemoryError: rank 2 is the cause")


def test_a_killed_rank_gives_137_and_a_result(tmp_path: Path) -> None:
    with Launcher(tmp_path, "ready('pid', os.getpid()); pause()", nodes=2, grace=0.1) as launcher:
        os.kill(pid_of(launcher.wait_for_lines(4), 2), signal.SIGKILL)
        code, _, err = launcher.end()
    assert code == 137
    assert "memory has run out" in err
    log = launcher.step.rank_log(2)
    assert last_line(err) == f"error: rank 2 was killed by SIGKILL; exit code 137; log: {log}"
    assert launcher.step.read_result().error == "rank 2 was killed by SIGKILL"


def test_a_crash_in_native_code_gives_its_signal(tmp_path: Path) -> None:
    with Launcher(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)", ranks_per_node=1) as launcher:
        code, _, err = launcher.end()
    assert code == 139
    assert last_line(err).startswith("error: rank 0 was killed by SIGSEGV; exit code 139;")


# The launcher is sent a signal ------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_signal_reaches_every_rank(tmp_path: Path, number: signal.Signals, expected: int) -> None:
    script = "signal.signal(signal.SIGINT, signal.SIG_DFL); ready(); pause()"
    with Launcher(tmp_path, script) as launcher:
        launcher.wait_for_lines(2)
        launcher.process.send_signal(number)
        code, _, err = launcher.end()
    assert code == expected
    assert f"was sent {number.name}; passing it on to ranks 0, 1" in err
    assert f"was killed by {number.name} after the launcher was sent {number.name}; exit code" in last_line(err)
    assert launcher.step.read_result().status == "failed"


def test_a_rank_that_does_not_heed_a_stop_signal_is_killed_and_the_code_is_the_signals(
    tmp_path: Path,
) -> None:
    script = """
signal.signal(signal.SIGTERM, signal.SIG_IGN if rank else lambda *_: sys.exit(0))
ready()
pause()
"""
    with Launcher(tmp_path, script, grace=1.0) as launcher:
        launcher.wait_for_lines(2)
        launcher.process.terminate()
        code, _, err = launcher.end()
    assert code == 143
    assert last_line(err).startswith(
        "error: rank 1 was killed by SIGKILL after the launcher was sent SIGTERM, which the rank did not heed"
    )


def test_ranks_that_save_their_work_after_a_stop_signal_end_well(tmp_path: Path) -> None:
    script = """
def save(*_):
    if rank == 0:
        write_result()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
ready()
pause()
"""
    with Launcher(tmp_path, script) as launcher:
        launcher.wait_for_lines(2)
        launcher.process.terminate()
        assert launcher.end()[0] == 0


def test_usr1_reaches_every_rank_and_nothing_else_follows(tmp_path: Path) -> None:
    script = """
signal.signal(signal.SIGUSR1, lambda *_: ready("has USR1"))
ready()
wait_for_go(rank)
if rank == 0:
    write_result()
"""
    with Launcher(tmp_path, script, grace=0.0) as launcher:
        launcher.wait_for_lines(2)
        launcher.process.send_signal(signal.SIGUSR1)
        lines = launcher.wait_for_lines(4)
        launcher.go(0)
        launcher.go(1)
        code, _, err = launcher.end()
    assert lines == ["rank 0", "rank 0 has USR1", "rank 1", "rank 1 has USR1"]
    assert code == 0
    assert err == "segdist.launch: was sent SIGUSR1; passing it on to ranks 0, 1\n"


def test_no_rank_outlives_a_killed_launcher(tmp_path: Path) -> None:
    script = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
ready()
pause()
"""
    with Launcher(tmp_path, script, nodes=2) as launcher:
        launcher.wait_for_lines(4)
        launcher.process.kill()
        assert launcher.process.wait(DEADLINE) == -signal.SIGKILL
        launcher.wait_until_nobody_lives()


# result.json ------------------------------------------------------------------------------------------------


def write_earlier(step: StepFolder, status: str) -> None:
    step.path.mkdir(parents=True)
    step.write_result(Result("train", "train", status, "2026-01-01T00:00:00Z", error="earlier"))  # type: ignore[arg-type]


def test_a_missed_goal_passes_through_with_its_own_result(tmp_path: Path) -> None:
    with Launcher(tmp_path, "if rank == 0: write_result('failed')\nsys.exit(3)") as launcher:
        assert launcher.end()[0] == 3
    assert launcher.step.read_result().error is None  # as rank 0 wrote it


@pytest.mark.parametrize("earlier", [None, "completed"])
def test_ranks_that_all_end_well_without_a_new_result_have_failed(
    tmp_path: Path, step: StepFolder, earlier: str | None
) -> None:
    if earlier:
        write_earlier(step, earlier)
    with Launcher(tmp_path, "") as launcher:
        code, _, err = launcher.end()
    reason = f"every rank ended with exit code 0, but none wrote {step.result_json}"
    assert code == 1
    assert last_line(err) == f"error: {reason}; exit code 1; log: {step.rank_log(0)}"
    assert step.read_result().error == reason


def test_an_earlier_result_and_its_logs_are_replaced_on_request_only(
    tmp_path: Path, step: StepFolder, rank_program: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    write_earlier(step, "completed")
    step.logs.mkdir()
    step.rank_log(0).write_text("earlier")
    argv = ["train", "--run", str(tmp_path / "run")]

    assert main(argv, rank_program) == 2
    assert capfd.readouterr().err == (
        f"error: {step.result_json}: exists; give another --run, or --overwrite to replace it\n"
    )
    assert step.read_result().error == "earlier"
    assert step.rank_log(0).read_text() == "earlier"

    assert main([argv[0], "--overwrite", *argv[1:]], rank_program) == 0
    assert step.read_result().status == "completed"


def test_a_run_at_work_keeps_its_logs(
    tmp_path: Path, step: StepFolder, rank_program: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    held = acquire(step, {"SEGDIST_JOB_ID": "7"})
    step.logs.mkdir()
    step.rank_log(0).write_text("at work")
    assert main(["train", "--run", str(tmp_path / "run"), "--overwrite"], rank_program) == 2
    assert "job 7 of an unnamed cluster (restart 0)" in capfd.readouterr().err
    assert step.rank_log(0).read_text() == "at work"
    held.release()


def test_a_result_of_an_earlier_launch_is_not_taken_for_that_of_ranks_that_failed(
    tmp_path: Path, step: StepFolder
) -> None:
    write_earlier(step, "completed")
    with Launcher(tmp_path, "sys.exit(7)", ranks_per_node=1) as launcher:
        assert launcher.end()[0] == 7
    assert step.read_result().status == "failed"
    assert step.read_result().error == "rank 0 ended with exit code 7"


def test_a_result_that_cannot_be_written_does_not_hide_how_the_ranks_ended(tmp_path: Path) -> None:
    script = "(step / 'result.json').mkdir(exist_ok=True); sys.exit(7)"
    with Launcher(tmp_path, script, ranks_per_node=1) as launcher:
        (launcher.step.path / "result.json").mkdir(exist_ok=True)
        code, _, err = launcher.end()
    assert code == 7
    assert "cannot be written" in err
    assert last_line(err).startswith("error: rank 0 ended with exit code 7;")


# The command line -------------------------------------------------------------------------------------------


@pytest.fixture
def rank_program(tmp_path: Path) -> list[str]:
    """A program that writes its arguments as the result of the step in RUN, which is its last argument."""
    program = tmp_path / "rank.py"
    program.write_text(
        "import sys; from pathlib import Path; from segdist.run.folder import *; from segdist.run.result import *\n"
        "step = RunFolder(sys.argv[-1]).step(sys.argv[1], 'int8')\n"
        "metrics = {'argv': sys.argv[1:]}\n"
        "step.write_result(Result(step.task, step.name, 'completed', utc_now(), metrics=metrics))\n"
    )
    return [sys.executable, str(program)]


def test_task_options_reach_the_rank_as_they_are(tmp_path: Path, rank_program: list[str]) -> None:
    argv = ["evaluate", "--name", "int8", "--sizes", "64x128", "96x96", "--run", str(tmp_path / "run")]
    assert main(["--nodes", "1", *argv], rank_program) == 0
    result = read_result(tmp_path / "run" / "evaluate" / "int8" / "result.json")
    assert result.metrics == {"argv": argv}
    assert (tmp_path / "run" / "evaluate" / "int8" / "logs" / "rank0.log").read_text() == ""


def test_more_ranks_than_cores_is_a_warning_with_the_counts(
    tmp_path: Path, rank_program: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    cores = len(physical_cores(os.sched_getaffinity(0)))
    argv = ["--ranks-per-node", str(cores + 1), "train", "--run", str(tmp_path / "run")]
    assert main(argv, rank_program) == 0
    assert capfd.readouterr().err == (
        f"segdist.launch: warning: {cores + 1} ranks (1 x {cores + 1}) on {cores} physical cores: "
        "they share cores, so measure no speed here\n"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "TASK is missing: give a task (train, evaluate, quantize, pipeline); see python -m segdist.launch --help"),
        (["fly"], "fly: is neither a task (train, evaluate, quantize, pipeline) nor an option; see"),
        (
            ["--node", "2", "train"],
            "--node 2: is neither a task (train, evaluate, quantize, pipeline) nor an option; see",
        ),
        (["--nodes", "two", "train"], "argument --nodes: invalid int value: 'two'; see"),
        (["--nodes", "0", "train", "--run", "RUN"], "--nodes 0: must be at least 1; give 1 or more"),
        (
            ["--ranks-per-node", "0", "train", "--run", "RUN"],
            "--ranks-per-node 0: must be at least 1; give 1",
        ),
        (
            ["--grace", "-1", "train"],
            "argument --grace: -1: must be seconds, at least 0; give for example 10",
        ),
        (
            ["--grace", "nan", "train"],
            "argument --grace: nan: must be seconds, at least 0; give for example 10",
        ),
        (["train"], '--run "": must name the run folder; add for example --run runs/first'),
        (
            ["train", "--config", "RUN/none.toml"],
            "none.toml: cannot be read (No such file or directory); give",
        ),
        (["train", "--run", "rank.py"], "cannot be made or written (Not a directory); give a --run folder"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2_before_anything_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rank_program: list[str],
    capfd: pytest.CaptureFixture[str],
    argv: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv, rank_program) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["rank.py"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--crop", "big", "a size is HEIGHTxWIDTH in pixels"), ("--epoch", "3", "--epoch")],
)
def test_bad_task_options_are_refused_before_anything_starts(
    tmp_path: Path,
    rank_program: list[str],
    capfd: pytest.CaptureFixture[str],
    option: str,
    value: str,
    message: str,
) -> None:
    argv = ["train", "--run", str(tmp_path / "run"), option, value]
    try:
        code = main(argv, rank_program)
    except SystemExit as exit_:  # the option parser's own way out
        code = int(exit_.code or 0)
    assert code == 2
    assert message in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_a_bad_master_port_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rank_program: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MASTER_PORT", "any")
    assert main(["train", "--run", str(tmp_path / "run")], rank_program) == 2
    assert capfd.readouterr().err.startswith("error: MASTER_PORT='any': must be a port")


def test_help_is_for_people_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from segdist.launch.__main__ import main\n"
        "try: main(['--help'])\n"
        "finally: print(sorted({'torch', 'numpy', 'PIL', 'submitit'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0
    for text in (
        "--nodes N",
        "--ranks-per-node R",
        "--grace SECONDS",
        "TASK",
        "exit code:",
        "example:",
        "[]",
    ):
        assert text in done.stdout


def test_signal_handlers_are_as_before_after_a_launch(tmp_path: Path, rank_program: list[str]) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    assert main(["train", "--run", str(tmp_path / "run")], rank_program) == 0
    assert [signal.getsignal(number) for number in numbers] == before


# The ranks' end ---------------------------------------------------------------------------------------------


def test_a_rank_ends_with_its_exit_code_though_a_thread_is_in_the_store() -> None:
    code = """
import datetime, threading
from segdist.__main__ import end_process
from torch.distributed import DistStoreError, TCPStore

store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
started = threading.Event()

def watch():
    while True:
        try:
            started.set()
            store.wait(["never"], datetime.timedelta(seconds=0.02))
        except DistStoreError:
            continue

for _ in range(8):
    threading.Thread(target=watch, daemon=True).start()
started.wait()
print("done")
end_process(7)
"""
    environ = {**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR"}
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (7, "done\n"), done.stderr
