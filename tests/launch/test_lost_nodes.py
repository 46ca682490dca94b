"""A lost node is told from a failed rank, and a starter that fails to start from one that works."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from segdist.launch.allocation import Allocation
from segdist.launch.outcome import Outcome, RankEnd
from segdist.launch.pbs_job import pbsdsh_lines
from segdist.launch.plan import RankLayout, plan_ranks
from segdist.launch.step import _will_continue
from segdist.run.folder import StepFolder
from segdist.run.lost_nodes import note_lost_nodes, read_lost_nodes

from .remote_launcher import DEADLINE, RemoteLauncher, path_with, program

Start = Callable[..., RemoteLauncher]
TMRSH = 'host=$1; shift\n"$@" & echo $! > "$OUT/$host.pid"\nwait\n'
"""As pbs_tmrsh: says nothing of a node that has gone."""


@pytest.fixture
def two_nodes(tmp_path: Path, launch: Start, bin_folder: Path) -> Callable[[str], RemoteLauncher]:
    """Start a rank on each of two nodes; node1's agent leaves its pid in a file."""

    def start(script: str) -> RemoteLauncher:
        program(bin_folder, "pbs_tmrsh", TMRSH)
        job = launch(script, per_node=1, starter="pbs_tmrsh", grace=0.5, PATH=path_with(bin_folder), OUT=str(tmp_path))
        job.alive.wait_for_lines(2)
        return job

    return start


def _pull_the_plug(tmp_path: Path, job: RemoteLauncher) -> str:
    """Freeze the agent of node1, which is all that the launcher sees of a crash; the launcher's last words."""
    agent = int((tmp_path / "node1.pid").read_text())
    os.kill(agent, signal.SIGSTOP)
    (tmp_path / "gone").touch()
    try:
        job.process.wait(DEADLINE)
    finally:
        os.kill(agent, signal.SIGCONT)
    _, err = job.process.communicate(timeout=DEADLINE)
    job.alive.wait_until_nobody_lives()
    return err


@pytest.mark.slow
def test_a_node_that_goes_silent_is_lost(tmp_path: Path, two_nodes: Callable[[str], RemoteLauncher]) -> None:
    err = _pull_the_plug(tmp_path, two_nodes("ready('up')\npause()"))
    assert "lost nodes: node1" in err
    assert "Traceback" not in err, "of an agent that wakes up when all is over"
    assert "node1 was lost (its node has not been heard of for 3 s)" in err


@pytest.mark.slow
def test_a_neighbour_that_fails_at_once_does_not_hide_the_lost_node(
    tmp_path: Path, two_nodes: Callable[[str], RemoteLauncher]
) -> None:
    gone = tmp_path / "gone"
    script = f"ready('up')\nwhile rank or not os.path.exists({str(gone)!r}): time.sleep(0.02)\nsys.exit(1)"
    err = _pull_the_plug(tmp_path, two_nodes(script))
    assert "rank 0 ended with exit code 1" in err
    assert "lost nodes: node1" in err


@pytest.mark.slow
def test_a_failed_rank_is_no_lost_node_though_others_are_killed_for_it(launch: Start) -> None:
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nready('up')\nif rank == 1: os.abort()\npause()"
    job = launch(script, per_node=1, grace=0.5)
    code, _, err = job.end()
    assert code == 134
    assert "lost nodes:" in err.splitlines()
    assert "rank 1 was killed by SIGABRT" in err


@pytest.mark.slow
def test_a_node_that_goes_silent_after_a_failure_is_not_its_cause(
    tmp_path: Path, two_nodes: Callable[[str], RemoteLauncher]
) -> None:
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nready('up')\nif rank == 0: sys.exit(7)\npause()"
    job = two_nodes(script.replace("sys.exit(7)", "time.sleep(0.5); sys.exit(7)"))
    code, _, err = job.end()
    assert code == 7
    assert "lost nodes:" in err.splitlines()


@pytest.mark.slow
def test_a_starter_that_fails_to_start_makes_way_for_the_next(launch: Start, bin_folder: Path) -> None:
    program(bin_folder, "pbs_tmrsh", 'test "$1" = node0 || { echo "not allocated" >&2; exit 254; }\nshift\nexec "$@"\n')
    program(bin_folder, "pbsdsh", 'test "$1" = -h || exit 9\nshift 2\nenv -i "$@"\nexit 0\n')
    job = launch("print('rank', rank)\nif os.environ.get('PATH') is None: sys.exit(3)", per_node=1,
                 starter="pbs_tmrsh,pbsdsh", PATH=path_with(bin_folder))  # fmt: skip
    code, out, err = job.end()
    assert code == 0, err
    assert "pbs_tmrsh failed to start ranks (node1: pbs_tmrsh ended with 254" in err
    assert "trying pbsdsh" in err
    assert out.splitlines()[-1] == "rank 0"


@pytest.mark.slow
def test_the_last_starter_that_fails_ends_the_launch_with_1(launch: Start, bin_folder: Path) -> None:
    program(bin_folder, "pbs_tmrsh", "exit 254\n")
    job = launch("", per_node=1, starter="pbs_tmrsh", PATH=path_with(bin_folder))
    code, _, err = job.end()
    assert code == 1
    assert "lost nodes:" in err.splitlines(), "what never began is not lost: it would fail in every restart"


def test_a_lost_node_is_continued_up_to_max_restarts(step: StepFolder) -> None:
    spec = plan_ranks(RankLayout(1, 1), (), step, (0,), 1)[0]
    lost = Outcome([RankEnd(spec, exit_code=1)], lost_nodes=("n2",), why_lost="its node has not been heard of for 60 s")
    job = Allocation("pbs", "7", 1, ("n1", "n2"), 1)
    assert _will_continue(lost, job, 2) == (
        True,
        "n2 was lost (its node has not been heard of for 60 s); to be continued by the next job, restart 2 of 2",
    )
    assert _will_continue(lost, job, 1) == (False, "restarted 1 times already; raise --max-restarts 1")
    lost.stopped_by = signal.SIGTERM
    assert _will_continue(lost, job, 2) == (False, ""), "qdel is the end"
    assert _will_continue(Outcome([RankEnd(spec, exit_code=1)]), job, 2) == (False, "")


def test_lost_nodes_are_noted_by_job(step: StepFolder) -> None:
    step.path.mkdir(parents=True, exist_ok=True)
    assert read_lost_nodes(step, "7") == []
    note_lost_nodes(step, ["n2", "n3"], "silent", "7", 0)
    note_lost_nodes(step, ["n4"], "silent", "8", 0)
    assert [(row.node, row.restart) for row in read_lost_nodes(step, "7")] == [("n2", 0), ("n3", 0)]
    (step.path / "lost_nodes.jsonl").write_text("not whole\n")
    assert read_lost_nodes(step, "7") == []


def test_openpbs_names_a_node_by_its_line(tmp_path: Path) -> None:
    nodes = tmp_path / "nodes"
    nodes.write_text("n2\nn2\nn1\nn1\n")
    assert pbsdsh_lines({"PBS_NODEFILE": str(nodes)}) == {"n2": 0, "n1": 2}
    assert pbsdsh_lines({"PBS_NODEFILE": str(nodes), "PBS_VNODENUM": "0"}) is None, "Torque's takes a name"
    assert pbsdsh_lines({}) is None
