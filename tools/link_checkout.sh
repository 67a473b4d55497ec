#!/usr/bin/env bash
# Editable install, made light: the environment ENV imports and runs this checkout, until another one is linked.
#   tools/link_checkout.sh ENV
set -euo pipefail

env=${1:?usage: tools/link_checkout.sh ENV}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

put() { # FILE MODE: replaces FILE by standard input in one step, whatever an older version left there
    cat >"$1.$$"
    chmod "$2" "$1.$$"
    mv "$1.$$" "$1"
}

console_script() {
    # Worker processes import the main script: without the guard each of them would run the command again.
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
