# ruff: noqa: PTH105, PTH108, PTH110, PTH118, PTH119, PTH120, PTH123, PTH211, T201 - it lies on boards: os, no pathlib
"""Change a board's agent for a new one, watch whether that reports, and put the old one back if it doesn't.

    tflotilla-upgrade follow HOME ID   begin what `receive` staged under that id, or go on with it; tell how it goes
    tflotilla-upgrade ensure HOME      go on with what was begun, if anything (the launcher asks so at every start)
    tflotilla-upgrade run HOME         carry it out in this process (the systemd unit does)

`HOME/upgrade`: plan.json (what, and how far it is), new/ and before/ (files), pending (it was begun), lock, pid, log.

    staged → switching → watching → confirmed
                 │           └────→ undoing → undone

A new agent has reported when it answers, serves if one served before, and the broker took a report if it did before.
Rules it keeps: it depends on nothing that it changes, only on Python 3.10; every state is on disk before it is acted
on, and every action can be repeated: a kill or a power cut at any point is gone on from; a board that went down
`MAX_STARTS` times meanwhile gets its old agent. The launcher is the first that changes and the last that changes back,
because it brings this program up again.
What it does NOT do: receive anything, remove environments, judge a model.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from typing import Any, NoReturn

FINAL = ("confirmed", "undone")
MAX_STARTS = 3
#: So long the new agent must be found well: one that dies at once was up for a moment too.
SETTLE_S = 1.0
POLL_S = 0.25
#: So long a worker of the old agent that is about to run is waited for.
STARTING_S = 15.0
#: A program that hangs must not hang this one.
_PROGRAM_TIMEOUT_S = 120.0
_ANSWER_TIMEOUT_S = 10.0
_MAX_ANSWER = 4 << 20
_SIGN_OF_LIFE_S = 5.0
_SAID = 300
UNIT = "tflotilla-agent.service"
UPGRADE_UNIT = "tflotilla-upgrade.service"
Plan = dict[str, Any]


# Decisions


def lacking(before: Plan, state: Plan | None) -> str | None:
    """Say what the new agent lacks of what the old one did; None is nothing. `state` is None when it didn't answer."""
    if state is None:
        return "it does not answer"
    serving = (state.get("serving") or {}).get("digest")
    problem = state.get("problem")
    because = f": {problem}" if problem else ""
    # A deployment that the restart interrupted may have been undone: then what was there before it serves.
    if before.get("worker") == "running" and (
        state.get("worker") != "running" or serving not in (before.get("serving"), before.get("previous"))
    ):
        return f"the model that served before does not serve (its worker is {state.get('worker')}{because})"
    if before.get("reporting") and not state.get("reporting"):
        return f"the broker took no report of it, and it did from the one before{because}"
    return None


def baseline(state: Plan | None) -> Plan:
    """Return what is asked of the new agent, from what the old one said of itself."""
    if state is None:
        return {"answered": False}
    return {
        "answered": True,
        "worker": state.get("worker"),
        "serving": (state.get("serving") or {}).get("digest"),
        "previous": (state.get("previous") or {}).get("digest"),
        "reporting": state.get("reporting"),
    }


# What the decisions are carried out with


class Machine:
    """This board. Tests have others."""

    def __init__(self, home: str, *, by_systemd: bool) -> None:
        self._home = home
        self._by_systemd = by_systemd

    def step(self, what: str) -> None:
        """Hear what comes next."""

    def now(self) -> float:
        """Return seconds of a clock that only goes forward: a board's date may jump by years."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def stop(self) -> None:
        """End the agent, by force if need be."""
        if self._by_systemd:
            _call("systemctl", "stop", UNIT)
            return
        if _call(self._launcher(), "stop") is not None:
            for name in ("guard.pid", "agent.pid"):
                _kill(os.path.join(self._home, name))

    def start(self, timeout_s: float | None) -> str | None:
        """Start the agent; return why it doesn't come up, if that is known at once."""
        if self._by_systemd:
            # A changed unit, and one that failed too often.
            _call("systemctl", "daemon-reload")
            _call("systemctl", "reset-failed", UNIT)
            _call("systemctl", "enable", "--quiet", UNIT)
            return _call("systemctl", "restart", UNIT)
        # What an old launcher's agent doesn't know isn't asked of it.
        limit = () if timeout_s is None else ("--timeout", f"{timeout_s:g}")
        return _call(self._launcher(), "start", *limit, timeout_s=_PROGRAM_TIMEOUT_S + (timeout_s or 0))

    def state(self) -> Plan | None:
        """Return what the agent says of itself; None when it doesn't."""
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_TIMEOUT_S)
            # Through a descriptor: a socket's path is limited to some 100 bytes.
            folder = os.open(self._home, os.O_PATH | os.O_DIRECTORY)
            try:
                connection.connect(f"/proc/self/fd/{folder}/agent.sock")
            finally:
                os.close(folder)
            connection.sendall(b'{"verb":"state"}\n')
            with connection.makefile("rb") as stream:
                answer = json.loads(stream.readline(_MAX_ANSWER))
            state = answer.get("state")
            return state if isinstance(state, dict) else None
        return None

    def _launcher(self) -> str:
        return os.path.join(self._home, "bin", "tflotilla-agent")


def _call(*command: str, timeout_s: float = _PROGRAM_TIMEOUT_S) -> str | None:
    """Run a program; return what it said when it failed, in one line."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)[:_SAID]
    if done.returncode == 0:
        return None
    said = " ".join(done.stderr.decode(errors="replace").split()).removeprefix("tflotilla-agent: ")
    return said[-_SAID:] or f"{os.path.basename(command[0])} ended with status {done.returncode}"


def _kill(pid_file: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        with open(pid_file) as stream:
            pid = int(stream.read())
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            if b"tflotilla" in stream.read():
                os.kill(pid, signal.SIGKILL)


# The files


def _sync_folder(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: str, data: bytes, mode: int) -> None:
    """Write a file so that it is the old one or the new one, also after a power cut."""
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        os.fchmod(stream.fileno(), mode)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    _sync_folder(os.path.dirname(path))


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        _sync_folder(os.path.dirname(path))


def link(home: str, environment: str) -> None:
    """Let the link to the environment in use read so."""
    path = os.path.join(home, "environment")
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(environment, temporary)
    os.replace(temporary, path)
    _sync_folder(home)


def _folder(home: str) -> str:
    return os.path.join(home, "upgrade")


def load(home: str) -> Plan | None:
    """Return the plan, None when there is none that can be read."""
    try:
        with open(os.path.join(_folder(home), "plan.json"), "rb") as stream:
            plan = json.loads(stream.read())
    except (OSError, ValueError):
        return None
    return plan if isinstance(plan, dict) and "state" in plan else None


def save(home: str, plan: Plan) -> None:
    """Have a plan on disk."""
    write_whole(os.path.join(_folder(home), "plan.json"), json.dumps(plan).encode(), 0o600)


# The story


def carry_out(home: str, machine: Machine) -> Plan | None:
    """Go on with a plan to its end, from wherever it is; return it."""
    plan = load(home)
    while plan is not None and plan["state"] not in FINAL:
        machine.step(plan["state"])
        plan = _STEPS[plan["state"]](home, plan, machine)
        machine.step(f"to {plan['state']}")
        save(home, plan)
    machine.step("tidying")
    for name in ("new", "before"):
        shutil.rmtree(os.path.join(_folder(home), name), ignore_errors=True)
    _remove(os.path.join(_folder(home), "pending"))
    return plan


def _prepare(_home: str, plan: Plan, machine: Machine) -> Plan:
    until = machine.now() + STARTING_S
    state = machine.state()
    # What is just starting would be asked for nothing.
    while state is not None and state.get("worker") == "starting" and machine.now() < until:
        machine.wait(POLL_S)
        state = machine.state()
    return {**plan, "state": "switching", "before": baseline(state)}


def _switch(home: str, plan: Plan, machine: Machine) -> Plan:
    machine.stop()
    folder = os.path.join(_folder(home), "new")
    for file in sorted(plan["files"], key=lambda each: each["name"] != "launcher"):
        machine.step(f"writing {file['name']}")
        if file["keep"] and file["before"] is not None:
            # People edit it: theirs stays beside it.
            with open(os.path.join(_folder(home), "before", file["name"]), "rb") as stream:
                write_whole(f"{file['path']}.before", stream.read(), file["before"])
        with open(os.path.join(folder, file["name"]), "rb") as stream:
            write_whole(file["path"], stream.read(), file["mode"])
    for file in plan["removed"]:
        machine.step(f"removing {file['name']}")
        _remove(file["path"])
    machine.step("linking")
    link(home, plan["environment"]["after"])
    return {**plan, "state": "watching", "starts": 0}


def _watch(home: str, plan: Plan, machine: Machine) -> Plan:
    if plan["starts"] >= MAX_STARTS:
        return _failed(plan, f"the board went down {plan['starts']} times before it had reported")
    plan = {**plan, "starts": plan["starts"] + 1}
    save(home, plan)
    machine.step("starting")
    began = machine.now()
    problem = machine.start(plan["window_s"])
    if problem is not None:
        return _failed(plan, problem)
    well_since: float | None = None
    while True:
        problem = lacking(plan["before"], machine.state())
        now = machine.now()
        if problem is not None:
            well_since = None
            if now - began >= plan["window_s"]:
                return _failed(plan, problem)
        elif well_since is None:
            well_since = now
        elif now - well_since >= SETTLE_S:
            return {**plan, "state": "confirmed"}
        machine.wait(POLL_S)


def _failed(plan: Plan, reason: str) -> Plan:
    return {**plan, "state": "undoing", "reason": " ".join(reason.split())[:_SAID]}


def _undo(home: str, plan: Plan, machine: Machine) -> Plan:
    machine.stop()
    machine.step("linking back")
    link(home, plan["environment"]["before"])
    folder = os.path.join(_folder(home), "before")
    for file in sorted([*plan["files"], *plan["removed"]], key=lambda each: each["name"] == "launcher"):
        machine.step(f"restoring {file['name']}")
        if file["before"] is None:
            _remove(file["path"])
        else:
            with open(os.path.join(folder, file["name"]), "rb") as stream:
                write_whole(file["path"], stream.read(), file["before"])
    machine.step("starting the old one")
    problem = machine.start(None)
    until = machine.now() + plan["window_s"]
    while (state := machine.state()) is None and problem is None and machine.now() < until:
        machine.wait(POLL_S)
    return {**plan, "state": "undone", "old_runs": state is not None}


_STEPS = {"staged": _prepare, "switching": _switch, "watching": _watch, "undoing": _undo}


# The processes


def run(home: str) -> int:
    """Carry out what was begun; whoever comes second leaves it to the first."""
    folder = _folder(home)
    if not os.path.exists(os.path.join(folder, "pending")):
        return 0
    lock = os.open(os.path.join(folder, "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    # Nobody receives while this goes on; who receives now is waited for.
    receiving = os.open(os.path.join(home, "incoming", "bootstrap.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(receiving, fcntl.LOCK_EX)
    plan = load(home)
    carry_out(home, Machine(home, by_systemd=bool(plan and plan["systemd"])))
    return 0


def ensure(home: str) -> int:
    """Have a process of its own that carries out what was begun, whoever called this one."""
    plan = load(home)
    if plan is None or not os.path.exists(os.path.join(_folder(home), "pending")) or _is_carried_out(home):
        return 0
    if plan["systemd"]:
        for command in (("daemon-reload",), ("enable", "--quiet", UPGRADE_UNIT), ("start", "--no-block", UPGRADE_UNIT)):
            _call("systemctl", *command)
    elif os.fork() == 0:
        _become_daemon(home)
    else:
        os.wait()
    return 0


def _is_carried_out(home: str) -> bool:
    try:
        handle = os.open(os.path.join(_folder(home), "lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _become_daemon(home: str) -> NoReturn:
    """Leave the session; then one process carries it out, and another starts that again if it is killed."""
    try:
        os.setsid()
        if os.fork() == 0:
            # A group of its own: who removes the agent ends this with one signal.
            os.setpgid(0, 0)
            os.chdir("/")
            os.umask(0o077)
            null = os.open(os.devnull, os.O_RDWR)
            log = os.open(os.path.join(_folder(home), "log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            for standard, source in enumerate((null, log, log)):
                os.dup2(source, standard)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            write_whole(os.path.join(_folder(home), "pid"), b"%d\n" % os.getpid(), 0o600)
            _watch_over(home)
    finally:
        os._exit(0)


def _watch_over(home: str) -> None:
    wait_s = 0.5
    while True:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = run(home)
            except BaseException:  # noqa: BLE001 - the log is all that would hear of it
                traceback.print_exc()
            finally:
                os._exit(code)
        if os.waitpid(child, 0)[1] == 0:
            return
        time.sleep(wait_s)
        wait_s = min(60.0, 2 * wait_s)


def follow(home: str, wanted: str) -> int:
    """Begin what is staged under an id, and tell how what is going on goes until it is over."""
    plan = load(home)
    if plan is not None and plan["id"] == wanted and plan["state"] == "staged":
        write_whole(os.path.join(_folder(home), "pending"), b"", 0o600)
    told: tuple[object, ...] = ()
    told_at = ensured_at = float("-inf")
    while plan is not None:
        over = plan["state"] in FINAL and not os.path.exists(os.path.join(_folder(home), "pending"))
        if not over and time.monotonic() - ensured_at >= _SIGN_OF_LIFE_S:
            ensure(home)
            ensured_at = time.monotonic()
        now = (plan["id"], plan["state"])
        if now != told or time.monotonic() - told_at >= _SIGN_OF_LIFE_S:
            told, told_at = now, time.monotonic()
            frame = {key: plan.get(key) for key in ("id", "state", "reason", "old_runs", "window_s")}
            print(json.dumps(frame), flush=True)
        if over:
            return 0
        time.sleep(POLL_S)
        plan = load(home)
    print(json.dumps({"id": "", "state": "lost"}), flush=True)
    return 0


def main() -> int:
    """Read the command line."""
    verb, home = sys.argv[1:3]
    os.umask(0o077)
    if verb == "follow":
        return follow(home, sys.argv[3])
    return {"run": run, "ensure": ensure}[verb](home)


if __name__ == "__main__":
    sys.exit(main())
