#!/usr/bin/env bash
# Installs Debian's Chromium, in which `make test-slow` opens the page of `rass-mm app`. It needs root.
set -euo pipefail
apt-get update
apt-get install -y --no-install-recommends chromium
