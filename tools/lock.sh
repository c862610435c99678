#!/bin/sh
# Pin every dependency again, with hashes and without download addresses: tools/lock.sh UV.
set -eu
uv=$1
"$uv" lock --quiet --upgrade
"$uv" export --quiet --no-emit-workspace --all-packages --all-extras --all-groups --no-header --no-annotate \
    -o requirements/workspace.txt >/dev/null
for name in tflite-runtime litert both test; do
    "$uv" pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
        --no-header --no-annotate "requirements/device-$name.in" -o "requirements/device-$name.txt" >/dev/null
done
# Whole as it is written: what else these need, a 32-bit board takes from its distribution.
"$uv" pip compile --quiet --upgrade --universal --no-deps --python-version 3.10 --generate-hashes --no-emit-index-url \
    --no-header --no-annotate requirements/device-armv7l.in -o requirements/device-armv7l.txt >/dev/null
"$uv" pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-header --no-annotate requirements/tool-onnx.in -o requirements/tool-onnx.txt >/dev/null
