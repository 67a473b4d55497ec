#!/usr/bin/env bash
# Creates (or finds) the development environment and prints its folder to standard output; messages go to standard error.
# The packages are in a shared environment, whose folder name is a hash of the requirement files, the Python version and
# the build kind (CPU or CUDA): it is created once for all checkouts with the same requirements. The printed folder is
# the environment of this checkout on top of it, see tools/checkout_env.sh.
#   RASS_MM_CACHE  folder for environments, built wheels and trained bases (default: ~/.cache/rass_mm)
#   RASS_MM_FAMILY openmmlab (default), or onedl for the maintained forks of mmcv, mmengine, mmseg and mmdet (no mmagic)
#   PYTHON         base interpreter (default: python3.11, else python3)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${RASS_MM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rass_mm}
python=${PYTHON:-$(command -v python3.11 || command -v python3)}
family=${RASS_MM_FAMILY:-openmmlab}
kind=cpu
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then kind=cuda; fi

say() { printf '[setup] %s\n' "$*" >&2; }
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in 3.11 | 3.12) ;; *) say "Python $version found, but 3.11 or 3.12 is required. Set PYTHON=/path/to/python3.11"; exit 1 ;; esac
case $family in
    openmmlab) mmcv=$root/requirements/mmcv.txt lists=("$root"/requirements/*.txt) ;;
    onedl) mmcv=$root/requirements/onedl/mmcv.txt lists=("$root"/requirements/*.txt "$root"/requirements/onedl/*.txt) ;;
    *) say "RASS_MM_FAMILY is '$family', but must be openmmlab or onedl"; exit 1 ;;
esac
key=$(cat "${lists[@]}" <(echo "$version $kind") | sha256sum | cut -c1-12)
env=$cache/envs/$key
wheels=$cache/wheels/$(cat "$root"/requirements/{build,torch}.txt "$mmcv" <(echo "$version $kind $(uname -m)") | sha256sum | cut -c1-12)

build_mmcv() {
    # One wheel per torch version, Python version and build kind, so changes of other packages do not recompile it.
    compgen -G "$wheels/*mmcv-*.whl" >/dev/null && return
    command -v c++ >/dev/null || { say "mmcv's operators require a C++ compiler. Run: apt-get install g++"; exit 1; }
    "$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.isfile(sysconfig.get_path("include") + "/Python.h"))' ||
        { say "mmcv's operators require the Python headers. Run: apt-get install python$version-dev"; exit 1; }
    export MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(nproc)}
    if [ "$kind" = cuda ]; then
        export FORCE_CUDA=1
        say "compiling mmcv with its CUDA operators (77 C++ and 60 CUDA files, $MAX_JOBS jobs): expect 10 to 30 minutes"
    else
        # Without a GPU the operators must be correct but not fast; -O1 without debug data halves the compile time.
        export CFLAGS="${CFLAGS:--O1 -g0 -w}"
        say "compiling mmcv with its operators (77 C++ files, $MAX_JOBS jobs): about 8 minutes on 2 cores"
    fi
    mkdir -p "$wheels"
    local out
    out=$(mktemp -d "$wheels/.build-XXXXXX")
    # No pip cache, which could return an mmcv wheel built without operators.
    "$env/bin/pip" wheel -q --no-cache-dir --no-build-isolation --no-deps -w "$out" -r "$mmcv" >&2
    mv "$out"/*mmcv-*.whl "$wheels/" && rmdir "$out"
}

install_packages() {
    local lock=$root/requirements/lock.txt
    if [ "$family" = onedl ]; then
        # Without build isolation: the forks' source archives need only what build.txt has installed.
        grep -vE '^mm(agic|det|engine|segmentation)==' "$lock" >"$env/lock.txt"
        "$env/bin/pip" install -q --no-deps -r "$env/lock.txt" >&2
        "$env/bin/pip" install -q --no-deps --no-build-isolation -r "$root/requirements/onedl/packages.txt" >&2
    else
        "$env/bin/pip" install -q --no-deps -r "$lock" >&2
    fi
}

install_all() {
    local start=$SECONDS
    say "creating the environment $env (about 12 minutes on 2 cores, 6 GB; done once)"
    rm -rf "$env"
    "$python" -m venv "$env"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    say "1/3 build tools and torch"
    "$env/bin/pip" install -q -r "$root/requirements/build.txt" -r "$root/requirements/torch.txt" >&2
    say "2/3 mmcv"
    build_mmcv
    "$env/bin/pip" install -q --no-deps "$wheels"/*mmcv-*.whl >&2
    say "3/3 the other packages"
    install_packages
    "$env/bin/python" -c 'import mmcv.ops' || { say "mmcv's operators cannot be loaded. Remove $wheels and try again"; exit 1; }
    echo "$((SECONDS - start))" >"$env/.seconds"
    touch "$env/.ready"
    say "environment ready after $((SECONDS - start)) s"
}

mkdir -p "$cache/envs"
exec 9>"$cache/envs/$key.lock"
flock 9
[ -e "$env/.ready" ] || install_all
exec 9>&-
"$root/tools/checkout_env.sh" "$env"
