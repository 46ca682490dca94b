"""A signal sets a flag, at once, also while the process waits inside native code; a second Ctrl-C ends it."""

import signal
import subprocess
import sys

import pytest

CODE = """
import sys, time
from segdist.system.signals import StopFlag
flag = StopFlag().install()
print("ready", flush=True)
while not flag:
    time.sleep(0.01)
print(flag.signal.name, flush=True)
sys.stdin.read()  # the main thread now waits in the kernel
print("went on", flush=True)
"""


@pytest.fixture
def process():
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout.readline() == "ready\n"
        yield one
        one.kill()


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM", "SIGINT"])
def test_a_signal_sets_the_flag_and_the_process_goes_on(process, name):
    process.send_signal(getattr(signal, name))
    assert process.stdout.readline() == f"{name}\n"
    assert process.communicate("")[0] == "went on\n"
    assert process.returncode == 0


@pytest.mark.parametrize(("first", "second"), [("SIGINT", "SIGINT")])
def test_a_second_interrupt_ends_at_once(process, first, second):
    process.send_signal(getattr(signal, first))
    assert process.stdout.readline() == f"{first}\n"
    process.send_signal(getattr(signal, second))
    assert process.wait(20) == 128 + getattr(signal, second)


def test_usr1_may_come_often_and_does_not_count_as_the_first_of_two(process):
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "SIGUSR1\n"
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    assert process.communicate("")[0] == "went on\n"
