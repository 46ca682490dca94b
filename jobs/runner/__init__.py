"""What runs inside a job.

``jobs.runner.run_steps`` is the name in every pickled job, also in those that wait in a queue: it stays importable.
"""

from jobs.runner.run import run_steps

__all__ = ["run_steps"]
