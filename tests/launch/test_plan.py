"""What a launch starts: every rank with its command, environment and cores; and the rendezvous' port."""

from __future__ import annotations

import inspect
import sys

import pytest

from segdist.config import ConfigError
from segdist.launch.__main__ import main
from segdist.launch.plan import RANK_COMMAND, RankLayout, choose_master_port, plan_ranks
from segdist.run.folder import StepFolder


def test_plan_numbers_ranks_node_by_node_and_gives_each_node_its_own_cores(step: StepFolder) -> None:
    specs = plan_ranks(RankLayout(2, 2), ["program", "train", "--epochs", "3"], step, [0, 2, 4, 6], 29500)

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
    (spec,) = plan_ranks(RankLayout(1, 1), (*RANK_COMMAND, "train"), step, [0], 29500)
    assert spec.argv == (sys.executable, "-m", "segdist", "train")
    assert inspect.signature(main).parameters["rank_command"].default == RANK_COMMAND


def test_plan_gives_every_node_a_core_where_there_are_too_few(step: StepFolder) -> None:
    specs = plan_ranks(RankLayout(3, 1), ["train"], step, [5, 7], 29500)
    assert [spec.cores for spec in specs] == [(5,), (5,), (7,)]


@pytest.mark.parametrize(("nodes", "ranks", "named"), [(0, 1, "--nodes 0"), (1, -1, "--ranks-per-node -1")])
def test_a_layout_of_less_than_one_is_refused(nodes: int, ranks: int, named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{named}: must be at least 1; give 1 or more$"):
        RankLayout(nodes, ranks)


def test_master_port_is_inherited_or_free() -> None:
    assert choose_master_port({"MASTER_PORT": "29555"}) == 29555
    assert 1024 <= choose_master_port({}) <= 65535
    assert choose_master_port({}, free_port=lambda: 12345) == 12345


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", ""])
def test_master_port_must_be_a_port(text: str) -> None:
    with pytest.raises(ConfigError, match=f"^MASTER_PORT='{text}': must be a port from 1 to 65535; unset it"):
        choose_master_port({"MASTER_PORT": text})


def test_far_too_many_ranks_are_refused_before_they_are_planned():
    with pytest.raises(ConfigError, match="--nodes 99999999999 --ranks-per-node 1: more than 65536 ranks"):
        RankLayout(99999999999, 1)
