"""What is started on another node, by path: ``python -E -S agent_main.py FOLDER NODE [--stdin]``.

A starter may bring no environment at all, so nothing is found by it: with ``-S`` neither site-packages nor an editable
install. This file puts the folder of the package that it is part of at the end of the search path, and the agent uses
of that package what needs the standard library only.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0:1] = []  # this file's own folder: its modules are segdist.launch's
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from segdist.launch.node_agent import main

    sys.exit(main(sys.argv[1:]))
