#!/usr/bin/env bash
# Checks and measures everything that needs a card, and writes all figures to one file: tools/gpu_check.sh OUT.json [options]
# Without a card, all steps that a CPU can do are done, see `python tools/gpu_check.py --help`.
set -euo pipefail
export PYTHONPATH="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/gpu_check.py" "$@"
