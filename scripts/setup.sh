#!/bin/sh
# Make a virtual environment with exactly the locked packages: sh scripts/setup.sh DIR LOCKFILE
set -eu
venv=$1
lock=$2

find_python() {
    for name in python3.11 python3.12 python3.13 python3.14 python3; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "twinloop needs Python 3.11 or newer; none was found" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

python=$(find_python)
if [ ! -x "$venv/bin/pip" ]; then
    # Debian ships Python without the part that makes virtual environments.
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv
    fi
    "$python" -m venv "$venv"
fi
echo "installing $(grep -c '==' "$lock") packages into $venv: about half a minute"
"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$lock"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --editable .
