"""Rank, world and local rank from every launcher's environment."""

import pytest

from segdist.system.ranks import RankError, Ranks, detect_ranks, rank_environment

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "2"}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "7",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
PMI = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
SUBMITIT = {
    "SUBMITIT_LOCAL_GLOBALID": "1",
    "SUBMITIT_LOCAL_LOCALID": "1",
    "SUBMITIT_LOCAL_NTASKS": "2",
    "SUBMITIT_LOCAL_NODEID": "0",
}
PBS = {"PBS_TASKNUM": "4", "PBS_NP": "4", "PBS_NUM_PPN": "2", "PBS_NODENUM": "1"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Ranks()),
        (TORCHRUN, Ranks(5, 8, 1, 2, 2, "torchrun")),
        (SLURM, Ranks(5, 7, 1, 2, 2, "Slurm")),
        (
            {**SLURM, "SLURM_PROCID": "6", "SLURM_LOCALID": "0", "SLURM_NODEID": "3"},
            Ranks(6, 7, 0, 1, 3, "Slurm"),
        ),
        (OPEN_MPI, Ranks(3, 4, 1, 2, 0, "Open MPI")),
        (PMI, Ranks(3, 4, 1, 2, 0, "MPI (PMI)")),
        (SUBMITIT, Ranks(1, 2, 1, 2, 0, "submitit")),
        (PBS, Ranks(3, 4, 1, 2, 1, "PBS")),
    ],
)
def test_each_launcher(environ, expected):
    assert detect_ranks(environ) == expected


def test_what_started_the_process_comes_before_the_scheduler_around_it():
    assert detect_ranks({**SLURM, **PBS, **OPEN_MPI, **TORCHRUN}).source == "torchrun"
    assert detect_ranks({**SLURM, **OPEN_MPI}).source == "Open MPI"


def test_a_batch_script_is_a_single_process():
    script = {name: value for name, value in SLURM.items() if not name.startswith("SLURM_STEP")}
    assert detect_ranks(script) == Ranks()
    assert detect_ranks({"PBS_JOBID": "2.head", "PBS_NODENUM": "0", "PBS_TASKNUM": "1"}) == Ranks()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"RANK": "1"}, "torchrun: RANK=1 is set, but WORLD_SIZE is not; set both, or unset RANK"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK='x': must be a whole number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank 2 of 2"),
        (
            {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "two"},
            "SLURM_STEP_TASKS_PER_NODE='two': must list the tasks of node 2",
        ),
        ({**SLURM, "SLURM_NODEID": "9"}, "must list the tasks of node 9"),
    ],
)
def test_an_environment_that_cannot_be_is_refused(environ, message):
    with pytest.raises(RankError, match=message.replace("(", r"\(")):
        detect_ranks(environ)


def test_what_the_launcher_writes_is_read_back():
    ranks = Ranks(5, 8, 1, 2, 2, "torchrun", "n1")
    assert detect_ranks(rank_environment(ranks, 29500)) == ranks
