"""What /proc says about processes."""

import os
import subprocess
import sys

from segdist.system.procfs import process_start, stat_of


def test_a_living_process_has_a_start_that_stays() -> None:
    assert process_start(os.getpid()) == stat_of(os.getpid())[1] == process_start(os.getpid())


def test_a_zombie_and_a_reaped_process_have_none() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert stat_of(process.pid)[0] == "Z"
        assert process_start(process.pid) is None
    assert process_start(process.pid) is None
