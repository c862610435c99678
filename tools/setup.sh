#!/bin/sh
# Install the locked workspace: tools/setup.sh PYTHON VENV. Needs python3 (3.11 or 3.12) and git; fetches uv itself.
set -eu
python=$1
venv=$2

fail() {
    echo "setup: $1" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 || fail "no $python on PATH; install Python 3.11 or 3.12"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
3.11 | 3.12) ;;
*)
    # The default python3 may be newer or older than what TensorFlow has wheels for.
    found=
    for candidate in python3.11 python3.12; do
        if command -v $candidate >/dev/null 2>&1; then
            found=$candidate
            break
        fi
    done
    [ -n "$found" ] || fail "$python is Python $version; TensorFlow needs 3.11 or 3.12 (set PYTHON=/path/to/python3.11)"
    python=$found
    ;;
esac

if command -v uv >/dev/null 2>&1; then
    uv=uv
else
    uv=.tools/bin/uv
    if [ ! -x "$uv" ]; then
        echo "setup: fetching uv into .tools"
        lock=$(mktemp)
        sed -n '/^uv==/,/[^\\]$/p' requirements/workspace.txt >"$lock"
        if "$python" -m pip --version >/dev/null 2>&1; then
            "$python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
                --target .tools -r "$lock"
        elif "$python" -m venv .tools/bootstrap >/dev/null 2>&1; then
            .tools/bootstrap/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
                --target .tools -r "$lock"
            rm -rf .tools/bootstrap
        else
            rm -f "$lock"
            rm -rf .tools/bootstrap
            fail "$python has neither pip nor venv; install one (Debian: apt install python3-venv) or put uv on PATH"
        fi
        rm -f "$lock"
    fi
fi

echo "setup: installing the locked workspace into $venv (TensorFlow is large: the first time takes a few minutes)"
"$uv" venv --quiet --allow-existing --python "$python" "$venv"
"$uv" pip install --quiet --python "$venv/bin/python" --require-hashes -r requirements/workspace.txt
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation -e shared -e device -e host
