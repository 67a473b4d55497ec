#!/usr/bin/env bash
# Trains with SLURM, one task per GPU: tools/slurm_train.sh PARTITION CONFIG [options of tools/train.py]
# GPUS (8), GPUS_PER_NODE (at most 8) and CPUS_PER_TASK (4) set the size, PORT (29500) the port, SRUN_ARGS further options of srun.
set -euo pipefail
partition=$1
config=$2
shift 2
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
export MASTER_PORT=${PORT:-29500}
# shellcheck disable=SC2086  # SRUN_ARGS has several words
exec srun --partition "$partition" --job-name "train-$(basename "$config" .py)" --kill-on-bad-exit=1 \
    --ntasks "$gpus" --ntasks-per-node "$per_node" --gres "gpu:$per_node" --cpus-per-task "${CPUS_PER_TASK:-4}" ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "${BASH_SOURCE[0]}")/train.py" "$config" --launcher slurm "$@"
