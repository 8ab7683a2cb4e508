#!/usr/bin/env bash
# Installs the servers that the tests start for themselves, from Debian's packages, as root; Kafka's
# artifacts are fetched by Maven.
#
#   tests/services/install.sh [rabbitmq] [postgres] [kafka]     (all, without arguments)
#
# Leaves alone what is there, what HAMMERWORK_TEST_* names, and a machine whose Docker engine
# answers. Nothing that it installs is started. It never fails: it says what will be skipped instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

policy=/usr/sbin/policy-rc.d
declare -A package=([rabbitmq]=rabbitmq-server [postgres]=postgresql-15 [kafka]="default-jre-headless maven")
declare -A server=([rabbitmq]=/usr/lib/rabbitmq/bin/rabbitmq-server [postgres]=/usr/lib/postgresql/15/bin/postgres)
server[kafka]=/usr/share/maven/bin/mvn
declare -A url=([rabbitmq]=${HAMMERWORK_TEST_RABBITMQ_URL:-} [postgres]=${HAMMERWORK_TEST_POSTGRES_URL:-})
url[kafka]=${HAMMERWORK_TEST_KAFKA_BOOTSTRAP:-}

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

say_what_lacks() {
    echo "not installed: $*. Tests that need them are skipped and say so." >&2
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

install() {
    local name
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        say_what_lacks "$@ (on Debian, as root: $0)"
        return
    fi
    forbid_starting
    apt update || echo "apt-get update failed; trying with the old lists" >&2
    for name in "$@"; do
        echo "installing ${package[$name]}"
        # shellcheck disable=SC2086 — several packages are several words
        apt install --yes --no-install-recommends ${package[$name]} || true
    done
    mapfile -t wanted < <(missing "$@")
    ((${#wanted[@]} == 0)) || say_what_lacks "${wanted[@]}"
}

fetch_kafka() {
    .venv/bin/python -c 'import sys; from tests.services import kafka; sys.exit(not kafka.runnable())' ||
        echo "Apache Kafka was not fetched: a light broker stands in, and what that lacks is skipped." >&2
}

(($#)) || set -- rabbitmq postgres kafka
mapfile -t wanted < <(missing "$@")
((${#wanted[@]} == 0)) || docker_answers || install "${wanted[@]}"
if [[ " $* " == *" kafka "* && -z ${url[kafka]} ]] && ! docker_answers; then
    fetch_kafka
fi
