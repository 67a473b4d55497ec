#!/usr/bin/env bash
# Creates (or finds) the environment with the tools of a release (requirements/release/tools.txt) and prints its folder.
# It is apart from the development environment, so that a new tool does not rebuild that one.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${RASS_MM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rass_mm}
python=${PYTHON:-$(command -v python3.11 || command -v python3)}
list=$root/requirements/release/tools.txt
env=$cache/envs/release-$(cat "$list" <("$python" -V) | sha256sum | cut -c1-12)
mkdir -p "$cache/envs"
exec 9>"$env.lock"
flock 9
if [ ! -e "$env/.ready" ]; then
    rm -rf "$env"
    "$python" -m venv "$env"
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$env/bin/pip" install -q -r "$list" >&2
    touch "$env/.ready"
fi
echo "$env"
