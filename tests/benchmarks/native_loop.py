"""A loop in C around the runtime's own invoke, in a process of its own: what a benchmark must come near.

`python -m tests.benchmarks.native_loop LIBRARY MODEL RUNTIME SECONDS` prints one JSON object: the C loop's p50, and
that of a cell's own loop on the same interpreter, in turns of some hundredths of a second, so that both meet the same
machine. tflite-runtime exports `tflite::Interpreter::Invoke`, which is called as it is; LiteRT hides it, so that there
the package's native method is called from C, without any Python between. What it does NOT do: judge.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import shutil
import subprocess
import sys
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tflotilla.device import loading
from tflotilla.device.benchmark import loops, setup
from tflotilla.shared.inference import runtime
from tflotilla.shared.inference.runtime import Inspectable, LoadOptions

_SOURCE = r"""
#include <stdint.h>
#include <time.h>
static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}
int loop_invoke(int (*invoke)(void*), void* interpreter, int64_t runs, int64_t* taken) {
  for (int64_t i = 0; i < runs; i++) {
    int64_t begin = now();
    if (invoke(interpreter)) return 1;
    taken[i] = now() - begin;
  }
  return 0;
}
int loop_method(void* (*call)(void*), void (*release)(void*), void* method, int64_t runs, int64_t* taken) {
  for (int64_t i = 0; i < runs; i++) {
    int64_t begin = now();
    void* answer = call(method);
    taken[i] = now() - begin;
    if (!answer) return 1;
    release(answer);
  }
  return 0;
}
"""
_INVOKE = "_ZN6tflite4impl11Interpreter6InvokeEv"
_WRAPPER = "tflite_runtime._pywrap_tensorflow_interpreter_wrapper"
_WARM_RUNS = 5
_LEAST_RUNS = 21
_LEAST, _MOST = 1, 20_000
_TURN_S = 0.03
#: For a machine busy with other things; nothing takes that long unless something is broken.
_PATIENCE_S = 300.0


def build(folder: Path) -> Path | None:
    """Compile the loops; None where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    source, library = folder / "native_loop.c", folder / "libnative_loop.so"
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Medians of one process, in nanoseconds."""

    native_ns: int
    loop_ns: int


def run(library: Path, model: Path, runtime_name: str, seconds: float) -> Turns:
    """Run the loops in a fresh process, each for about so long."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.native_loop",
        str(library),
        str(model),
        runtime_name,
        str(seconds),
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=_PATIENCE_S)
    return Turns(**json.loads(done.stdout))


def main() -> int:
    """Load, warm up, loop, print."""
    library, model, name, seconds = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    loaded = runtime.find(name).load(model, LoadOptions())
    inputs = loading.zeros(loaded.inputs)
    loaded.set_inputs(inputs)
    loaded.invoke()
    native = _loop(library, loaded)
    runs = min(_MOST, max(_LEAST, int(_TURN_S * 1e9 / max(1, _middle(native(_WARM_RUNS))))))
    calls, alone = setup.calls(loaded)
    feed = itertools.repeat(inputs[0] if alone else inputs)
    limits = loops.Limits(min_runs=runs, min_ns=0, max_ns=int(_PATIENCE_S * 1e9))
    natives, ours = array("q"), array("q")
    until = time.perf_counter_ns() + int(2 * seconds * 1e9)
    # The first turn of each is warm-up.
    for turn in itertools.count():
        taken, record = native(runs), loops.run(loops.Calls(*calls), feed, limits)
        if turn:
            natives.extend(taken)
            ours.extend(record.invokes)
        if len(natives) >= _LEAST_RUNS and time.perf_counter_ns() >= until:
            break
    print(json.dumps({"native_ns": _middle(natives), "loop_ns": _middle(ours)}))  # noqa: T201 - the result
    return 0


def _loop(library: Path, loaded: Any) -> Any:  # noqa: ANN401 - ctypes has no types
    # PyDLL keeps the interpreter's lock: the loops call into Python's objects, and nobody else wants it.
    shim = ctypes.PyDLL(str(library))
    invoke = _exported()

    def loop(runs: int) -> array[int]:
        taken = array("q", bytes(8 * runs))
        target = ctypes.c_void_p(taken.buffer_info()[0])
        count = ctypes.c_int64(runs)
        if invoke is not None:
            interpreter = ctypes.c_void_p(loaded._native.interpreter())
            failed = shim.loop_invoke(invoke, interpreter, count, target)
        else:
            assert isinstance(loaded, Inspectable)
            api = ctypes.pythonapi
            call, release = (ctypes.cast(f, ctypes.c_void_p) for f in (api.PyObject_CallNoArgs, api.Py_DecRef))
            failed = shim.loop_method(call, release, ctypes.py_object(loaded.bare_invoke), count, target)
        assert not failed
        return taken

    return loop


def _exported() -> ctypes.c_void_p | None:
    wrapper = sys.modules.get(_WRAPPER)
    if wrapper is None or wrapper.__file__ is None:
        return None
    try:
        return ctypes.cast(getattr(ctypes.CDLL(wrapper.__file__), _INVOKE), ctypes.c_void_p)
    except AttributeError:
        return None


def _middle(taken: array[int]) -> int:
    return sorted(taken)[len(taken) // 2]


if __name__ == "__main__":
    sys.exit(main())
