#!/usr/bin/env bash
# Installs the servers that the tests start for themselves, from Debian's packages, as root.
#
#   tests/services/install.sh [rabbitmq] [postgres] [redis] [nats] [mqtt]     (all, without arguments)
#
# Leaves alone what is there, what HAMMERWORK_TEST_*_URL names, and a machine whose Docker engine
# answers. Nothing that it installs is started. It never fails: it says what will be skipped instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

policy=/usr/sbin/policy-rc.d
declare -A package=(
    [rabbitmq]=rabbitmq-server [postgres]=postgresql-15 [redis]=redis-server [nats]=nats-server [mqtt]=mosquitto
)
declare -A server=(
    [rabbitmq]=/usr/lib/rabbitmq/bin/rabbitmq-server [postgres]=/usr/lib/postgresql/15/bin/postgres
    [redis]=/usr/bin/redis-server [nats]=/usr/sbin/nats-server [mqtt]=/usr/sbin/mosquitto
)
declare -A url=(
    [rabbitmq]=${HAMMERWORK_TEST_RABBITMQ_URL:-} [postgres]=${HAMMERWORK_TEST_POSTGRES_URL:-}
    [redis]=${HAMMERWORK_TEST_REDIS_URL:-} [nats]=${HAMMERWORK_TEST_NATS_URL:-}
    [mqtt]=${HAMMERWORK_TEST_MQTT_URL:-}
)

missing() {
    local name
    for name in "$@"; do
        [[ -n ${url[$name]} || -x ${server[$name]} ]] || echo "$name"
    done
}

docker_answers() {
    .venv/bin/python -c 'import sys; from tests.services import docker_answers; sys.exit(not docker_answers())' \
        2>/dev/null
}

give_up() {
    echo "not installed: $*. Tests that need them are skipped and say so." >&2
    exit 0
}

# Debian starts a service as it is installed, unless this file says no (101).
forbid_starting() {
    [[ ! -e $policy ]] || return 0
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@" >/dev/null
}

(($#)) || set -- rabbitmq postgres redis nats mqtt
mapfile -t wanted < <(missing "$@")
if ((${#wanted[@]} == 0)) || docker_answers; then
    exit 0
fi
if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    give_up "${wanted[@]} (on Debian, as root: $0)"
fi

forbid_starting
apt update || echo "apt-get update failed; trying with the old lists" >&2
for name in "${wanted[@]}"; do
    echo "installing ${package[$name]}"
    apt install --yes --no-install-recommends "${package[$name]}" || true
done

mapfile -t wanted < <(missing "$@")
((${#wanted[@]} == 0)) || give_up "${wanted[@]}"
