"""Ranks without a tensor, under the real launcher: ``stand_in.py launch …`` stands for ``python -m segdist.launch``.

A file ``stand_in.json`` in the working folder says how each task behaves: ``{"train": "save"}``; others succeed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from segdist.run.folder import RunFolder
from segdist.run.result import Result, job_of, utc_now


def rank(task: str, config_file: str) -> int:
    """One rank: says who it is, behaves, and as rank 0 leaves a result."""
    config = json.loads(Path(config_file).read_text())
    folder = RunFolder(config["run"]).step(task, config.get("name"))
    number, restart = int(os.environ["RANK"]), int(os.environ["SEGDIST_RESTART"])
    wanted = json.loads(Path("stand_in.json").read_text()) if Path("stand_in.json").exists() else {}
    how = wanted.get(folder.path.relative_to(config["run"]).as_posix(), "")
    asked: list[int] = []
    for name in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(name, lambda n, _: asked.append(n))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))  # kept for it until now, as for a real rank
    print(json.dumps({"rank": number, "node": os.environ.get("PBS_NODENUM"), "master": os.environ["MASTER_ADDR"],
                      "venv": os.environ.get("VIRTUAL_ENV"), "cwd": str(Path.cwd()), "restart": restart,
                      "job": os.environ["SEGDIST_JOB_ID"], "pid": os.getpid()}), flush=True)  # fmt: skip
    (folder.logs / f"begun{number}.{restart}").touch()
    while how in ("hang", "deaf") or (how in ("save", "neighbour") and restart == 0):
        time.sleep(0.05)
        if how == "neighbour" and Path("neighbour is gone").exists():
            print("error: connection closed by peer")
            return 1
        if signal.SIGTERM in asked and how != "deaf":
            return 143
        if signal.SIGUSR1 in asked and how != "deaf":
            return 75
    if how == "fail" and number == 1:
        print("error: label 77 is not known")
        return 7
    if number == 0:
        if task == "train":
            RunFolder(config["run"]).model_pt.write_bytes(b"weights")
        result = Result(task, folder.name, "completed", utc_now(), utc_now(), 1.0, metrics={"miou_pct": 52.0})
        folder.write_result(Result(**{**vars(result), "job": job_of(os.environ)}))
    return 0


def main(words: list[str]) -> int:
    """``rank …``, ``launch …`` or ``report RUN …``."""
    if words[0] == "rank":
        return rank(words[1], words[3])
    if words[0] == "report":
        Path(words[1], "report.html").write_text("report")
        return 0
    from segdist.launch.__main__ import main as launch

    return launch(words[1:], (sys.executable, __file__, "rank"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
