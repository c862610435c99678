#!/bin/sh
# Install the locked workspace: tools/setup.sh PYTHON VENV. Needs python3 (3.11 or 3.12) and git; fetches uv itself.
set -eu
python=$1
venv=$2

fail() {
    echo "setup: $1" >&2
    exit 1
}

# Asked, not only looked for: shims of version managers stand on PATH and fail for versions that aren't chosen.
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=none
case $version in
3.11 | 3.12) ;;
*)
    # The default python3 may be newer or older than what TensorFlow has wheels for.
    found=
    for candidate in python3.11 python3.12; do
        if "$candidate" -c '' >/dev/null 2>&1; then
            found=$candidate
            break
        fi
    done
    [ "$found$version" != none ] || fail "no $python runs here; install Python 3.11 or 3.12 (or set PYTHON=/path/to/python3.11)"
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
        fetched=yes
        lock=$(mktemp)
        sed -n '/^uv==/,/[^\\]$/p' requirements/workspace.txt >"$lock"
        if "$python" -m pip --version >/dev/null 2>&1; then
            "$python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
                --target .tools -r "$lock" || fetched=no
        elif "$python" -m venv .tools/bootstrap >/dev/null 2>&1; then
            .tools/bootstrap/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
                --target .tools -r "$lock" || fetched=no
            rm -rf .tools/bootstrap
        else
            rm -f "$lock"
            rm -rf .tools/bootstrap
            fail "$python has neither pip nor venv; install one (Debian: apt install python3-venv) or put uv on PATH"
        fi
        rm -f "$lock"
        [ $fetched = yes ] || fail "uv could not be fetched, for the reason above; put it on PATH or go online, and try again"
    fi
fi

echo "setup: installing the locked workspace into $venv (TensorFlow is large: the first time takes a few minutes)"
"$uv" venv --quiet --allow-existing --python "$python" "$venv"
"$uv" pip install --quiet --python "$venv/bin/python" --require-hashes -r requirements/workspace.txt
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation -e shared -e device -e host
# TensorFlow takes 12 s of a core to load as source and 4 s as bytecode; the demo loads it five times.
"$venv/bin/python" -m compileall -q -j 0 "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    >/dev/null 2>&1 || true
