"""Batch jobs: submit, status, logs, cancel and collect, each a command (``python -m jobs.submit --help``).

A login node answers all of them without torch and numpy. What is true about a job is in its run folder.
"""
