#!/usr/bin/env bash
# Restores images with several processes on this machine, one per GPU (or on CPUs), each a shard: tools/dist_restore.sh PROCESSES IN OUT --adapter FILE --base FOLDER [options of rass-mm restore]
# For several machines with a common output folder, set NNODES, NODE_RANK, MASTER_ADDR and PORT on each. Then: rass-mm jobs merge OUT
set -euo pipefail
processes=$1
shift
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" --nproc_per_node "$processes" \
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}" \
    -m rass_mm_cli restore "$@" --shards auto
