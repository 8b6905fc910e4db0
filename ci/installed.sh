#!/usr/bin/env bash
# Installs the built sdist and the built wheel, each into an empty environment,
# and starts a one-node cluster from there.  Usage: ci/installed.sh DIST
set -euo pipefail
dist=$(realpath "$1")
work=$(mktemp -d)
eraft=""
cleanup() {
    if [ -n "$eraft" ]; then "$eraft" cluster stop --dir "$work/cluster" || true; fi
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work" # not the checkout: nothing may come from there

if tar -tzf "$dist"/*.tar.gz | grep '\.c$'; then
    echo "the sdist contains generated C files" >&2
    exit 1
fi

for package in "$dist"/*.tar.gz "$dist"/*.whl; do
    echo "-- $(basename "$package")"
    rm -rf venv cluster
    "${PYTHON:-python3}" -m venv venv
    venv/bin/pip install --quiet --disable-pip-version-check "$package"
    eraft=$work/venv/bin/eraft
    "$eraft" --version
    ERAFT_IMPL=cython "$eraft" cluster start --dir "$work/cluster" --nodes 1 --groups 1 --replicas 1
    "$eraft" cluster status --dir "$work/cluster"
    "$eraft" cluster stop --dir "$work/cluster"
    eraft=""
done
