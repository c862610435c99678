"""`tflotilla-agent`: what the host's session, systemd, the guard and people type on a board.

Every failure is one line on stderr and the exit code of its class (`shared.contract.errors`). What runs a model is
imported by `run` alone: `session` has to answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from tflotilla.device import __version__
from tflotilla.device.home import VARIABLE, Home, find
from tflotilla.shared.contract import errors
from tflotilla.shared.contract.errors import BoardError, TflotillaError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.shared.contract.session import Reply

_EXIT_BUG = 70
_EXIT_INTERRUPTED = 130
_STOP_TIMEOUT_S = 30.0
_EPILOG = """exit codes: 0 done, 2 usage, 3 bad configuration, 7 the board lacks something or no agent runs,
8 signature or digest, 9 probe failed, 11 conflict, 70 a bug of ours

example: tflotilla-agent status"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[Home, argparse.Namespace], int] = options.command
    try:
        return command(find(getattr(options, "home", None), os.environ), options)
    except TflotillaError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted")
        return _EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if os.environ.get("TFLOTILLA_DEBUG"):
            raise
        _complain(f"a bug of tflotilla: {error!r} (run again with TFLOTILLA_DEBUG=1 to see where)")
        return _EXIT_BUG


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--home", metavar="PATH", default=argparse.SUPPRESS, help=f"the agent's folder (default: ${VARIABLE}, or found)"
    )
    parser = argparse.ArgumentParser(
        prog="tflotilla-agent",
        description="Run the current bundle on this board and report over MQTT.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, function, text in (
        ("run", _run, "run the agent in the foreground (systemd and the guard do)"),
        ("session", _session, "speak with the host over stdin and stdout"),
        ("start", _start, "start the agent in the background, guarded, where there is no systemd"),
        ("stop", _stop, "stop the agent and its guard"),
        ("status", _status, "say what serves (--json: the whole state)"),
        ("rollback", _rollback, "bring the previous bundle back"),
        ("facts", _facts, "print what this board is, as JSON"),
        ("version", _version, "print the agent's version"),
    ):
        verb = verbs.add_parser(name, help=text, description=text, parents=[common], allow_abbrev=False)
        verb.set_defaults(command=function)
        if name == "status":
            verb.add_argument("--json", action="store_true", help="print JSON")
        if name == "start":
            verb.add_argument("--timeout", type=float, metavar="S", help="how long the agent may take to answer")
    return parser


def _run(home: Home, _options: argparse.Namespace) -> int:
    home.make()
    from tflotilla.device import agent, scheduling

    scheduling.stand_back()
    return agent.run(home)


def _session(home: Home, _options: argparse.Namespace) -> int:
    from tflotilla.device import session_start

    return session_start.serve(str(home.path), sys.stdin.buffer, sys.stdout.buffer)


def _start(home: Home, options: argparse.Namespace) -> int:
    from tflotilla.device import config, control, guard

    if guard.status(home) is None and control.is_running(home):
        message = f"an agent runs in {home.path} already, without a guard (systemd's, or one started by hand)"
        raise errors.ConflictError(message)
    config.load(home.config)  # said here, at once, rather than by an agent that dies in the background
    timeout_s = guard.START_TIMEOUT_S if options.timeout is None else options.timeout
    pid = guard.start(home, guard.default_command(home), timeout_s=timeout_s)
    _print(f"the agent runs, guarded by process {pid}; its log is {home.log}")
    return 0


def _stop(home: Home, _options: argparse.Namespace) -> int:
    from tflotilla.device import control, guard

    if guard.stop(home):
        _print("stopped")
        return 0
    if not control.is_running(home):
        _print("no agent runs")
        return 0
    for reply in control.ask(home, control.ControlRequest(verb="stop")):
        _raise_if_refused(reply)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while control.is_running(home):
        if time.monotonic() > deadline:
            message = f"the agent in {home.path} does not end; see its log"
            raise BoardError(message)
        time.sleep(0.05)
    _print("stopped (systemd starts it again if it is its unit: use `systemctl stop tflotilla-agent`)")
    return 0


def _status(home: Home, options: argparse.Namespace) -> int:
    from tflotilla.device import control
    from tflotilla.shared.contract import codec

    (reply,) = control.ask(home, control.ControlRequest(verb="state"))
    _raise_if_refused(reply)
    state = reply.state
    if state is None:
        message = "the agent did not say how it is; update it"
        raise BoardError(message)
    if options.json:
        _print(codec.canonical_json(state).decode())
        return 0
    serving = f"{state.serving.name}-{state.serving.version}" if state.serving else "nothing"
    _print(f"serving    {serving}")
    _print(f"previous   {f'{state.previous.name}-{state.previous.version}' if state.previous else '-'}")
    _print(f"worker     {state.worker}{f' ({state.problem})' if state.problem else ''}")
    _print(f"runtime    {state.runtime or '-'}, {state.num_threads} thread{'s' if state.num_threads > 1 else ''}")
    if state.delegate.requested is not None:
        active = state.delegate.active or f"none, on the CPU: {state.delegate.reason or 'not tried yet'}"
        _print(f"delegate   {active}")
    _print(f"outbox     {state.outbox_rows} waiting, {state.outbox_dropped} dropped")
    return 0


def _rollback(home: Home, _options: argparse.Namespace) -> int:
    from tflotilla.device import control

    for reply in control.ask(home, control.ControlRequest(verb="rollback", deployment=os.urandom(8).hex())):
        _raise_if_refused(reply)
        status = reply.status
        if status is None:
            continue
        _print(f"{status.title}: {status.state.value}{f' ({status.detail})' if status.detail else ''}")
        if status.error is not None:
            raise errors.from_wire(status.error, status.detail)
    return 0


def _facts(home: Home, _options: argparse.Namespace) -> int:
    from tflotilla.device import facts
    from tflotilla.shared.contract import codec

    _print(codec.canonical_json(facts.read(home.path)).decode())
    return 0


def _version(_home: Home, _options: argparse.Namespace) -> int:
    _print(f"tflotilla-agent {__version__}")
    return 0


def _raise_if_refused(reply: Reply) -> None:
    if reply.error is not None:
        raise errors.from_wire(reply.error, reply.message or "")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _complain(message: str) -> None:
    """One line, whatever foreign words it holds."""
    safe = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(message.split("\n")))
    with contextlib.suppress(OSError):
        sys.stderr.write(f"tflotilla-agent: {safe}\n")


if __name__ == "__main__":
    sys.exit(main())
