#!/bin/bash
# Train on machines of a SLURM cluster, one process a GPU, and go on after a preemption:
#   sbatch projects/QDFormer/train_slurm.sh --config-file configs/qdformer_swin_t.yaml OUTPUT_DIR output/run
#SBATCH --job-name=qdformer
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE

# What a launcher such as torchrun sets for each process. A new run has nothing to resume.
srun --kill-on-bad-exit=0 bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID \
  exec python projects/QDFormer/train_net.py --resume "$@"' train "$@"
status=$?

# 75: stopped by a signal and saved.
if [ "$status" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
