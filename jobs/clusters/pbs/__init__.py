"""PBS for submitit: OpenPBS, PBS Professional and Torque.

With this package installed, ``submitit.AutoExecutor(folder, cluster="pbs")`` works as it does for Slurm; nothing else
of the project is needed for that. :mod:`jobs.clusters.pbs.cluster` is what ``jobs.submit`` uses.
"""
