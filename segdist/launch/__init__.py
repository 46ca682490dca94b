"""From one process per allocation to one process per rank, with an honest exit code."""
