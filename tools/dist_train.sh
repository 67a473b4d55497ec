#!/usr/bin/env bash
# Trains with several processes on this machine, one per GPU (gloo on CPUs): tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
# For several machines, set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail
config=$1

processes=$2
shift 2
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" --nproc_per_node "$processes" \
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}" \
    "$(dirname "${BASH_SOURCE[0]}")/train.py" "$config" --launcher pytorch "$@"
