"""``main.py PROGRAM ARGUMENTS…``: one of the programs of a PBS, by name."""

from __future__ import annotations

import sys


def main() -> int:
    """Only what is needed is imported: these start by the hundred."""
    name, words = sys.argv[1], sys.argv[2:]
    if name == "qsub":
        import qsub

        return qsub.main(words)
    if name in ("qstat", "qdel", "ssh"):
        import qstat

        return {"qstat": qstat.main, "qdel": qstat.qdel, "ssh": qstat.ssh}[name](words)
    if name == "mom":
        import mom

        return mom.main(words)
    import tm

    return {"pbsdsh": tm.pbsdsh, "pbs_tmrsh": tm.pbs_tmrsh}[name](words)


if __name__ == "__main__":
    sys.exit(main())
