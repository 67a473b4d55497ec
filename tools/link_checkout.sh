#!/usr/bin/env bash
# Lightweight editable install: environment ENV imports and runs this checkout until another one is linked.
#   tools/link_checkout.sh ENV
set -euo pipefail

env=${1:?usage: tools/link_checkout.sh ENV}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

put() { # FILE MODE: atomically replaces FILE with standard input
    cat >"$1.$$"
    chmod "$2" "$1.$$"
    mv "$1.$$" "$1"
}

console_script() {
    # Worker processes import the main script, so without the guard each of them would run the command again.
    cat <<SCRIPT
#!$env/bin/python
import sys

from rass_mm_cli.main import main

if __name__ == '__main__':
    sys.exit(main())
SCRIPT
}

site=$(echo "$env"/lib/python*/site-packages)
echo "$root" | put "$site/rass_mm_checkout.pth" 644
console_script | put "$env/bin/rass-mm" 755
