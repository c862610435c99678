#!/bin/sh
# Run the device's and the shared tests as a board would see them: from built wheels, without TensorFlow.
#   tools/test_device.sh VENV_BIN ours|newest
# `ours` is the workspace's Python with both runtimes; `newest` is Python 3.13 with LiteRT, when an interpreter is there.
set -eu
bin=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

build() {
    # Copies, so that building leaves nothing in the tree.
    for part in shared device; do
        mkdir -p "$work/src/$part"
        cp -R "$root/$part/pyproject.toml" "$root/$part/src" "$work/src/$part/"
        (cd "$work/src/$part" && "$bin/python" -m hatchling build -t wheel -d "$work/wheels" >/dev/null 2>&1)
    done
    rm -rf "$work/src"
    # Only the tests, so that nothing can be imported from the source tree.
    mkdir "$work/tree"
    cp -R "$root/tests" "$work/tree/tests"
    rm -rf "$work/tree/tests/host" "$work/tree/tests/end_to_end"
    cp -R "$root/pyproject.toml" "$root/docs" "$work/tree/"
}

run() {
    python=$1
    lock=$2
    "$bin/uv" venv --quiet --clear --python "$python" "$work/venv"
    "$bin/uv" pip install --quiet --python "$work/venv/bin/python" --require-hashes \
        -r "$root/requirements/$lock.txt" -r "$root/requirements/device-test.txt"
    "$bin/uv" pip install --quiet --python "$work/venv/bin/python" --no-deps "$work"/wheels/*.whl
    echo "device tests from wheels: $("$work/venv/bin/python" -V), $lock"
    (
        cd "$work/tree"
        unset VIRTUAL_ENV PYTHONPATH
        TFLOTILLA_CATALOGUE="${TFLOTILLA_CATALOGUE:-$root/../shared/data}" \
            "$work/venv/bin/python" -m pytest tests/shared tests/device -n 3 --dist loadscope
    )
}

build
if [ "$2" = ours ]; then
    version=$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$version" = 3.11 ]; then
        run "$bin/python" device-both
    else
        run "$bin/python" device-litert
    fi
    exit
fi
newer=
# pyenv's shims stand on PATH and fail for versions that aren't chosen, so each candidate is asked.
for candidate in "${PYTHON313:-}" "$(command -v python3.13 || true)" "$HOME"/.pyenv/versions/3.13.*/bin/python3.13; do
    if [ -z "$newer" ] && [ -n "$candidate" ] && "$candidate" -c '' 2>/dev/null; then
        newer=$candidate
    fi
done
if [ -n "$newer" ]; then
    run "$newer" device-litert
else
    echo "device tests on Python 3.13: left out, no such interpreter on this machine (set PYTHON313)"
fi
