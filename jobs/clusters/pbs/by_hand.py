"""The name of :mod:`jobs.clusters.pbs.qsub_entry` in scripts of version 0.1, which may be queued; goes with 0.3."""

from __future__ import annotations

import sys

from jobs.clusters.pbs.qsub_entry import main

if __name__ == "__main__":
    sys.exit(main())
