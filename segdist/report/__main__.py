"""``python -m segdist.report RUN… --out FILE``: write the report of one run or several."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from segdist.cli import parse, run_command
from segdist.config import PathText
from segdist.report.page import write_report


@dataclass(frozen=True)
class ReportConfig:
    """Write one self-contained HTML page about one run or several side by side."""

    runs: tyro.conf.Positional[tuple[PathText, ...]]
    """Run folders, each one net of the page."""
    out: PathText
    """HTML file to write."""


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m segdist.report RUN… --out FILE``: write the page and print where it is."""

    def body() -> None:
        config = parse(ReportConfig, sys.argv[1:] if argv is None else argv, "python -m segdist.report")
        print(write_report([Path(run) for run in config.runs], Path(config.out)))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
