#!/usr/bin/env bash
# Tests with SLURM, one task per GPU: tools/slurm_test.sh PARTITION CONFIG CHECKPOINT [options of tools/test.py]
# GPUS (8), GPUS_PER_NODE (at most 8) and CPUS_PER_TASK (4) set the size, PORT (29500) the port, SRUN_ARGS further options of srun.
set -euo pipefail
partition=$1
config=$2
checkpoint=$3
shift 3
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
export MASTER_PORT=${PORT:-29500}
# shellcheck disable=SC2086  # SRUN_ARGS has several words
exec srun --partition "$partition" --job-name "test-$(basename "$config" .py)" --kill-on-bad-exit=1 \
    --ntasks "$gpus" --ntasks-per-node "$per_node" --gres "gpu:$per_node" --cpus-per-task "${CPUS_PER_TASK:-4}" ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "${BASH_SOURCE[0]}")/test.py" "$config" "$checkpoint" --launcher slurm "$@"
