#!/bin/sh
# Fetch the real brokers and servers the tests talk to. What cannot be had is left out: its tests then say
# so and skip, or fail where CI=true.
set -u

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo -n "$@"
    else
        return 1
    fi
}

# apt names its packages; what a package puts on the PATH is what the tests look for.
missing=""
[ -x /usr/sbin/mosquitto ] || command -v mosquitto >/dev/null 2>&1 || missing="$missing mosquitto"
command -v npm >/dev/null 2>&1 || missing="$missing npm"
command -v curl >/dev/null 2>&1 || missing="$missing curl"
command -v influxd >/dev/null 2>&1 || missing="$missing influxdb"
command -v victoria-metrics >/dev/null 2>&1 || missing="$missing victoria-metrics"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
[ -n "$(find /usr/lib -name libfaketime.so.1 2>/dev/null)" ] || missing="$missing libfaketime"
if [ -n "$missing" ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing for the tests:$missing"
    as_root apt-get update -qq
    # shellcheck disable=SC2086 - a list of names
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
        echo "could not install$missing; their tests will say so" >&2
    # Debian runs what it installs; the tests start their own, with ports and data of their own.
    for service in influxdb victoria-metrics; do
        case "$missing " in
        *" $service "*) as_root systemctl disable --now "$service" >/dev/null 2>&1 ;;
        esac
    done
fi

# node-opcua and axe-core come from npm into .services/.
for each in nodeopcua axe; do
    PYTHONPATH=tests "${1:-.venv}/bin/python" -m "support.$each" || echo "$each could not be installed" >&2
done
exit 0
