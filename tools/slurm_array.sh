#!/usr/bin/env bash
#SBATCH --job-name=rass-mm
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --output=%x-%A-%a.log
# Example of a SLURM array with one shard per task. The array starts at 0 and has no holes:
#   sbatch --array=0-7 tools/slurm_array.sh restore IN OUT --adapter FILE --base FOLDER
# The same for segment and make-lq. Afterwards: rass-mm jobs status OUT, and rass-mm jobs merge OUT.
# A task that was stopped resumes when it is requeued. To repeat shard 3 of 8 alone: rass-mm restore ... --shards 8 --shard 3
set -euo pipefail
exec "${PYTHON:-python}" -m rass_mm_cli "$@" --shards auto
