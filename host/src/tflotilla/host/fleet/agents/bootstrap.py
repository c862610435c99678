"""Bring the agent onto a board: enrol it once, bootstrap it as often as you like.

Bootstrap, over one connection: survey → build the environment here → push what the board lacks (resuming what broke
off) → launcher, agent.toml, signers, password → start the agent, or have the board change it for the new one → hello.

Rules it keeps: what is there is not sent again, and an agent that is up to date is not restarted; a board needs no pip
and no internet; a cut leaves the old environment in use; an agent that doesn't report in its window is undone.
What it does NOT do: send bundles; install Debian packages.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tflotilla.host.fleet import sessions
from tflotilla.host.fleet.agents import environments, layers, onboard, probe, service, systemd, upgrade
from tflotilla.host.fleet.lines import cuts, ssh
from tflotilla.host.fleet.lines.duplex import CommandEndedError
from tflotilla.shared.contract import codec, errors, layout
from tflotilla.shared.contract.board import check_board_id
from tflotilla.shared.contract.errors import (
    BoardError,
    ConfigError,
    ConflictError,
    ContractError,
    IdentityError,
    UsageError,
)
from tflotilla.shared.contract.session import Hello

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.host.fleet.agents.environments import Target
    from tflotilla.host.fleet.agents.layers import Layer
    from tflotilla.host.fleet.agents.probe import Ground
    from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
    from tflotilla.host.fleet.lines.duplex import Duplex
    from tflotilla.host.fleet.lines.ssh import HostKey, Link

_RECEIVE_TIMEOUT_S = 600.0
_START_TIMEOUT_S = 120.0
_PIECE_BYTES = 256 << 10
_FRAME_BYTES = 1 << 20
#: Present while the agent has not been restarted after a change: a cut in between must not hide it.
_STALE = "incoming/restart-pending"
#: What `session` runs, in a shell's single quotes.
_SESSION = "import sys; from tflotilla.device.session_start import main; sys.exit(main())"
#: Reads a length and that many bytes of script from stdin, then gives the rest of stdin to the script.
_LOADER = "import sys;s=sys.stdin.buffer;exec(compile(s.read(int(s.readline())),'tflotilla','exec'))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrapped:
    """What a bootstrap did."""

    board: str
    home: str
    #: Digest of the environment in use now.
    environment: str
    target: str
    #: What was sent: `environment`, `agent.toml`, …; empty when everything was there.
    changed: tuple[str, ...]
    bytes_sent: int
    hello: Hello
    #: How often the line broke meanwhile.
    cuts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    runtime: environments.RuntimeChoice
    window_s: float
    #: What this bootstrap's upgrade is called on the board: after a cut it is known again.
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    name: str
    data: bytes
    mode: int


def enrol(
    name: str,
    entry: BoardEntry,
    fleet: Fleet,
    *,
    fingerprint: str | None = None,
    confirm: Callable[[HostKey], bool],
) -> tuple[Fleet, HostKey]:
    """Add a board and pin the host key it shows now.

    Args:
        name: its BoardId.
        entry: how to reach it.
        fleet: the fleet it joins.
        fingerprint: `SHA256:…`; when given, a host key of this fingerprint is demanded.
        confirm: asked with the key that the board showed, when no fingerprint was given.

    Raises:
        UnreachableError: it can't be reached.
        IdentityError: no key has the fingerprint, or `confirm` said no.
        UsageError: the name is taken or can't be one.

    """
    try:
        check_board_id(name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if name in fleet.boards:
        message = f"the fleet has a board {name} already; `tflotilla board remove {name}` first"
        raise UsageError(message)
    keys = ssh.fetch_host_keys(name, entry, fleet, every_kind=fingerprint is not None)
    if fingerprint is not None:
        chosen = next((key for key in keys if key.fingerprint == _normal(fingerprint)), None)
        if chosen is None:
            shown = ", ".join(f"{key.fingerprint} ({key.kind})" for key in keys)
            message = f"{name} shows {shown}, not {fingerprint}: not the machine you mean, or a mistyped fingerprint"
            raise IdentityError(message)
    else:
        chosen = keys[0]
        if not confirm(chosen):
            message = f"{name} was not added: its host key {chosen.fingerprint} was not accepted"
            raise IdentityError(message)
    return fleet.add(name, entry, chosen.line), chosen


def bootstrap(
    name: str,
    fleet: Fleet,
    *,
    runtime: environments.RuntimeChoice = "auto",
    window_s: float = upgrade.DEFAULT_WINDOW_S,
    on_step: Callable[[str], None] = lambda _text: None,
    on_bytes: Callable[[int, int], None] = lambda _sent, _total: None,
    pause: Callable[[float], None] = time.sleep,
) -> Bootstrapped:
    """Install or update the agent of one board and see it up.

    Args:
        name: the board.
        fleet: its fleet.
        runtime: which runtimes its environment holds.
        window_s: how long a new agent may take to report before the old one is put back.
        on_step: hears what is being done.
        on_bytes: hears how much of the environment is on the board, and how much there is, in bytes.
        pause: waits between attempts, in seconds.

    Raises:
        UnreachableError: off, or the line broke too often.
        IdentityError: wrong host key or login.
        BoardError: no or too old Python, no wheels for it, no space, an agent that doesn't come up; one that replaces
            another is undone then.
        ConfigError: fleet.toml: agent settings, signers, password file.

    """
    entry = fleet.board(name)
    # Before anything is asked of the board: a mistake in fleet.toml costs no connection.
    _check_source(fleet, fleet.agent_config(name, home="/").source.kind, name)
    fleet.allowed_signers()
    fleet.mqtt_files()
    wanted = _Wanted(runtime=runtime, window_s=window_s, name=os.urandom(8).hex())
    changed: set[str] = set()
    done = cuts.outlived(
        name,
        fleet,
        lambda link: _attempt(link, name, entry, fleet, wanted, on_step, on_bytes, changed),
        pause=pause,
        on_cut=lambda: on_step("the connection was lost; trying again"),
    )
    fleet.save_hello(name, done.result.hello)
    return dataclasses.replace(done.result, bytes_sent=done.bytes_sent, cuts=done.cuts)


def _attempt(
    link: Link,
    name: str,
    entry: BoardEntry,
    fleet: Fleet,
    wanted: _Wanted,
    on_step: Callable[[str], None],
    on_bytes: Callable[[int, int], None],
    changed: set[str],
) -> Bootstrapped:
    on_step("asking what the board is")
    ground = probe.survey(link, entry.python)
    home = probe.place(ground, entry.install, name)
    if not ground.ssh_keygen:
        message = f"{name} has no ssh-keygen to verify bundles with; install OpenSSH's client (openssh-client)"
        raise BoardError(message)
    target = _target(ground, wanted.runtime, name)
    built = layers.environment(target, on_step=on_step)
    files = _files(name, fleet, ground, home)
    answer = _push(link, ground, home, built, files, wanted, on_step, on_bytes, changed)
    while isinstance(answer.get("upgrade"), dict):
        # Somebody else's that goes on, or ours that went on while the line was cut.
        progress = upgrade.parse(answer["upgrade"], name)
        if not progress.over:
            progress = upgrade.follow(link, home, progress.id, on_step)
        if progress.id == wanted.name:
            upgrade.judge(progress, name)
        answer = _push(link, ground, home, built, files, wanted, on_step, on_bytes, changed)
    if "upgrade" in answer:
        progress = upgrade.follow(link, home, wanted.name, on_step)
        if progress.id != wanted.name:
            message = f"{name}: another bootstrap was quicker; run this one again"
            raise ConflictError(message)
        upgrade.judge(progress, name)
    restart = bool(answer.get("stale"))
    if restart:
        on_step("starting the agent")
    _start(link, ground, home, restart=restart, window_s=wanted.window_s)
    hello = _await(link, entry, wanted.window_s)
    return Bootstrapped(
        board=name,
        home=home,
        environment=built[-1].digest,
        target=str(target),
        changed=tuple(sorted(changed)),
        bytes_sent=0,
        hello=hello,
    )


def purge(name: str, fleet: Fleet) -> None:
    """Stop a board's agent and remove all that it had there: environments, bundles, reports not yet delivered.

    Raises:
        UnreachableError, IdentityError: as everywhere; nothing was removed.
        BoardError: something could not be removed.

    """
    entry = fleet.board(name)
    with ssh.connect(name, entry, fleet) as link:
        script = service.purge(entry.install)
        done = link.run(f"exec sh -c {shlex.quote(script)} </dev/null", timeout_s=_START_TIMEOUT_S)
    if done.exit_status != 0:
        message = f"{name}: the agent can't be removed: {_said(done.stderr) or f'exit status {done.exit_status}'}"
        raise BoardError(message)


def launcher(home: str, python: str, *, system_packages: bool = False) -> bytes:
    """Return the script that runs the agent of the environment in use.

    With `system_packages` the distribution's Python packages are found too, behind the environment's.
    """
    # Without `site` a Python starts in half the time, and takes nothing that happens to be installed on the board.
    options = "" if system_packages else "-S "
    # The link is followed once: a running agent and its children stay in the environment they started in.
    # `cd` because `-m` puts the working folder in front of everything else.
    return f"""\
#!/bin/sh
# Runs tflotilla's agent in the environment in use; written by `tflotilla board bootstrap`.
home={shlex.quote(home)}
cd "$home/{layout.ENVIRONMENT}" 2>/dev/null && environment=$(pwd -P) || {{
    echo "tflotilla-agent: $home/{layout.ENVIRONMENT} is missing; run 'tflotilla board bootstrap' again" >&2
    exit {BoardError.exit_code}
}}
# An upgrade that was interrupted is gone on with.
if [ -e "$home/{layout.UPGRADE_PENDING}" ]; then
    "$home/{layout.UPGRADER}" ensure "$home" </dev/null >/dev/null 2>&1 &
fi
export TFLOTILLA_HOME="$home" PYTHONPATH="$environment:$environment/{environments.PACKAGES}" PYTHONNOUSERSITE=1
# Compiled modules stay beside the sources: starting is faster and every process smaller.
unset PYTHONDONTWRITEBYTECODE
# Begun for every push: without what `site` and `-m` bring along it answers in half the time.
[ "$*" = session ] && exec {shlex.quote(python)} -S -c '{_SESSION}'
exec {shlex.quote(python)} {options}-m tflotilla.device "$@"
""".encode()


def _check_source(fleet: Fleet, kind: str, name: str) -> None:
    """Refuse here what the agent would refuse there, after the one that serves was stopped for it."""
    known = layers.sources()
    if kind not in known:
        message = f"{fleet.path}: boards.{name}.agent.source.kind: {kind!r} is no source; known are {', '.join(known)}"
        raise ConfigError(message)


def _target(ground: Ground, runtime: environments.RuntimeChoice, name: str) -> Target:
    system = environments.System(
        numpy=ground.numpy or environments.Installed(),
        pillow=ground.pillow or environments.Installed(),
        hard_float=ground.hard_float,
    )
    return environments.target(dataclasses.replace(ground.facts, hostname=name), runtime, system)


def _files(name: str, fleet: Fleet, ground: Ground, home: str) -> tuple[_File, ...]:
    import tomli_w

    config = codec.encode(fleet.agent_config(name, home=home))
    bare_32 = ground.facts.arch == environments.ARM_32
    files = [
        _File(name="launcher", data=launcher(home, ground.executable, system_packages=bare_32), mode=0o755),
        _File(name=layout.CONFIG, data=tomli_w.dumps(_without_none(config)).encode(), mode=0o600),
        _File(name=layout.ALLOWED_SIGNERS, data=fleet.allowed_signers().read_bytes(), mode=0o644),
    ]
    files += [_File(name=file, data=data, mode=0o600) for file, data in fleet.mqtt_files().items()]
    files += [_File(name=file, data=data, mode=0o755) for file, data in upgrade.programs(ground.executable).items()]
    if _by_systemd(ground, home):
        files.append(_File(name="unit", data=systemd.UNIT.encode(), mode=0o644))
        files.append(_File(name="upgrade-unit", data=systemd.UPGRADE.encode(), mode=0o644))
    return tuple(files)


def _push(
    link: Link,
    ground: Ground,
    home: str,
    built: Sequence[Layer],
    files: Sequence[_File],
    wanted: _Wanted,
    on_step: Callable[[str], None],
    on_bytes: Callable[[int, int], None],
    changed: set[str],
) -> dict[str, Any]:
    """Bring layers and files onto the board; return its last word: `stale`, or the `upgrade` staged or going on."""
    script = onboard.script("receive")
    plan = {
        "home": home,
        "stale": _STALE,
        "upgrade": wanted.name,
        "window_s": wanted.window_s,
        "systemd": _by_systemd(ground, home),
        "layers": [
            {
                "digest": layer.digest,
                "size": layer.archive_bytes,
                "sha256": layer.archive_sha256,
                "unpacked": layer.unpacked_bytes,
                "packages": layer.packages,
            }
            for layer in built
        ],
        "files": [
            {
                "name": file.name,
                "mode": file.mode,
                "size": len(file.data),
                "sha256": hashlib.sha256(file.data).hexdigest(),
            }
            for file in files
        ],
    }
    command = f"exec {shlex.quote(ground.executable)} -c {shlex.quote(_LOADER)}"
    with link.open(command) as duplex:
        duplex.write(b"%d\n" % len(script) + script + json.dumps(plan).encode() + b"\n")
        answer = _frame(link, duplex)
        if "layers" not in answer:
            return answer
        total = sum(
            layer.archive_bytes for layer, there in zip(built, answer["layers"], strict=True) if not there["have"]
        )
        gone = 0
        for layer, there in zip(built, answer["layers"], strict=True):
            if there["have"]:
                continue
            what = "environment" if layer.packages is None else "agent"
            on_step(f"sending the {what} ({(layer.archive_bytes - there['offset']) / 1e6:.1f} MB)")
            _send_archive(duplex, layer, there["offset"], functools.partial(_report, on_bytes, gone, total))
            on_step(f"unpacking the {what} on the board")
            _frame(link, duplex)
            changed.add(what)
            gone += layer.archive_bytes
        differing = set(answer["files"])
        for file in files:
            if file.name in differing:
                duplex.write(file.data)
        last = _frame(link, duplex)
    changed.update(last["changed"])
    return last


def _report(on_bytes: Callable[[int, int], None], before: int, total: int, sent: int) -> None:
    on_bytes(before + sent, total)


def _send_archive(duplex: Duplex, layer: Layer, offset: int, on_bytes: Callable[[int], None]) -> None:
    with layer.archive.open("rb") as stream:
        stream.seek(offset)
        sent = offset
        on_bytes(sent)
        while piece := stream.read(_PIECE_BYTES):
            try:
                duplex.write(piece)
            except CommandEndedError:
                # It told why before it ended; the next frame says it.
                return
            sent += len(piece)
            on_bytes(sent)


def _frame(link: Link, duplex: Duplex) -> dict[str, Any]:
    while True:
        line = duplex.readline(timeout_s=_RECEIVE_TIMEOUT_S, limit_bytes=_FRAME_BYTES)
        if not line.endswith(b"\n"):
            done = duplex.finish(timeout_s=_RECEIVE_TIMEOUT_S)
            said = _said(done.stderr) or "it said nothing"
            message = f"{link.board}: receiving the environment ended with status {done.exit_status}: {said}"
            raise BoardError(message)
        if line.startswith(b"{"):
            break
    frame = codec.parse_json(line, f"{link.board}: bootstrap")
    if not isinstance(frame, dict):
        message = f"{link.board}: bootstrap: not a frame"
        raise ContractError(message)
    if "error" in frame:
        raise errors.from_wire(str(frame["error"]), f"{link.board}: {frame.get('message')}")
    return frame


def _by_systemd(ground: Ground, home: str) -> bool:
    return ground.root and ground.facts.systemd and home == layout.SYSTEM_HOME


def _start(link: Link, ground: Ground, home: str, *, restart: bool, window_s: float) -> None:
    script = service.start(
        home, by_systemd=_by_systemd(ground, home), restart=restart, stale=_STALE, timeout_s=window_s
    )
    done = link.run(f"exec sh -c {shlex.quote(script)} </dev/null", timeout_s=_START_TIMEOUT_S + window_s)
    if done.exit_status != 0:
        said = _said(done.stderr).removeprefix("tflotilla-agent: ")
        message = f"{link.board}: the agent doesn't start: {said or f'exit status {done.exit_status}'}"
        raise BoardError(message)


def _await(link: Link, entry: BoardEntry, window_s: float) -> Hello:
    deadline = time.monotonic() + window_s
    while True:
        with sessions.open_session(link, entry.install) as session:
            session.bye()
            if session.hello.running:
                return session.hello
        if time.monotonic() > deadline:
            message = f"{link.board}: the agent was started and does not answer; see agent.log in its home"
            raise BoardError(message)
        time.sleep(0.2)


def _said(stderr: bytes) -> str:
    return " ".join(stderr.decode(errors="replace").split())[-300:]


def _normal(fingerprint: str) -> str:
    return fingerprint if fingerprint.startswith("SHA256:") else f"SHA256:{fingerprint}"


def _without_none(document: Any) -> Any:  # noqa: ANN401 - TOML has no null
    if isinstance(document, dict):
        return {key: _without_none(value) for key, value in document.items() if value is not None}
    return document
