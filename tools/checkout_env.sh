#!/usr/bin/env bash
# Creates (or finds) the environment of this checkout, .checkout_env, and prints its folder: the packages of the shared
# environment SHARED, and an editable install of this checkout. Several checkouts can use one shared environment at once.
#   tools/checkout_env.sh SHARED
set -euo pipefail

shared=$(realpath -s "${1:?usage: tools/checkout_env.sh SHARED}")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
family=${RASS_MM_FAMILY:-openmmlab}
env=$root/.checkout_env
[ "$family" = openmmlab ] || env+=-$family
# The console scripts and the package list come from setup.py; a moved checkout needs new paths.
key=$(cat "$root/setup.py" "${BASH_SOURCE[0]}" <(echo "$shared $root") | sha256sum | cut -c1-12)

adopt_scripts() { # makes the commands of the shared environment (ruff, pytest, pip) run with this one's interpreter
    local script name
    for script in "$shared"/bin/*; do
        name=$(basename "$script")
        case $name in python* | [Aa]ctivate* | rass-mm) continue ;; esac
        if head -c 300 "$script" | head -1 | grep -aqF "$shared/bin/python"; then
            # Through sh, because an interpreter line must not contain spaces or be long.
            { printf "#!/bin/sh\n'''exec' \"%s\" \"\$0\" \"\$@\"\n' '''\n" "$env/bin/python"; tail -n +2 "$script"; } >"$env/bin/$name"
            chmod 755 "$env/bin/$name"
        else
            ln -s "$script" "$env/bin/$name"
        fi
    done
}

create() {
    rm -rf "$env"
    # Left by earlier versions, which made the shared environment import one checkout.
    rm -f "$shared"/lib/python*/site-packages/rass_mm_checkout.pth "$shared/bin/rass-mm"
    "$shared/bin/python" -m venv --without-pip "$env"
    local site
    site=$(echo "$env"/lib/python*/site-packages)
    # addsitedir also reads the .pth files of the shared environment.
    echo "import site; site.addsitedir('$(echo "$shared"/lib/python*/site-packages)')" >"$site/shared_environment.pth"
    adopt_scripts
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$env/bin/python" -m pip install -q --no-deps --no-build-isolation -e "$root" >&2
    echo "$key" >"$env/.key"
}

exec 8>"$env.lock"
flock 8
[ "$(cat "$env/.key" 2>/dev/null)" = "$key" ] || create
echo "$env"
