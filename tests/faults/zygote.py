"""Starts ranks quickly: it imports torch once, then forks a rank for each request; a script for conftest.py.

Requests and answers are lines of JSON: ``{"start": [argv], "env": {}, "log": path, "faults": [...]}`` → ``{"pid": n}``;
``{"wait": pid}`` → ``{"status": n}``, negative for a signal. A fault is put in place in the rank before it runs, so the
suite itself knows nothing of faults.
"""

import ctypes
import datetime
import errno
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch._dynamo  # noqa: F401, the optimizers import it late, for 3 s
import tyro  # noqa: F401

import segdist.__main__
import segdist.data.cityscapes
import segdist.tasks.frame
import segdist.training.checkpoint_file
import segdist.training.step
from segdist.system.signals import StopFlag
from segdist.training.loss import PixelCrossEntropy


def die_now():
    os.kill(os.getpid(), signal.SIGKILL)


def at_the_nth_call(owner, name, count, act):
    """Replace ``owner.name`` by one that calls ``act`` before its ``count``-th call (from 1)."""
    original, calls = getattr(owner, name), 0

    def counting(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == count:
            act()
        return original(*arguments, **options)

    setattr(owner, name, counting)


def fail_with(number):
    def fail():
        raise OSError(number, os.strerror(number))

    return fail


def raise_error(text):
    raise ValueError(text)


def signal_self(name):
    return lambda: os.kill(os.getpid(), getattr(signal, name))


def stop_self(name):
    """Send a signal to this rank, and go on once it has been taken note of."""
    noted = threading.Event()
    original = StopFlag.handle

    def handle(flag, number):
        original(flag, number)
        noted.set()

    StopFlag.handle = handle

    def act():
        os.kill(os.getpid(), getattr(signal, name))
        noted.wait()

    return act


def hang_when_written():
    """Stand still, with nothing half written."""
    for thread in threading.enumerate():
        if thread.name == "writer":
            thread.join()
    os.kill(os.getpid(), signal.SIGSTOP)


ACTS = {
    "die": lambda _: die_now,
    "stop": stop_self,
    "hang": lambda _: signal_self("SIGSTOP"),
    "hang when written": lambda _: hang_when_written,
    "fail": lambda name: fail_with(getattr(errno, name)),
    "raise": lambda text: lambda: raise_error(text),
    "wait": lambda seconds: lambda: time.sleep(seconds),
}
PLACES = {
    "step": (segdist.training.step.TrainStep, "__call__"),  # before the step's forward pass
    "agree": (segdist.training.step.TrainStep, "_begin_stats"),  # between forward and backward pass
    "write": (segdist.training.checkpoint_file._Hashing, "write"),  # in the middle of a checkpoint's file
    "fsync": (os, "fsync"),
    "replace": (Path, "replace"),  # before a finished file gets its name
    "link": (os, "link"),
    "image": (segdist.data.cityscapes.WholeImages, "__getitem__"),
}


def make_not_finite(counts):
    """Give the losses of those steps (from 1) no finite value; what the net keeps of the step is spoilt as well."""
    original, calls = PixelCrossEntropy.cross_entropy, 0

    def spoilt(self, logits, labels):
        nonlocal calls
        calls += 1
        return original(self, logits * float("nan") if calls in counts else logits, labels)

    PixelCrossEntropy.cross_entropy = spoilt


def set_clock(seconds):
    """Let this rank's clock of the day be wrong by so much."""
    now = time.time
    time.time = lambda: now() + seconds

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(seconds=seconds)

    datetime.datetime = Clock


def put_in_place(faults):
    counts = [fault["count"] for fault in faults if fault["place"] == "loss"]
    if counts:
        make_not_finite(counts)
    for fault in faults:
        if fault["place"] == "loss":
            continue
        if fault["place"] == "clock":
            set_clock(fault["with"])
            continue
        owner, name = PLACES[fault["place"]]
        at_the_nth_call(owner, name, fault["count"], ACTS[fault.get("act", "die")](fault.get("with")))


def rank(request):
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # die with the zygote
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(request["env"])
    put_in_place(request.get("faults", []))
    return segdist.__main__.main(request["start"])


def main():
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = rank(request)
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            answer = {"pid": pid}
        else:
            answer = {"status": os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
