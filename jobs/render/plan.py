"""What will be run, as text: the run folder, every step with its exact command, and its config."""

from __future__ import annotations

import json
import shlex

from jobs.planning.steps import Steps
from jobs.planning.submissions import Submission
from jobs.record.run_json import Step, step_names
from segdist import config as configs
from segdist.config import TaskConfig
from segdist.run.folder import RunFolder
from segdist.system.plural import count_noun


def describe(run: RunFolder, steps: Steps, submission: Submission) -> str:
    """Where and what will be run: the run folder, and every step with its exact command."""
    lines = [f"run:     {run.path}", f"steps:   {step_names([step for step, _ in steps])}"]
    for step, _ in steps:
        size = f"{count_noun(step.nodes, 'node')} x {count_noun(step.ranks_per_node, 'rank')}"
        alone = step.task in ("quantize", "tune") and submission.resources.ranks > 1
        lines += [f"  {step.label} ({size}{', always in one process' if alone else ''})"]
        lines += [f"    {shlex.join(step.command)}"]
    return "\n".join(lines)


def describe_config(step: Step, config: TaskConfig) -> str:
    """The config of a step as JSON, a group a line."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in configs.to_plain(config).items()]
    return f"{step.step}/config.json\n{{\n" + ",\n".join(lines) + "\n}"
