"""Slurm: one job a step through submitit's executor."""
