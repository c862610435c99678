"""Start the processes of a lab: `python -m tflotilla.host.lab.launch`, a `LaunchPlan` as JSON on stdin.

It imports what a board needs once and forks: twenty boards cost one start of Python. Each process that is ready adds
a line of JSON (`Ready`) to stdout, which it closes then; each one that can't start says so there.

Rules it keeps: every process is in a session of its own, ignores the terminal, logs to its own file, and is marked in
its environment (`processes.MARK`), so that `lab down` finds it whatever happened in between.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.host.lab import board, broker, processes
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import TflotillaError

if TYPE_CHECKING:
    from collections.abc import Callable

#: The name of the broker among the ready lines; no BoardId has a dot.
BROKER = ".broker"
_FAILED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """What is to be started. `lifeline` is a descriptor: when its other end closes, everything ends."""

    boards: tuple[board.BoardSpec, ...] = ()
    broker: broker.BrokerSpec | None = None
    lifeline: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """One process that listens, or the reason why it does not."""

    name: str
    process: processes.RecordedProcess | None = None
    port: int = 0
    error: str | None = None


def main() -> None:
    """Fork what the plan names; each child answers for itself."""
    plan = codec.decode(LaunchPlan, codec.parse_json(sys.stdin.buffer.read(), "launch plan"), "launch plan")
    for spec in plan.boards:
        _fork(spec.name, Path(spec.folder) / "board.log", functools.partial(board.run, spec, lifeline=plan.lifeline))
    if plan.broker is not None:
        log = Path(plan.broker.folder) / "broker.log"
        _fork(BROKER, log, functools.partial(broker.keep, plan.broker, lifeline=plan.lifeline))


def _fork(name: str, log: Path, run: Callable[[Callable[[int], None]], None]) -> None:
    if os.fork() > 0:
        return
    os.setsid()
    answer = os.dup(1)
    os.set_inheritable(answer, False)  # noqa: FBT003 - the os module's signature
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for spare in (nothing, descriptor):
        os.close(spare)

    def say(ready: Ready) -> None:
        # One short write to a pipe is atomic: the lines of many boards don't mix.
        os.write(answer, codec.canonical_json(ready) + b"\n")
        os.close(answer)

    status = 0
    said = False

    def listening(port: int) -> None:
        nonlocal said
        said = True
        say(Ready(name=name, process=processes.record(os.getpid()), port=port))

    try:
        run(listening)
    except (OSError, TflotillaError) as error:
        sys.stderr.write(f"{name}: {error}\n")
        status = _FAILED
        if not said:
            say(Ready(name=name, error=str(error)))
    except Exception:  # noqa: BLE001 - a forked child must not run on into its parent's code
        traceback.print_exc()
        status = _FAILED
    finally:
        sys.stderr.flush()
        # Not sys.exit: the launcher's own clean-up belongs to the launcher.
        os._exit(status)


if __name__ == "__main__":
    main()
