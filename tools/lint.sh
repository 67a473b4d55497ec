#!/usr/bin/env bash
# Checks style, import contracts, wording and spelling.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ruff check .
ruff format --check .
lint-imports --no-cache
python tools/check_english.py
git ls-files | grep -vE '\.(json|jsonl|npz|png|svg|safetensors)$|^LICENSE$|merges\.txt$' | xargs codespell
