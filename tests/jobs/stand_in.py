"""Stands in for ``segdist.launch`` and the tasks: real processes, signals and files, but no tensor.

``STAND_IN`` in the environment says how a step behaves: ``"train=hang quantize=miss"``; one that is not named
succeeds. The step that reports is named ``report``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from segdist.run.files import append_json_line
from segdist.run.folder import RunFolder, StepFolder
from segdist.run.result import Result, utc_now

FIRST_EPOCH = {"epoch": 1, "val_loss": 1.25, "miou_pct": 31.5}


def launch(argv: list[str]) -> int:
    """Start the ranks, pass TERM on to them, and exit with the first bad code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--ranks-per-node", type=int, required=True)
    parser.add_argument("task")
    parser.add_argument("--config", required=True)
    args = parser.parse_args(argv)
    config = json.loads(Path(args.config).read_text())
    folder = RunFolder(config["run"]).step(args.task, config.get("name"))
    print(f"launching {args.nodes * args.ranks_per_node} ranks")
    if _behaviour(folder.name) == "bad launch":
        print("error: no such interface")
        return 2
    ranks: list[subprocess.Popen[bytes]] = []
    signal.signal(signal.SIGTERM, lambda number, frame: [rank.terminate() for rank in ranks] and None)
    for rank in range(args.nodes * args.ranks_per_node):
        with folder.rank_log(rank).open("ab") as log:
            command = [sys.executable, __file__, "rank", str(rank), args.task, args.config]
            ranks.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
    codes = [rank.wait() for rank in ranks]
    code = next((code for code in codes if code), 0)
    if code:
        print(f"rank {codes.index(code)} ended with {code}")
    return code if code >= 0 else 128 - code


def rank(number: int, task: str, config_file: str) -> int:
    """One rank of a step, as its behaviour has it."""
    config = json.loads(Path(config_file).read_text())
    folder = RunFolder(config["run"]).step(task, config.get("name"))
    behaviour = _behaviour(folder.name)
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, _stop)
    print(f"rank {number} of {folder.name} begins", flush=True)
    if task == "train" and number == 0:
        append_json_line(folder.metrics_jsonl, FIRST_EPOCH)
    while behaviour in ("hang", "deaf") or (behaviour == "gate" and not (folder.path / "gate").exists()):
        time.sleep(0.02)
    print(f"rank {number} of {folder.name} ends", flush=True)
    if behaviour == "crash":
        raise RuntimeError("tensor of the wrong shape")
    if number == 0 and behaviour != "silent":
        _finish(folder, behaviour, config)
    if behaviour == "late crash" and number == 1:
        time.sleep(0.2)
        return 1
    return {"fail": 2, "miss": 3}.get(behaviour, 0)


def report(argv: list[str]) -> int:
    """Write a page."""
    run = Path(argv[0])
    (run / "report.html").write_text(" ".join(argv))
    return 5 if _behaviour("report") == "fail" else 0


def _behaviour(step: str) -> str:
    wanted = dict(pair.split("=") for pair in os.environ.get("STAND_IN", "").split(";") if pair)
    return wanted.get(step, "")


def _stop(number: int, frame: FrameType | None) -> None:
    print("asked to stop", flush=True)
    sys.exit(128 + number)


def _finish(folder: StepFolder, behaviour: str, config: dict[str, object]) -> None:
    errors = {"fail": "error: label 77 is not known", "miss": "MISSED the goal by 2.1 points"}
    error = errors.get(behaviour)
    job = {"cluster": os.environ["SEGDIST_JOB_CLUSTER"], "id": os.environ["SEGDIST_JOB_ID"]}
    result = Result(folder.task, folder.name, "failed" if error else "completed", utc_now(), utc_now(), 1.0, error)
    metrics: dict[str, object] = {"miou_pct": 52.0}
    if folder.task == "train":
        run = RunFolder(str(config["run"]))
        run.model_pt.write_bytes(b"weights")
        metrics |= {"submitit": [key for key in os.environ if key.startswith("SUBMITIT_")]}
    folder.write_result(dataclasses.replace(result, metrics=metrics, job=job))


if __name__ == "__main__":
    if sys.argv[1] == "rank":
        sys.exit(rank(int(sys.argv[2]), sys.argv[3], sys.argv[4]))
    sys.exit(report(sys.argv[2:]) if sys.argv[1] == "report" else launch(sys.argv[1:]))
