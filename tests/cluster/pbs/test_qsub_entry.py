"""The scripts in ``pbs/``, submitted by hand: real training on replayed nodes, and what goes on after the walltime."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.clusters.pbs.asked import Asked, asked_of
from jobs.clusters.pbs.dialect import Dialect
from jobs.clusters.pbs.qsub_entry import again_command, run, without_resources
from jobs.planning.resources import read_profile
from segdist.config import ConfigError
from segdist.run.folder import RunFolder

from .conftest import ROOT, Lab

SMALL = (
    "--width 4 --crop 64x128 --val-size 64x128 --batch 4 --epochs 1 --workers 0 --ipex off --precision fp32 "
    "--check headers"
)
SCRIPTS = sorted((ROOT / "pbs").glob("**/*.pbs"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT / "pbs")))
def test_a_script_is_bash_and_each_dialect_takes_its_own(script: Path, lab: Lab) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    openpbs_form = script.parent.name == "openpbs"
    if openpbs_form and lab.torque:
        return  # it would be given one node, in silence
    done = lab.run("qsub", *(["-d", "."] if lab.torque else []), str(script))
    nodes = lab.job(done.stdout.partition(".")[0])["chunks"]
    assert len(nodes) == (1 if "quantize" in script.name else 2)
    assert {chunk["lines"] for chunk in nodes} == {2}


@pytest.mark.slow
def test_training_by_hand_on_two_nodes(lab: Lab, streets: Path) -> None:
    run_folder = RunFolder(lab.work / "runs" / "first")
    words = f"--run {run_folder.path} --data {streets} {SMALL}"
    variables = f"PYTHON={sys.executable},PYTHONPATH={ROOT}"
    if lab.torque:
        options = ["-d", ".", "-l", "nodes=2:gold6128:ppn=1", "-F", words, "-v", variables]
        script = ROOT / "pbs" / "train.pbs"
    else:
        options = ["-l", "select=2:ncpus=1:mpiprocs=1", "-v", f"{variables},ARGS={words}"]
        script = ROOT / "pbs" / "openpbs" / "train.pbs"
    number = lab.run("qsub", *options, str(script)).stdout.partition(".")[0]
    job = lab.wait(number, seconds=150)
    output = "".join(path.read_text() for path in lab.work.glob(f"*.o{number}"))
    assert job["exit_status"] == 0, output
    result = json.loads(run_folder.step("train").result_json.read_text())
    assert result["status"] == "completed"
    assert result["machine"]["ranks"] == 2
    assert result["job"] == {"cluster": "pbs", "id": number, "restart": "0"}
    if lab.namespaces:
        assert result["machine"]["hosts"] == sorted(node["name"] for node in job["nodes"])
    starter = "pbsdsh" if lab.torque else "pbs_tmrsh"
    assert f"ranks are started by {starter}" in output


class Qsub:
    """Answers for qstat and qsub of one job."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.submitted: list[list[str]] = []
        self.made = "Fri Nov 27 09:29:20 2026"

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """One call."""
        if command[0] == "qstat":
            values = {"select": "2:ncpus=4", "place": "scatter", "walltime": "06:00:00", "nodect": 2}
            job = {
                "queue": "workq", "Resource_List": values, "Job_Name": "road", "Account_Name": "a1",
                "Mail_Points": "ae", "Mail_Users": "me@x", "Join_Path": "oe", "Keep_Files": "oed", "Priority": 0,
                "Output_Path": "pbshead:/home/me/out.txt", "Error_Path": "pbshead:/home/me/road.e7",
                "ctime": self.made, "Variable_List": {"PBS_O_HOME": "/home/me", "ODD": "a,b", "SEGDIST_SAVE_MARGIN": 9},
            }  # fmt: skip
            jobs = {"7.pbs": job}
            return subprocess.CompletedProcess(command, 0, json.dumps({"Jobs": jobs}), "")
        self.submitted.append(list(command))
        return subprocess.CompletedProcess(command, self.code, "" if self.code else "8.pbs\n", "qsub: no")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of submission, with a script; qsub says that it is OpenPBS."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jobs.clusters.pbs.qsub_entry.find_dialect", lambda *_: "pbspro")
    (tmp_path / "7.SC").write_text("#!/bin/bash\n#PBS -N x\n#PBS -l select=1\n#PBS -q fast\nrun\n")
    return tmp_path


def launcher(folder: Path, code: int) -> tuple[str, ...]:
    """A launcher that notes what it was given, and ends with that code."""
    text = (
        "import json, os, sys\n"
        "names = ('SEGDIST_JOB_ID', 'SEGDIST_RESTART', 'SEGDIST_JOB_END')\n"
        f"json.dump([sys.argv[1:], [os.environ.get(n) for n in names]], open('seen.json', 'w'))\nsys.exit({code})\n"
    )
    (folder / "launcher.py").write_text(text)
    return sys.executable, str(folder / "launcher.py")


def test_a_job_that_saved_submits_its_continuation_with_the_same_resources_and_options(folder: Path) -> None:
    qsub = Qsub()
    words = ["train", "--run", "runs/a b", "--crop", "64x128,"]
    environ = {"PBS_JOBID": "7.pbs", "PBS_O_HOME": "/home/me", "ODD": "a,b", "SEGDIST_SAVE_MARGIN": "9"}
    assert run(folder / "7.SC", words, environ, qsub, launcher(folder, 75)) == 0
    (command,) = qsub.submitted
    assert command[:3] == ["qsub", "-W", "depend=afterany:7.pbs"]
    assert command[5:-1] == [
        "-l", "select=2:ncpus=4", "-l", "place=scatter", "-l", "walltime=06:00:00", "-q", "workq", "-N", "road",
        "-A", "a1", "-m", "ae", "-M", "me@x", "-j", "oe", "-k", "oed", "-o", "pbshead:/home/me/out.txt",
    ]  # fmt: skip
    assert command[4].endswith(",ODD,SEGDIST_SAVE_MARGIN"), "by name: qsub takes the values from the environment"
    assert Path(command[-1]).read_text() == "#!/bin/bash\n#PBS -N x\nrun\n"
    assert command[4].startswith("SEGDIST_JOB_ID=7,")

    environ = {"PBS_JOBID": "8.pbs", "SEGDIST_JOB_ID": "7"}
    assert run(folder / "8.SC", ["train"], environ, qsub, launcher(folder, 0)) == 0
    given, (first, restart, end) = json.loads((folder / "seen.json").read_text())
    assert given == words
    assert (first, restart) == ("7", "1")
    assert int(end) > 1_700_000_000
    assert (folder / ".segdist-pbs" / "7_jobs").read_text() == "7\n8\n"


def test_a_failure_and_a_refused_continuation_are_not_hidden(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder / "7.SC", ["train"], {"PBS_JOBID": "7.pbs"}, Qsub(), launcher(folder, 3)) == 3
    assert json.loads((folder / "seen.json").read_text())[0] == ["train", "--run", "runs/pbs-7"]
    pauses: list[float] = []
    refused = (Qsub(170), launcher(folder, 75), pauses.append)
    assert run(folder / "7.SC", ["train", "--run=r"], {"PBS_JOBID": "7.pbs"}, *refused) == 1
    assert pauses == [1, 2, 4, 8, 16, 32]
    said = "saved, but cannot be continued by another job (qsub: no); submit it again with the same --run"
    assert said in capsys.readouterr().err
    assert json.loads((folder / "r" / "train" / "result.json").read_text())["error"] == said
    with pytest.raises(ConfigError, match="runs inside a PBS job"):
        run(folder / "7.SC", ["train"], {}, Qsub(), launcher(folder, 0))


def test_what_a_job_has_asked_for_is_read_in_both_dialects() -> None:
    xml = "<Data><Job><Job_Id>8.t</Job_Id><queue>batch</queue><Resource_List><nodect>4</nodect>" \
          "<nodes>4:gold6128:ppn=2</nodes><walltime>06:00:00</walltime></Resource_List><ctime>1700000000</ctime>" \
          "<Variable_List>PBS_O_HOME=/h,A=1,B=2</Variable_List></Job></Data>"  # fmt: skip
    asked = asked_of(xml, "torque", {"A": "1"})
    assert again_command(Path("x.pbs"), asked, "8.t", "8")[5:] == [
        "-l", "nodes=4:gold6128:ppn=2", "-l", "walltime=06:00:00", "-q", "batch", "x.pbs",
    ]  # fmt: skip
    assert (asked.variables, asked.made) == (("A",), "1700000000")
    assert asked_of("no answer", "torque", {}) == Asked()
    assert asked_of("no answer", "pbspro", {}) == Asked()
    assert without_resources("#PBS -l a\n#PBS -N -l\n#PBS -q b\nx -l y\n") == "#PBS -N -l\nx -l y\n"


def test_the_files_of_another_servers_job_of_that_number_are_not_taken(folder: Path) -> None:
    qsub = Qsub()
    for restart in ("0", "1"):  # the server runs it again: its own files
        assert run(folder / "7.SC", ["train"], {"PBS_JOBID": "7.pbs"}, qsub, launcher(folder, 0)) == 0
        assert json.loads((folder / "seen.json").read_text())[1][1] == restart
    qsub.made = "Sat Nov 28 10:00:00 2026"
    assert run(folder / "7.SC", ["train"], {"PBS_JOBID": "7.pbs"}, qsub, launcher(folder, 0)) == 0
    assert json.loads((folder / "seen.json").read_text())[1][1] == "0"


@pytest.mark.parametrize(("name", "dialect"), [("devcloud", "torque"), ("openpbs", "pbspro")])
def test_the_site_profiles_are_read(name: str, dialect: Dialect) -> None:
    assert read_profile(str(ROOT / "pbs" / f"{name}.toml")).dialect == dialect
