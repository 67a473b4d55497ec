#!/usr/bin/env bash
# Trains with several processes on this machine, one per GPU (gloo on CPUs): tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
# For several machines, set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
# With a range such as NNODES=1:2, machines may end and join: training restarts with those that are left (MAX_RESTARTS, 3), so
# give --resume. NODE_RANK is not used then, and LOCAL_ADDR is the address of this machine if its name cannot be looked up.
set -euo pipefail
config=$1

processes=$2
shift 2
nodes=${NNODES:-1} address=${MASTER_ADDR:-127.0.0.1} port=${PORT:-29500}
rendezvous=(--node_rank "${NODE_RANK:-0}" --master_addr "$address" --master_port "$port")
if [[ $nodes == *:* ]]; then
    rendezvous=(--rdzv_backend c10d --rdzv_endpoint "$address:$port" --rdzv_id "train-$port" --max_restarts "${MAX_RESTARTS:-3}")
    [ -z "${LOCAL_ADDR:-}" ] || rendezvous+=(--local_addr "$LOCAL_ADDR")
fi
exec "${PYTHON:-python}" -m torch.distributed.run --nnodes "$nodes" --nproc_per_node "$processes" "${rendezvous[@]}" \
    "$(dirname "${BASH_SOURCE[0]}")/train.py" "$config" --launcher pytorch "$@"
