#!/usr/bin/env bash
# Segments images with several processes on this machine, one per GPU (or on CPUs), each a shard: tools/dist_segment.sh PROCESSES IN OUT --checkpoint FILE [options of rass-mm segment]
# For several machines with a common output folder, set NNODES, NODE_RANK, MASTER_ADDR and PORT on each. Then: rass-mm jobs merge OUT
set -euo pipefail
processes=$1
shift
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" --nproc_per_node "$processes" \
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}" \
    -m rass_mm_cli segment "$@" --shards auto
