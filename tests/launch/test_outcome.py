"""What the ends of the ranks mean for the launch: its exit code, its message, and whether it goes on later."""

from __future__ import annotations

import signal

from segdist.launch.allocation import THIS_MACHINE
from segdist.launch.outcome import Outcome, RankEnd
from segdist.launch.plan import RankLayout, plan_ranks
from segdist.launch.step import _will_continue
from segdist.run.folder import StepFolder


def test_a_rank_that_dies_of_usr1_before_it_can_save_is_to_be_continued_too(step: StepFolder) -> None:
    spec = plan_ranks(RankLayout(1, 1), (), step, (0,), 1)[0]
    for end in (RankEnd(spec, exit_code=75), RankEnd(spec, signal=signal.SIGUSR1)):
        assert _will_continue(Outcome([end]), THIS_MACHINE, 10)[0]
    for end in (RankEnd(spec, exit_code=1), RankEnd(spec, signal=signal.SIGKILL)):
        assert _will_continue(Outcome([end]), THIS_MACHINE, 10) == (False, "")


def test_outcome_takes_the_code_of_the_first_rank_that_failed(step: StepFolder) -> None:
    first, second = plan_ranks(RankLayout(1, 2), ["train"], step, [0], 29500)
    fine, seven, killed = RankEnd(first), RankEnd(second, exit_code=7), RankEnd(first, signal=9)
    assert Outcome([fine, seven, killed]).exit_code == 7
    assert Outcome([killed, seven]).exit_code == 137
    assert Outcome([fine]).exit_code == 0
    late = Outcome([RankEnd(second, signal=9, late_after=15)], stopped_by=15)
    assert late.exit_code == 143
    assert str(late) == (
        "rank 1 was killed by SIGKILL after the launcher was sent SIGTERM, which the rank did not heed in time"
    )
