"""Ranks of one machine while all goes well: their environment, cores and logs. Small scripts stand in for them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from segdist.launch.console import RankLog
from segdist.system.affinity import physical_cores

from .local_launcher import Launcher


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
        launcher.alive.wait_for_lines(1)
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
        launcher.alive.wait_for_lines(1)
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
        launcher.alive.wait_for_lines(1)
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


def test_a_log_that_cannot_be_written_ends_no_rank_and_is_said_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    log = RankLog(full, tmp_path / "rank0.log")
    for _ in range(3):
        log.write(b"one line\n")
    os.close(full)
    said = capfd.readouterr().err
    assert said.count(f"{tmp_path}/rank0.log: cannot be written (No space left on device); the rank goes on") == 1
