"""What qstat says, in every case that was seen on real servers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.clusters.pbs.continuation import Continuation, query_continuations
from jobs.clusters.pbs.qstat import query
from jobs.clusters.pbs.states import JobState, pbspro_state, read_jobs, torque_state
from segdist.launch.pbs_job import short_id


class Server:
    """Answers in turn: (exit code, stdout, stderr)."""

    def __init__(self, *answers: tuple[int, str, str]) -> None:
        self.answers = list(answers)
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """One call."""
        self.commands.append(list(command))
        return subprocess.CompletedProcess(command, *self.answers.pop(0))


def document(**jobs: dict[str, object]) -> str:
    """OpenPBS' JSON; with no job it has no ``Jobs``."""
    named = {
        f"{name.lstrip('j').replace('_', '[', 1) + (']' if '_' in name else '')}.pbs": v for name, v in jobs.items()
    }
    return json.dumps({"pbs_version": "23.06.06", **({"Jobs": named} if named else {})})


def finished(substate: int, status: int | None) -> dict[str, object]:
    """An entry in state F."""
    return {"job_state": "F", "substate": substate, **({} if status is None else {"Exit_status": status})}


@pytest.mark.parametrize(
    ("substate", "status", "word", "text"),
    [
        (92, 0, "COMPLETED", ""),
        (93, 3, "FAILED", "exit code 3"),
        (93, 265, "FAILED", "killed by signal 9"),
        (93, 254, "FAILED", "could not be executed"),
        (91, 271, "CANCELLED", "deleted"),
        (91, 0, "CANCELLED", "deleted"),
        (93, 271, "CANCELLED", "deleted"),
        (93, -29, "TIMEOUT", "walltime exceeded"),
        (93, -14, "NODE_FAIL", "a node was lost"),
        (93, -20, "NODE_FAIL", "a node was lost"),
        (93, -5, "FAILED", "the server could not run it"),
        (92, None, "CANCELLED", "never ran"),
    ],
)
def test_every_end_of_an_openpbs_job(substate: int, status: int | None, word: str, text: str) -> None:
    state = pbspro_state(finished(substate, status))
    assert (state.word, state.ended) == (word, True)
    assert text in state.text


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("0", "COMPLETED"),
        ("7", "FAILED"),
        ("137", "FAILED"),
        ("271", "CANCELLED"),
        ("-11", "TIMEOUT"),
        ("", "CANCELLED"),
    ],
)  # fmt: skip
def test_every_end_of_a_torque_job(status: str, word: str) -> None:
    assert torque_state({"job_state": "C", "exit_status": status}).word == word


@pytest.mark.parametrize(
    ("letter", "word"),
    [("Q", "PENDING"), ("H", "PENDING"), ("W", "PENDING"), ("R", "RUNNING"), ("B", "RUNNING"), ("S", "RUNNING"),
     ("E", "COMPLETING"), ("?", "UNKNOWN")],
)  # fmt: skip
def test_an_exit_status_counts_in_a_final_state_only(letter: str, word: str) -> None:
    # A requeued job in Q still carries that of its first run; state E has one already.
    assert pbspro_state({"job_state": letter, "Exit_status": -20}).word == word
    assert torque_state({"job_state": letter, "exit_status": "271"}).word == word


def test_why_a_job_waits_is_told() -> None:
    assert pbspro_state({"job_state": "Q", "comment": "Can Never Run: too many"}).text == "Can Never Run: too many"


def test_ids_have_servers_and_brackets() -> None:
    names = ("2.pbs", "47[3].pbs", "47[].pbs", "8-1.torque", "2451912.v-qsvr-1.aidevcloud")
    assert [short_id(name) for name in names] == ["2", "47_3", "47", "8_1", "2451912"]


def test_numbers_in_the_json_do_no_harm() -> None:
    text = document(j2={"job_state": "R", "Variable_List": {"A": 7}, "exec_host": "n1/0", "run_count": 2})
    assert read_jobs(text, "pbspro") == {"2": JobState("RUNNING", "", None, "n1", None, 2)}


def test_all_jobs_are_asked_for_in_one_call() -> None:
    server = Server((0, document(j2={"job_state": "R"}, j47_3=finished(92, 0)), ""))
    states = query(["2", "47_3"], "pbspro", server)
    assert [state.word for state in states.values()] == ["RUNNING", "COMPLETED"]
    assert server.commands == [["qstat", "-x", "-f", "-F", "json", "2", "47[3]"]]


def test_an_unknown_id_spoils_the_answer_for_itself_only() -> None:
    server = Server((153, document(j2={"job_state": "R"}), "qstat: Unknown Job Id 99.pbs\n"))
    states = query(["2", "99", "100"], "pbspro", server)
    assert {one: state.word for one, state in states.items()} == {"2": "RUNNING", "99": "GONE", "100": "UNKNOWN"}


def test_a_server_that_is_down_is_unknown_although_its_json_is_valid() -> None:
    server = Server((255, document(), "qstat: cannot connect to server pbshead (errno=15010)"))
    state = query(["2"], "pbspro", server)["2"]
    assert (state.word, state.ended) == ("UNKNOWN", False)
    assert "cannot connect" in state.text


def test_a_server_that_dies_while_it_answers_is_not_believed() -> None:
    server = Server((255, document(j2=finished(93, 1)), "errno=15010"))
    assert query(["2"], "pbspro", server)["2"].word == "UNKNOWN"


def test_a_server_without_history_is_asked_for_what_it_knows() -> None:
    server = Server(
        (0, document(), "qstat: PBS is not configured to maintain job history"),
        (153, document(j2={"job_state": "R"}), "qstat: Unknown Job Id 1.pbs"),
    )
    states = query(["1", "2"], "pbspro", server)
    assert [state.word for state in states.values()] == ["GONE", "RUNNING"]
    assert server.commands[1] == ["qstat", "-f", "-F", "json", "1", "2"]


def test_torque_without_its_client_daemon_fails_with_exit_code_0_and_is_unknown() -> None:
    server = Server((0, "", "Error in connection to trqauthd (15137)"))
    state = query(["2"], "torque", server)["2"]
    assert (state.word, state.text) == ("UNKNOWN", "Error in connection to trqauthd (15137)")


def test_torque_may_answer_with_a_document_for_each_id() -> None:
    one = "<Data><Job><Job_Id>{}.t</Job_Id><job_state>C</job_state><exit_status>0</exit_status></Job></Data>"
    server = Server((0, f"<?xml version='1.0'?>{one.format('8[0]')}\n{one.format('9')}", ""))
    assert {k: s.word for k, s in query(["8_0", "9"], "torque", server).items()} == {
        "8_0": "COMPLETED",
        "9": "COMPLETED",
    }


def continuation(folder: Path, jobs: str = "", code: str = "") -> Continuation:
    """A job's files."""
    if jobs:
        (folder / "2_jobs").write_text(jobs)
    if code:
        (folder / "2_exit").write_text(code)
    return Continuation(folder, "2")


def test_a_job_that_has_left_history_is_decided_by_its_marker(tmp_path: Path) -> None:
    gone = (153, document(), "qstat: Unknown Job Id 2.pbs")
    one = continuation(tmp_path)
    assert query_continuations([one], "pbspro", Server(gone))["2"].word == "GONE"
    continuation(tmp_path, code="0\n")
    assert query_continuations([one], "pbspro", Server(gone))["2"].word == "COMPLETED"
    continuation(tmp_path, code="3\n")
    assert query_continuations([one], "pbspro", Server(gone))["2"].word == "FAILED"


def test_a_deletion_that_raced_with_the_end_was_none_where_the_marker_says_so(tmp_path: Path) -> None:
    # One of eight deleted jobs was recorded as 92/0; its script had not reached its end.
    one = continuation(tmp_path, code="5\n")
    assert query_continuations([one], "pbspro", Server((0, document(j2=finished(92, 0)), "")))["2"].word == "FAILED"


def test_a_job_that_has_not_begun_its_work_waits(tmp_path: Path) -> None:
    # Its script looks first whether what it waits for goes on in another job.
    one = continuation(tmp_path, jobs="2\n")
    assert query_continuations([one], "pbspro", Server((0, document(j2={"job_state": "R"}), "")))["2"].word == "PENDING"
    (tmp_path / "2_starts").write_text("2\n")
    assert query_continuations([one], "pbspro", Server((0, document(j2={"job_state": "R"}), "")))["2"].word == "RUNNING"


def test_a_continued_job_is_what_its_last_job_is(tmp_path: Path) -> None:
    one = continuation(tmp_path, jobs="2\n17\n")
    (tmp_path / "2_starts").write_text("2\n17\n")
    server = Server((0, document(j17={"job_state": "R"}), ""))
    assert query_continuations([one], "pbspro", server)["2"].word == "RUNNING"
    assert server.commands[0][-1] == "17"


def test_a_job_that_ends_while_it_is_continued_has_not_ended(tmp_path: Path) -> None:
    one = continuation(tmp_path, jobs="2\n")

    def server(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        (tmp_path / "2_jobs").write_text("2\n17\n")
        return subprocess.CompletedProcess(command, 0, document(j2=finished(92, 0)), "")

    state = query_continuations([one], "pbspro", server)["2"]
    assert (state.word, state.text) == ("PENDING", "continued by job 17")
