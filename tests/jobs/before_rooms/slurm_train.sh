#!/bin/bash

# Parameters
#SBATCH --chdir=@FOLDER@
#SBATCH --job-name=first-train
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=@FOLDER@/runs/first/.submitit/1/%j_0_log.out
#SBATCH --requeue
#SBATCH --signal=B:USR1@120

# command
export SUBMITIT_EXECUTOR=slurm
exec @PYTHON@ -u -m submitit.core._submit @FOLDER@/runs/first/.submitit/1
