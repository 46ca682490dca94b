"""The report: one self-contained HTML page about one run or several side by side.

::

    python -m segdist.report runs/unet runs/hrnet --out report.html

The files in the run folders are the only source. A step that failed, was skipped or is not whole is named at
the top of the page, and what depends on it says so in its place: a report is needed most when something went
wrong.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from segdist.config import ConfigError, require
from segdist.report import comparison, pictures, svg, text
from segdist.report.runs import EXPECTED, Run, read_runs
from segdist.run.files import write_atomic
from segdist.run.folder import is_run_folder, pixels_of

MAX_SCENES = 6
"""Images shown as overlays, at the most; the page says how many there are."""


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write the page about the run folders ``runs`` to ``out``; the same folders give the same bytes.

    Returns:
        ``out``.

    Raises:
        ConfigError: for no run, a path that is no run folder, one named twice, or a file that cannot be
            written.
    """
    require(bool(runs), "RUN: no run folder was named; give at least one, for example runs/unet")
    for run in runs:
        require(run.is_dir(), f"RUN {str(run)!r}: is no folder; give a run folder, for example runs/unet")
        require(
            is_run_folder(run),
            f"RUN {str(run)!r}: holds no run.json and no step (train, evaluate, quantize); give a run folder",
        )
    resolved = [run.resolve() for run in runs]
    require(len(set(resolved)) == len(runs), f"RUN {' '.join(map(str, runs))}: name each run folder once")
    require(not out.is_dir(), f"--out {str(out)!r}: is a folder; give the name of a file, for example report.html")
    page = _page(read_runs(runs))
    try:
        write_atomic(out, page.encode(errors="replace"))
    except OSError as error:
        raise ConfigError(f"--out {str(out)!r}: cannot be written ({error.strerror}); give another file") from error
    return out


def _page(runs: list[Run]) -> str:
    names = [run.label for run in runs] if len(runs) < 4 else [f"{len(runs)} nets"]
    found = pictures.scenes(runs)
    scenes = sorted(found[:MAX_SCENES], key=lambda scene: scene.place[::-1])
    drawn = [(scene, scene.pair(), scene.rows(runs)) for scene in scenes]
    matrices = comparison.matrices(runs)
    paths = [str(run.folder.path) for run in runs]
    context = {
        "title": " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])),
        "runs": runs,
        "begun": min((str(run.begun) for run in runs if run.begun), default=None),
        "ended": max((str(s.result.ended_at) for r in runs for s in r.steps if s.result.ended_at), default=None),
        "problems": [(run, problem) for run in runs for problem in run.problems],  # after the pictures add theirs
        "groups": list(text.groups(runs)),
        "latency": text.latency_notes(runs),
        "speed_notes": text.speed_notes(runs),
        "curves": pictures.curves(runs),
        "ious": pictures.class_ious(runs),
        "panels": comparison.panels(runs),
        "scatter": comparison.scatter(runs),
        "matrices": matrices,
        "scenes": drawn,
        "scene_count": len(found),
        "expected": EXPECTED,
        "trained_by": text.commands(*((run, run.first("train")) for run in runs if run.epochs)),
        "evaluated_by": text.commands(*((run, run.evaluation(p)) for run in runs for p in EXPECTED)),
        "page_by": shlex.join(["python", "-m", "jobs.collect", *paths, "--format", "html", "--out", "report.html"]),
        "legends": pictures.legends(runs),
        "machine": text.grouped(runs, lambda step: step.result.machine),
        "decisions": text.grouped(runs, lambda step: step.result.decisions),
        "versions": text.grouped(runs, lambda step: step.result.versions),
        "colors": svg.COLORS,
    }
    filters: list[Callable[..., Any]] = [text.percent, text.digits, text.times, text.points, text.drop, text.seconds]
    filters += [text.moment, text.size, pixels_of, text.clean, text.ratio, text.sentence, text.goal, pictures.trials]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {function.__name__: function for function in filters}
    template = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(context)
