#!/usr/bin/env bash
# The full runs of part 2 that wait for a GPU, in the order of their worth, on a machine without a network.
#
#   workflow/gpu.sh OUT SECONDS [--planned | other options of `hw3 reproduce`]
#
# OUT gets what is finished, early and often: the runs as they are published, in pieces of at most 15 MiB, and a log.
# Put them together with `cat OUT/runs.tar.* | tar -x -C hw3lib/published`. Weights and checkpoints stay in HW3_CACHE
# (default /tmp/hw3-cache), so that a second call on the same machine goes on where the first one ended.
#
# HW3_DATA names the folder of the data sets. Packages that are missing are taken from the wheels in WHEELS, a
# folder, if it is set.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$1 seconds=$2
shift 2
mkdir -p "$out"
export PYTHONPATH=$PWD HW3_CACHE=${HW3_CACHE:-/tmp/hw3-cache}
python=${PYTHON:-python3}

if [[ -n ${WHEELS:-} ]] && ! "$python" -c 'import hw3lib.experiments.catalog' 2>/dev/null; then
    "$python" -m pip install --quiet --no-index --find-links "$WHEELS" "$WHEELS"/*.whl
fi
"$python" -m hw3lib data check cifar10 mnist

# Everything is written anew each time: an archive that was cut off by the end is no archive.
pack() {
    local fresh
    fresh=$(mktemp -d "$out/.pack.XXXX")
    (cd hw3lib/published && find . -mindepth 2 -type f -newer "$begun" -print0 |
        tar --create --null --files-from=- --file=-) | split --bytes=15m - "$fresh/runs.tar."
    rm -f "$out"/runs.tar.*
    mv "$fresh"/runs.tar.* "$out"
    rmdir "$fresh"
}
begun=$(mktemp)

trap pack EXIT
(while sleep "${EVERY:-60}"; do pack; done) &
packer=$!

status=0
"$python" -m hw3lib reproduce --publish --time-budget "$seconds" "${@:---planned}" 2>&1 | tee -a "$out/log.txt" || status=$?
kill "$packer" 2>/dev/null || true
wait "$packer" 2>/dev/null || true
# 3 means that the time is used up, which is no failure.
[[ $status == 0 || $status == 3 ]]
