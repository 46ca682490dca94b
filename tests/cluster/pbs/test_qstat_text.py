"""OpenPBS' answers that are no JSON: each job is read by itself, and none hides another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import status
from jobs.clusters.pbs.qstat import query
from jobs.clusters.pbs.qstat_text import read_json, read_text
from jobs.clusters.pbs.states import host_names, torque_state

from .login import PBSPRO, Login
from .test_states import Server

# As OpenPBS 23.06.06 printed it for `qsub -v 'B=nan,…' -o '/home/dev/odd back\slash'`.
ODD = r"""{
    "timestamp":1795770317,
    "pbs_version":"23.06.06",
    "Jobs":{
        "3.pbshead":{
            "Job_Name":"odd",
            "resources_used":{
                "walltime":"00:00:01"
            },
            "job_state":"F",
            "exec_host":"n1/1",
            "Output_Path":"pbshead:/home/dev/odd back\slash",
            "substate":92,
            "Variable_List":{
                "A":"007",
                "B":nan,
                "C":-inf,
                "D":.5,
                "F":+5,
                "G":1.,
                "H":"a\\\\b",
                "we"ird":"{",
                "Z":"}"
            },
            "Exit_status":0,
            "Submit_arguments":"-v A=x\\y\ -v \"q\" -v end\"
        },
        "4[2].pbshead":{
            "job_state":"R",
            "exec_host":"n3/0+n2/0*4"
        }
    }
}
"""
TEXT = """Job Id: 3.pbshead
    Job_Name = odd
    resources_used.walltime = 00:00:07
    job_state = R
    exec_host = n1/0+n2/0
    Variable_List = PBS_O_HOME=/home/dev,
\tPBS_O_PATH=/usr/bin:/opt/segdist-l
\tab/openpbs/bin
    run_count = 2
"""


def test_an_odd_value_hides_neither_its_own_job_nor_another() -> None:
    with pytest.raises(ValueError, match="."):
        json.loads(ODD)
    jobs = read_json(ODD) or {}
    odd, other = jobs["3.pbshead"], jobs["4[2].pbshead"]
    assert (odd["job_state"], odd["substate"], odd["Exit_status"]) == ("F", 92, 0)
    assert odd["Output_Path"] == "pbshead:/home/dev/odd back\\slash"
    assert odd["Submit_arguments"] == '-v A=x\\y\\ -v "q" -v end\\'
    values = odd["Variable_List"]
    assert [values[name] for name in "ABCDFGHZ"] == ["007", "nan", "-inf", ".5", "+5", "1.", "a\\\\b", "}"]
    assert values['we"ird'] == "{"
    assert other == {"job_state": "R", "exec_host": "n3/0+n2/0*4"}
    states = query(["3", "4_2"], "pbspro", Server((0, ODD, "")))
    assert {one: (state.word, state.hosts) for one, state in states.items()} == {
        "3": ("COMPLETED", "n1"), "4_2": ("RUNNING", "n3,n2"),
    }  # fmt: skip


def test_a_job_that_cannot_be_read_is_looked_up_in_the_plain_text() -> None:
    unreadable = ODD.replace('"job_state":"F"', '"job_st\nate":"F"')
    server = Server((0, unreadable, ""), (0, TEXT, ""))
    states = query(["3", "4_2"], "pbspro", server)
    assert (states["3"].word, states["3"].hosts, states["3"].elapsed_s, states["3"].runs) == ("RUNNING", "n1,n2", 7, 2)
    assert states["4_2"].word == "RUNNING"
    assert server.commands[1] == ["qstat", "-x", "-f", "3"]
    silent = Server((0, unreadable, ""), (255, "", "cannot connect"))
    assert query(["3", "4_2"], "pbspro", silent)["3"].word == "UNKNOWN"


def test_plain_text_folds_long_values() -> None:
    values = read_text(TEXT)["3.pbshead"]
    assert values["Variable_List"] == "PBS_O_HOME=/home/dev,PBS_O_PATH=/usr/bin:/opt/segdist-lab/openpbs/bin"
    assert values["resources_used"] == {"walltime": "00:00:07"}


def test_hosts_are_names_and_torque_says_for_how_long() -> None:
    assert host_names("n3/0-1+n2/0-1+n3/2") == "n3,n2"
    running = {"job_state": "R", "exec_host": "n3/0-1+n2/0-1", "start_time": "1000"}
    state = torque_state(running, now=lambda: 1090.0)
    assert (state.hosts, state.elapsed_s) == ("n3,n2", 90.0)
    assert torque_state({**running, "job_state": "Q"}, now=lambda: 1090.0).elapsed_s is None
    ended = {**running, "job_state": "C", "exit_status": "0", "comp_time": "1030"}
    assert torque_state(ended, now=lambda: 1090.0).elapsed_s == 30.0


@PBSPRO
def test_status_sees_a_job_beside_one_with_odd_values(login: Login, capsys: pytest.CaptureFixture[str]) -> None:
    login.lab.qsub("sleep 1", "-v", "B=nan,C=.5", "-N", r"back\slash")
    run = login.submit("train", how={"train": "hang"})
    login.begun(run, ranks=1)
    record = login.lab.job("2")
    record["submit_arguments"] = r"-o odd\path"
    (login.lab.folder / "jobs" / "2.json").write_text(json.dumps(record))
    assert r"odd\path" in login.lab.run("qstat", "-x", "-f", "-F", "json").stdout
    assert login.states(run) == {"train": "running"}
    assert status.main([str(run)]) == 0
    out = capsys.readouterr().out
    assert f" {login.lab.job('2')['nodes'][0]['name']} " in out
    assert "/0" not in out


def test_the_dialect_of_the_profile_holds_where_qsub_says_nothing_known(login: Login) -> None:
    profile = login.folder / "site.toml"
    profile.write_text(f'dialect = "{login.lab.dialect}"\n')
    qsub = Path(login.lab.bin / "qsub")
    real = qsub.resolve()
    qsub.unlink()
    qsub.write_text(f'#!/bin/sh\n[ "$1" = --version ] && {{ echo "Site PBS 7"; exit 0; }}\nexec {real} "$@"\n')
    qsub.chmod(0o755)
    run = login.submit("train", "--profile", str(profile), how={"train": "hang"})
    login.begun(run, ranks=1)
    assert login.states(run) == {"train": "running"}
    from jobs import cancel

    assert cancel.main([str(run)]) == 0
    assert login.states(run) == {"train": "failed"}
