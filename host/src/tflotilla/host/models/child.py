"""Run one function in a child process that has no keys: TensorFlow, foreign model files and runtimes that may crash.

`call("tflotilla.host.models.x:run", {...})` sends JSON arguments and returns the JSON result. Rules it keeps:
- the child's environment is an allow-list with a home of its own: no SSH agent, no tokens, no `~/.ssh`, no `~/.keras`;
- what libraries print (TensorFlow's log) goes to a file that is shown to nobody unless the child dies;
- errors of ours travel by `errors.to_wire`; a signal becomes a ModelError that names it;
- the child dies with its parent, and when the call is interrupted or takes too long.

It is NOT a sandbox: a hostile model that runs code can still read what the user can read by absolute path.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import site
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.packages import tools
from tflotilla.shared.contract import codec, errors
from tflotilla.shared.contract.errors import ModelError, TflotillaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
_SET: Mapping[str, str] = {
    "CUDA_VISIBLE_DEVICES": "-1",  # conversion needs no GPU, and looking for one takes seconds and prints pages
    "PYTHONHASHSEED": "0",  # the same input gives the same bytes
    "PYTHONDONTWRITEBYTECODE": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # the same floats on every x86 machine
    "GLOG_minloglevel": "3",
    "ABSL_MIN_LOG_LEVEL": "3",
}
_LOG_TAIL_BYTES = 64 * 1024
_running: set[subprocess.Popen[bytes]] = set()
_PR_SET_PDEATHSIG = 1
# sys/personality.h
_ADDR_NO_RANDOMIZE = 0x0040000
_ASK_PERSONALITY = 0xFFFFFFFF


def call(
    function: str,
    arguments: Mapping[str, Any],
    *,
    doing: str = "the model process",
    on_progress: Callable[[str], None] | None = None,
    timeout_s: float | None = None,
) -> Any:  # noqa: ANN401 - whatever JSON the function returns
    """Run `module:function(**arguments)` in a child process and return its result.

    The arguments and the result are JSON (contract values are encoded); `doing` begins the sentence when the child
    dies: "converting digits.keras". The function reports progress by `report_progress`.

    Raises:
        TflotillaError: of whatever class the function raised.
        ModelError: the child crashed, was killed, or took longer than `timeout_s`.
        RuntimeError: the function has a bug; the child's traceback is a note of it.

    """
    with tempfile.TemporaryDirectory(prefix="tflotilla-child-") as home, contextlib.ExitStack() as pipe:
        log_path = Path(home) / "log"
        reader, writer = os.pipe()
        lines = pipe.enter_context(os.fdopen(reader, "rb"))
        # The writing end is closed as soon as the child has it, and only once: other threads open files meanwhile.
        with log_path.open("wb") as log, os.fdopen(writer, "wb"):
            process = subprocess.Popen(
                # -P: a `keras.py` in the user's folder is not the one that is meant.
                [sys.executable, "-P", "-m", "tflotilla.host.models.child", str(writer)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(writer,),
                env=environment(Path(home)),
                start_new_session=True,
            )
        _running.add(process)
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _kill(process)

        timer = threading.Timer(timeout_s or 0, expire)
        try:
            if timeout_s is not None:
                timer.start()
            _send(process, {"function": function, "arguments": codec.encode(arguments)})
            answer = _listen(lines, on_progress)
            process.wait()
        finally:
            timer.cancel()
            _kill(process)
            process.wait()
            _running.discard(process)
        if answer is None:
            if expired.is_set():
                raise ModelError(f"{doing}: gave up after {timeout_s:g} s")
            raise ModelError(f"{doing}: {_death(process.returncode, log_path)}")
    return _unpack(answer)


def end_all() -> None:
    """Kill the children of this process, whichever threads wait for them: each of those calls raises ModelError."""
    for process in tuple(_running):
        _kill(process)


def environment(home: Path) -> dict[str, str]:
    """Return the child's whole environment: an allow-list, and `home` as its home folder."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    # Temporary files lie in the home too: whoever is killed cleans up nothing.
    moved = dict.fromkeys(("HOME", "KERAS_HOME", "TMPDIR"), str(home))
    # The home moves, the packages and tools a user installed for themselves must not.
    found = {"PYTHONUSERBASE": site.getuserbase(), tools.VARIABLE: str(tools.folder())}
    return kept | dict(_SET) | moved | found


def report_progress(text: str) -> None:
    """Say what goes on, from inside the child; does nothing in a process that isn't one."""
    if _Channel.descriptor is not None:
        _write(_Channel.descriptor, {"progress": text})


def allow_fast_kernels() -> None:
    """Let TensorFlow train with oneDNN's kernels, three times faster; to be called before it is imported.

    Its floats differ between kinds of processors, which training may and conversion may not.
    """
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"


class _Channel:
    """The child's pipe to its parent; None in every other process."""

    descriptor: int | None = None


def _send(process: subprocess.Popen[bytes], request: Mapping[str, Any]) -> None:
    stdin = process.stdin
    assert stdin is not None  # noqa: S101 - Popen was asked for a pipe
    # A child that died before reading is reported by its exit status.
    with contextlib.suppress(BrokenPipeError), stdin:
        stdin.write(json.dumps(request).encode())


def _listen(lines: Iterable[bytes], on_progress: Callable[[str], None] | None) -> dict[str, Any] | None:
    for line in lines:
        if not line.endswith(b"\n"):
            break  # the child died in the middle of a line
        message: dict[str, Any] = json.loads(line)
        if "progress" not in message:
            return message
        if on_progress is not None:
            on_progress(message["progress"])
    return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _death(status: int, log_path: Path) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        hint = " (out of memory?)" if -status == signal.SIGKILL else ""
        return f"crashed ({name}){hint}"
    with log_path.open("rb") as log:
        log.seek(max(0, log_path.stat().st_size - _LOG_TAIL_BYTES))
        lines = log.read().decode(errors="replace").strip().splitlines()
    return f"ended without an answer (exit {status}{': ' + lines[-1][:300] if lines else ''})"


def _unpack(answer: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    if "error" in answer:
        raise errors.from_wire(answer["error"], answer["message"])
    if "bug" in answer:
        error = RuntimeError(answer["bug"])
        error.add_note(answer["traceback"])
        raise error
    return answer["result"]


def _write(descriptor: int, message: Mapping[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _fix_addresses() -> None:
    """Begin anew without address space randomization, once.

    TensorFlow's quantizer walks sets of pointers: with random addresses the same LSTM comes out with or without a
    SPLIT in float, one time in two. Where the kernel forbids it (some containers), conversion goes on as it is.
    """
    with contextlib.suppress(OSError, AttributeError):
        personality = ctypes.CDLL(None).personality
        personality.argtypes = [ctypes.c_ulong]
        now = personality(_ASK_PERSONALITY)
        if now >= 0 and not now & _ADDR_NO_RANDOMIZE and personality(now | _ADDR_NO_RANDOMIZE) >= 0:
            os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - itself, with what it was started with


def _run(request: Mapping[str, Any]) -> dict[str, Any]:
    module, _, name = request["function"].partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
        return {"result": codec.encode(function(**request["arguments"]))}
    except TflotillaError as error:
        return dict(errors.to_wire(error))
    except OSError as error:
        # A full disk or a folder without permission: the user's to mend, not a bug.
        return dict(
            errors.to_wire(
                errors.InputError(
                    f"{error.filename or 'a temporary file (TMPDIR says where they go)'}: {error.strerror or error}"
                )
            )
        )
    except MemoryError:
        return dict(errors.to_wire(ModelError("not enough memory on this machine")))
    except Exception as error:  # noqa: BLE001 - the other side of the pipe decides
        return {"bug": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


def main() -> None:
    """Serve one request: arguments on stdin, progress and the answer on the descriptor named in argv."""
    _fix_addresses()
    _die_with_parent()
    _Channel.descriptor = int(sys.argv[1])
    answer = _run(json.loads(sys.stdin.buffer.read()))
    _write(_Channel.descriptor, answer)
    # TensorFlow's threads may crash on the way out; the answer stands.
    os._exit(0)


if __name__ == "__main__":
    # The module the called functions import is this one by its full name, not `__main__`.
    importlib.import_module("tflotilla.host.models.child").main()
