#!/usr/bin/env bash
# Everything that must hold before a change is merged, from a fresh clone.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install_redis() {
    if command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null; then
        return
    fi
    # Debian starts a server on 6379 when it installs the package; policy-rc.d would be
    # needed to prevent that, so it is stopped instead.
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server redis-tools
    as_root service redis-server stop || true
}

install_fault_tools() {
    local missing=0 tool
    for tool in ip nft strace nsenter mkfs.ext4; do
        command -v "$tool" >/dev/null || missing=1
    done
    if [ "$missing" = 0 ]; then
        return
    fi
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        e2fsprogs iproute2 mount nftables strace util-linux
}

step redis-server, redis-cli, redis-benchmark
install_redis
redis-server --version

step tools for real faults
install_fault_tools
nft --version

step build
make build

step lint: ruff, mypy, cython-lint
make lint

step tests
make test

step real faults, about 2 minutes
make chaos ARGS="run --seconds 90"

step simulation
make sim SEEDS=1000

step planted bugs
.venv/bin/python -m tests.sim.mutate --check

step demo
make demo

step sdist and wheel, started from an empty environment
make dist
ci/installed.sh dist

step done
