#!/usr/bin/env bash
# POPE or CHAIR on all GPUs of several machines, under Slurm. An example: set partition, time and
# environment as your cluster wants them.
#   sbatch scripts/slurm.sh eval/pope_eval.py --model llava-1.5 --data-path /data/COCO/val2014 \
#     --pope-type all --batch-size auto
# The processes have nothing in common but the run's folder (--output-dir, on a shared file system).
# Rerun the command to resume a stopped job, also with another number of GPUs.
#SBATCH --job-name=eah
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

# Each task sees all GPUs of its machine and takes the one of its number there.
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
srun --kill-on-bad-exit=1 bash -c '
  export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
  exec python "$@"
' task "$@"
