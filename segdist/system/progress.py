"""Progress of long work: a bar on a terminal, plain lines in a log file; from rank 0 only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

LINE_EVERY_S = 10.0


class Progress:
    """Counts up to ``total`` steps; use it as a context.

    On a terminal it is a tqdm bar. Elsewhere it prints at most one line in ten seconds; what ends sooner prints none.
    As often it calls ``report``, where there is one, with the count, the note and the seconds that each one takes.
    """

    def __init__(
        self,
        desc: str,
        total: int,
        shown: bool,
        stream: TextIO | None = None,
        report: Callable[[int, str, float], None] | None = None,
    ) -> None:
        self.desc = desc
        self.total = total
        self.shown = shown
        self.done = 0
        self._report = report
        self._stream = stream or sys.stdout
        self._start = self._last = time.monotonic()
        self._bar = tqdm(total=total, desc=desc, file=self._stream) if shown and self._stream.isatty() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, note: str = "") -> None:
        """One more is done; ``note`` is shown behind the count."""
        self.update_to(self.done + 1, note)

    def update_to(self, done: int, note: str = "") -> None:
        """``done`` of them are done; ``note`` is shown behind the count."""
        if self._bar is not None:
            self._bar.update(done - self.done)
            self._bar.set_postfix_str(note, refresh=False)
        self.done = done
        now = time.monotonic()
        if not self.shown or now - self._last < LINE_EVERY_S:
            return
        self._last = now
        each = (now - self._start) / max(done, 1)
        if self._report is not None:
            self._report(done, note, each)
        if self._bar is None:
            left = each * (self.total - done)
            print(
                f"{self.desc}: {done}/{self.total}{', ' + note if note else ''}, {each:.2f} s each, {left:.0f} s left",
                file=self._stream,
                flush=True,
            )
