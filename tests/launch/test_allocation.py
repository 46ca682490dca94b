"""What a scheduler's environment says about the job: pure functions of recorded variables."""

from __future__ import annotations

import pytest

from segdist.config import ConfigError
from segdist.launch.allocation import THIS_MACHINE, Allocation, expand_hosts, ranks_per_node, slurm_allocation
from segdist.launch.plan import RankLayout, choose_master_port, detect_allocation, plan_ranks, resolve_starter
from segdist.launch.srun import parse_task_ends, srun_command, srun_environment
from segdist.run.folder import RunFolder

BATCH = {
    "SLURM_JOB_ID": "2287208",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_NTASKS_PER_NODE": "3",
    "SLURM_TASKS_PER_NODE": "3(x2)",
    "SLURM_PROCID": "0",
}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ("n1",)),
        ("n[1-3,7]", ("n1", "n2", "n3", "n7")),
        (
            "clx[08-11],gpu-a,c[1-2]n[3,5]",
            ("clx08", "clx09", "clx10", "clx11", "gpu-a", "c1n3", "c1n5", "c2n3", "c2n5"),
        ),
    ],
)
def test_slurms_short_form_of_a_node_list_is_spelled_out(text: str, names: tuple[str, ...]) -> None:
    assert expand_hosts(text) == names


@pytest.mark.parametrize("text", ["", "n[1-", "n1,,n2", "n 1"])
def test_a_node_list_of_another_form_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ConfigError, match="is no list of nodes"):
        expand_hosts(text)


def test_a_batch_script_finds_its_job_nodes_and_ranks_per_node() -> None:
    assert slurm_allocation(BATCH) == Allocation("slurm", "2287208", 0, ("n1", "n2"), 3)
    assert slurm_allocation({**BATCH, "SLURM_RESTART_COUNT": "2"}).restarts == 2
    assert slurm_allocation({}) is None
    assert detect_allocation({}) == THIS_MACHINE


def test_an_array_element_is_called_as_squeue_calls_it() -> None:
    allocation = slurm_allocation({**BATCH, "SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3"})
    assert allocation.job_id == "40_3"
    assert allocation.environment == {
        "SEGDIST_JOB_CLUSTER": "slurm",
        "SEGDIST_JOB_ID": "40_3",
        "SEGDIST_RESTART": "0",
    }


def test_two_jobs_have_two_ports_outside_the_kernels_own_range() -> None:
    ports = {Allocation("slurm", str(job)).port for job in range(2287208, 2287308)}
    assert len(ports) == 100
    assert all(10_000 <= port < 30_000 for port in ports)
    assert choose_master_port({}, Allocation("slurm", "5")) == Allocation("slurm", "5").port
    assert choose_master_port({"MASTER_PORT": "29500"}, Allocation("slurm", "5")) == 29500


def test_a_launcher_started_by_srun_in_every_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"SLURM_STEP_NUM_TASKS=4: srun has started the launcher 4 times"):
        detect_allocation({**BATCH, "SLURM_STEP_NUM_TASKS": "4"})


def test_the_ranks_of_a_slurm_job_are_the_tasks_of_one_srun(tmp_path) -> None:
    allocation = slurm_allocation(BATCH)
    step = RunFolder(tmp_path / "50% off").step("train")
    specs = plan_ranks(RankLayout(2, 3), ("python", "train", "--run", "r"), step, (0,), allocation.port, allocation)
    command = srun_command(specs, allocation.hosts)
    assert command[:6] == [
        *("srun", "--export=ALL", "--nodes=2", "--nodelist=n1,n2", "--ntasks=6", "--ntasks-per-node=3")
    ]
    assert command[-4:] == ["python", "train", "--run", "r"]
    assert f"--output={tmp_path}/50%% off/train/logs/rank%t.log" in command
    assert specs[4].environment["MASTER_ADDR"] == "n1"
    assert specs[4].environment["SEGDIST_JOB_ID"] == "2287208"
    assert (specs[4].ranks.node, specs[4].ranks.local_rank) == (1, 1)
    with pytest.raises(ConfigError, match=r"--nodes 3: job 2287208 has 2 \(n1, n2\)"):
        plan_ranks(RankLayout(3, 1), ("python",), step, (0,), 1, allocation)


def test_a_step_of_one_node_stays_on_the_node_of_the_launcher(tmp_path) -> None:
    allocation = slurm_allocation(BATCH)
    specs = plan_ranks(RankLayout(1, 1), ("python",), RunFolder(tmp_path).step("quantize"), (0,), 1, allocation)
    assert "--nodelist=n1" in srun_command(specs, allocation.hosts)


def test_srun_is_not_told_what_an_outer_allocation_or_sbatch_left_of_tasks_and_memory() -> None:
    left = {"SLURM_MEM_PER_CPU": "300", "SLURM_NTASKS": "1", "SLURM_EXPORT_ENV": "NONE", "RANK": "3", "SUBMITIT_X": "1"}
    own = {"SLURM_JOB_ID": "7", "PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf"}
    found = srun_environment({**left, **own}, {"MASTER_ADDR": "n1", "RANK": "0"})
    assert found == {**own, "MASTER_ADDR": "n1"}


def test_tasks_of_this_job_win_over_those_of_an_allocation_around_it() -> None:
    assert ranks_per_node(slurm_allocation({**BATCH, "SLURM_NTASKS_PER_NODE": "8"})) == 3


def test_nodes_with_different_numbers_of_tasks_are_refused_with_what_to_ask_for() -> None:
    uneven = slurm_allocation({**BATCH, "SLURM_TASKS_PER_NODE": "2(x3),1"})
    with pytest.raises(ConfigError, match=r"SLURM_TASKS_PER_NODE=2\(x3\),1: .* --ntasks-per-node, or give --ranks-per"):
        ranks_per_node(uneven)
    assert ranks_per_node(slurm_allocation({**BATCH, "SLURM_TASKS_PER_NODE": "2(x3),2"})) == 2


def test_without_srun_one_node_starts_here_and_several_are_refused() -> None:
    job = slurm_allocation(BATCH)
    assert resolve_starter("auto", job, 1, {}, lambda _: None)[0] == ("local",)
    assert resolve_starter("auto", job, 2, {}, lambda name: f"/bin/{name}")[0] == ("srun",)
    with pytest.raises(ConfigError, match="srun: is not on PATH, and job 2287208 has ranks on 2 nodes"):
        resolve_starter("auto", job, 2, {}, lambda _: None)


def test_sruns_lines_name_the_ranks_that_failed_and_how(tmp_path) -> None:
    specs = plan_ranks(RankLayout(1, 5), (), RunFolder(tmp_path).step("train"), (0,), 1)

    def read(line: str) -> list[tuple[int, int, int | None]]:
        return [(end.spec.rank, end.exit_code, end.signal) for end in parse_task_ends(line, specs)]

    assert read("srun: error: n2: task 1: Exited with exit code 7") == [(1, 7, None)]
    assert read("srun: error: n2: tasks 0,3-4: Killed") == [(0, 0, 9), (3, 0, 9), (4, 0, 9)]
    assert read("srun: error: n2: task 1: Segmentation fault (core dumped)") == [(1, 0, 11)]
    assert read("srun: error: n2: task 1: Out Of Memory") == [(1, 0, 9)]
    assert read("srun: error: n2: task 1: Exited with exit code 137") == [(1, 0, 9)]
    assert read("srun: error: Node failure on n3") == []
    assert read("srun: launch/slurm: _step_signal: Terminating StepId=2287203.0") == []
