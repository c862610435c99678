"""Labs: virtual boards and a broker on this machine, brought up, listed and taken down.

    with lab.up(boards=3, bound=True) as here:
        here.boards[0].port, here.broker.password_file, here.fleet_file

A lab is a folder (`$TFLOTILLA_LAB_HOME`, else `~/.local/state/tflotilla/labs/NAME`) and marked processes. `up` returns
when every board and the broker answer; `down` returns when nothing of it is left, also after a crash of anything.

Rules it keeps: loopback only, no root, no container, nothing of the machine's own configuration is touched; a lab that
does not come up whole is taken away again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from tflotilla.host.fleet.inventory.fleet import BoardEntry
from tflotilla.host.lab import board as board_process
from tflotilla.host.lab import broker as broker_process
from tflotilla.host.lab import fleet_folder, keys, launch, outfit, processes
from tflotilla.shared.contract import codec, topics
from tflotilla.shared.contract.agent_config import MqttConfig
from tflotilla.shared.contract.errors import BoardError, ConflictError, InputError, TflotillaError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from tflotilla.host.lab.faults import Faults

HOST = "127.0.0.1"
MOST_BOARDS = 200
_RECORD = "lab.json"
_START_TIMEOUT_S = 60.0
_DOWN_TIMEOUT_S = 10.0
_FAULTS_TIMEOUT_S = 20.0
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class LabBoard:
    """One virtual board. `host_key` is its public line, `type base64`."""

    name: str
    host: str
    port: int
    user: str
    home: Path
    host_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabBroker:
    """The lab's MQTT broker."""

    host: str
    port: int
    username: str
    password_file: Path
    kind: broker_process.Kind

    @property
    def config(self) -> MqttConfig:
        """How one connects to it."""
        return MqttConfig(host=self.host, port=self.port, username=self.username, password_file=str(self.password_file))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A process of the lab, as recorded; port and key live on while the process may be replaced."""

    port: int
    process: processes.RecordedProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """`lab.json`."""

    id: str
    name: str
    created: float
    broker: broker_process.Kind
    parts: Mapping[str, _Part] = field(default_factory=dict)


class Lab:
    """A lab that is up. As a context manager it goes down at the end of the block."""

    def __init__(self, folder: Path, record: _Record, lifeline: tuple[int, int] | None = None) -> None:
        self.folder = folder
        self._record = record
        #: Both ends of a pipe: the processes of the lab hold the first and end when nobody holds the second.
        self._lifeline = lifeline

    @property
    def name(self) -> str:
        """The lab's name, which is its fleet's name too."""
        return self._record.name

    @property
    def created(self) -> float:
        """When it came up, in Unix seconds."""
        return self._record.created

    @property
    def boards(self) -> tuple[LabBoard, ...]:
        """The boards, in the order of their numbers."""
        names = sorted((name for name in self._record.parts if name != launch.BROKER), key=_by_number)
        return tuple(self._board(name) for name in names)

    def _board(self, name: str) -> LabBoard:
        dressed = self._outfit(name)
        try:
            public = dressed.host_key.with_name("host_key.pub").read_text().split()
        except OSError as error:
            message = f"lab {self.name!r} is damaged: {error.filename} is gone; `tflotilla lab down {self.name}`"
            raise BoardError(message) from error
        return LabBoard(
            name=name,
            host=HOST,
            port=self._record.parts[name].port,
            user=outfit.user(),
            home=dressed.home,
            host_key=" ".join(public[:2]),
        )

    @property
    def client_key(self) -> Path:
        """The private key that every board lets in."""
        return self.folder / "client_key"

    @property
    def broker(self) -> LabBroker:
        """Where the boards report to."""
        return LabBroker(
            host=HOST,
            port=self._record.parts[launch.BROKER].port,
            username=broker_process.USERNAME,
            password_file=self.folder / "broker" / broker_process.PASSWORD,
            kind=self._record.broker,
        )

    @property
    def fleet_file(self) -> Path:
        """The inventory with all the boards in it: what `--fleet` and TFLOTILLA_FLEET want."""
        return self.folder / "fleet" / "fleet.toml"

    def running(self, name: str) -> bool:
        """Whether that board is on. Raises UsageError for a board that is not of this lab."""
        return processes.alive(self._part(name).process)

    @property
    def broker_running(self) -> bool:
        """Whether the broker is up."""
        return processes.alive(self._record.parts[launch.BROKER].process)

    def set_faults(self, name: str, faults: Faults) -> None:
        """Give a board these faults instead of those it has, and return when it obeys them.

        Raises:
            UsageError: not a board of this lab.
            BoardError: the board is off.

        """
        part = self._part(name)
        folder = self._outfit(name).folder
        order = codec.canonical_json(faults)
        (folder / board_process.FAULTS_OBEYED).unlink(missing_ok=True)
        (folder / board_process.FAULTS).write_bytes(order)
        if not processes.alive(part.process):
            message = f"{name} is off; its faults hold when it is switched on"
            raise BoardError(message)
        os.kill(part.process.pid, signal.SIGHUP)
        obeyed = folder / board_process.FAULTS_OBEYED
        if not processes.wait_until(
            lambda: obeyed.exists() and obeyed.read_bytes() == order, timeout_s=_FAULTS_TIMEOUT_S
        ):
            message = f"{name} does not obey; see {folder}/board.log"
            raise BoardError(message)

    def change_host_key(self, name: str) -> None:
        """Give a board a new host key, as a stranger at its address would have; the inventory keeps the old one."""
        self._part(name)
        keys.generate(self._outfit(name).host_key, comment=name)

    def cut_power(self, name: str) -> None:
        """Kill everything on a board at once, its SSH server too; the files stay as they are."""
        part = self._part(name)
        if processes.alive(part.process):
            # Stopped first: what sees its parent die must not have the time to do something about it. The board
            # itself goes last: while it is there, whatever loses its parent is still known to be below it.
            below = processes.descendants(part.process.pid)
            processes.send((part.process.pid, *below), signal.SIGSTOP)
            processes.kill_until_none(lambda: processes.descendants(part.process.pid))
        if not processes.kill_until_none(lambda: self._left_of(name, part)):
            message = f"{name}: some of its processes can't be killed"
            raise BoardError(message)

    def _left_of(self, name: str, part: _Part) -> set[int]:
        own = {part.process.pid} if processes.alive(part.process) else set()
        return processes.marked(f"{self._record.id}/{name}\0") | own

    def power_on(self, name: str) -> None:
        """Start a board that is off, at the port it had. What ran on it does not run again by itself."""
        part = self._part(name)
        if not processes.alive(part.process):
            plan = launch.LaunchPlan(
                boards=(self._spec(name, part.port),), lifeline=self._lifeline[0] if self._lifeline else None
            )
            self._adopt(_launch(plan, self._record.id, expected=1))

    def _adopt(self, ready: Mapping[str, _Part]) -> None:
        self._record = dataclasses.replace(self._record, parts={**self._record.parts, **ready})
        _write_record(self.folder, self._record)

    def _part(self, name: str) -> _Part:
        if name not in self._record.parts or name == launch.BROKER:
            message = f"lab {self.name!r} has no board {name!r}; it has {', '.join(b.name for b in self.boards)}"
            raise UsageError(message)
        return self._record.parts[name]

    def _outfit(self, name: str) -> outfit.Outfit:
        return outfit.Outfit(folder=self.folder / name, lab_id=self._record.id, name=name)

    def _spec(self, name: str, port: int) -> board_process.BoardSpec:
        return board_process.BoardSpec(name=name, lab_id=self._record.id, folder=str(self.folder / name), port=port)

    def down(self) -> None:
        """Take it down: no process and no file of it is left. Doing it twice is fine."""
        if self._lifeline is not None:
            for end in self._lifeline:
                os.close(end)
            self._lifeline = None
        _take_down(self.folder, self._record)

    def __enter__(self) -> Self:
        """Return the lab."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take it down."""
        self.down()


def labs_folder(home: Path | None = None) -> Path:
    """Return where the labs of this user lie."""
    given = os.environ.get("TFLOTILLA_LAB_HOME")
    return home or (Path(given) if given else Path.home() / ".local/state/tflotilla/labs")


def up(
    *,
    name: str = "lab",
    boards: int = 3,
    home: Path | None = None,
    broker: Literal["auto", "mosquitto", "embedded"] = "auto",
    python: Path | None = None,
    bound: bool = False,
) -> Lab:
    """Bring a lab up and return when everything in it answers.

    Args:
        name: of the lab and its fleet; its boards are NAME-1, NAME-2, …
        boards: how many.
        home: the folder of all labs, instead of the user's own.
        broker: `auto` is an installed mosquitto, else the embedded broker.
        python: the boards' `python3`; by default the interpreter below this virtual environment.
        bound: the lab ends when this process does, however it ends. Else it stays up until `down`.

    Raises:
        UsageError: a name or a number that can't be.
        ConflictError: a lab of that name is up.
        BrokerError: mosquitto is asked for and not installed.
        BoardError: something does not start.

    """
    try:
        topics.check_fleet(name)
    except ValueError as error:
        message = f"lab name: {error}"
        raise UsageError(message) from error
    if not 1 <= boards <= MOST_BOARDS:
        message = f"a lab has 1 to {MOST_BOARDS} boards, not {boards}"
        raise UsageError(message)
    kind = broker_process.choose(broker)
    folder = _claim(labs_folder(home) / name)
    record = _Record(id=uuid.uuid4().hex, name=name, created=time.time(), broker=kind)
    _write_record(folder, record)
    try:
        return _bring_up(folder, record, boards=boards, python=python, bound=bound)
    except BaseException:
        _take_down(folder, record)
        raise


def _bring_up(folder: Path, record: _Record, *, boards: int, python: Path | None, bound: bool) -> Lab:
    client_public = keys.generate(folder / "client_key", comment=f"tflotilla lab {record.name}")
    broker_process.write_password(folder / "broker")
    specs = []
    for number in range(1, boards + 1):
        name = f"{record.name}-{number}"
        dressed = outfit.Outfit(folder=folder / name, lab_id=record.id, name=name)
        dressed.lay_out(client_public=client_public, python=python)
        specs.append(board_process.BoardSpec(name=name, lab_id=record.id, folder=str(dressed.folder)))
    broker = broker_process.BrokerSpec(lab_id=record.id, folder=str(folder / "broker"), kind=record.broker)
    lifeline = os.pipe() if bound else None
    plan = launch.LaunchPlan(boards=tuple(specs), broker=broker, lifeline=lifeline[0] if lifeline else None)
    record = dataclasses.replace(record, parts=_launch(plan, record.id, expected=boards + 1))
    _write_record(folder, record)
    here = Lab(folder, record, lifeline)
    for virtual in here.boards:
        _greet(virtual)
    fleet_folder.write(
        here.fleet_file,
        name=here.name,
        boards={virtual.name: (_entry(virtual, here), virtual.host_key) for virtual in here.boards},
        mqtt=here.broker.config,
    )
    return here


def _entry(virtual: LabBoard, here: Lab) -> BoardEntry:
    return BoardEntry(
        host=virtual.host,
        port=virtual.port,
        user=virtual.user,
        identity=str(here.client_key),
        labels={"lab": here.name, "number": virtual.name.rpartition("-")[2]},
        # Never `auto`: on a machine with systemd, or as root, a virtual board must not become a service of it.
        install="user",
    )


def _claim(folder: Path) -> Path:
    """Make the folder of a new lab; the remains of one that died are swept away first."""
    if not folder.exists():
        return _make(folder)
    record = _read_record(folder)
    if any(processes.alive(part.process) for part in record.parts.values()):
        message = f"a lab {record.name!r} is up already; `tflotilla lab down {record.name}` ends it"
        raise ConflictError(message)
    _take_down(folder, record)
    return _make(folder)


def _make(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, mode=0o700)
    except FileExistsError as error:
        message = f"a lab {folder.name!r} is being brought up by somebody else right now"
        raise ConflictError(message) from error
    except OSError as error:
        message = f"the lab's folder {folder} can't be made: {error.strerror or error}; see $TFLOTILLA_LAB_HOME"
        raise InputError(message) from error
    return folder


def _launch(plan: launch.LaunchPlan, lab_id: str, *, expected: int) -> dict[str, _Part]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SSH_", "PYTHON"))}
    started = subprocess.run(
        [sys.executable, "-m", "tflotilla.host.lab.launch"],
        input=codec.canonical_json(plan),
        capture_output=True,
        check=False,
        env={**environment, processes.MARK: f"{lab_id}/"},
        pass_fds=() if plan.lifeline is None else (plan.lifeline,),
        timeout=_START_TIMEOUT_S,
    )
    parts = {}
    for line in started.stdout.splitlines():
        ready = codec.decode(launch.Ready, codec.parse_json(line, "lab"), "lab")
        if ready.error is not None or ready.process is None:
            message = f"the lab does not come up: {ready.name.removeprefix('.')}: {ready.error}"
            raise BoardError(message)
        parts[ready.name] = _Part(port=ready.port, process=ready.process)
    if len(parts) != expected:
        last = started.stderr.decode(errors="replace").strip().splitlines()[-1:]
        message = f"the lab does not come up: {expected - len(parts)} of its processes said nothing {' '.join(last)}"
        raise BoardError(message)
    return parts


def _greet(virtual: LabBoard) -> None:
    try:
        with socket.create_connection((virtual.host, virtual.port), timeout=_START_TIMEOUT_S) as connection:
            banner = connection.recv(64)
    except OSError as error:
        message = f"the lab does not come up: {virtual.name}: {error}"
        raise BoardError(message) from error
    if not banner.startswith(b"SSH-2.0-"):
        message = f"the lab does not come up: {virtual.name} answers {banner[:20]!r}"
        raise BoardError(message)


def find(name: str = "lab", *, home: Path | None = None) -> Lab:
    """Return a lab by its name. Raises UsageError when there is none."""
    folder = labs_folder(home) / name
    if not (folder / _RECORD).exists():
        there = ", ".join(lab.name for lab in list_labs(home=home)) or "there is none"
        message = (
            f"no lab is called {name!r}; {there}"
            if there.startswith("there")
            else (f"no lab is called {name!r}; there are: {there}")
        )
        raise UsageError(message)
    return Lab(folder, _read_record(folder))


def down(name: str = "lab", *, home: Path | None = None) -> None:
    """Take a lab down, whatever state it is in. Raises UsageError when there is none."""
    find(name, home=home).down()


def list_labs(*, home: Path | None = None) -> tuple[Lab, ...]:
    """Return every lab of this user, by name; those that died are there too, with nothing running."""
    folder = labs_folder(home)
    if not folder.is_dir():
        return ()
    found = []
    for entry in sorted(folder.iterdir()):
        with contextlib.suppress(TflotillaError):
            record = _read_record(entry)
            if launch.BROKER in record.parts:
                found.append(Lab(entry, record))
    return tuple(found)


def _take_down(folder: Path, record: _Record) -> None:
    pids = [part.process.pid for part in record.parts.values() if processes.alive(part.process)]
    # Each ends what is below it, reaps it and goes.
    processes.send(pids, signal.SIGTERM)
    processes.wait_until(
        lambda: not any(processes.alive(part.process) for part in record.parts.values()), timeout_s=_DOWN_TIMEOUT_S
    )
    # Whatever a killed board left behind, and whatever did not listen.
    if not processes.kill_until_none(lambda: processes.marked(f"{record.id}/"), timeout_s=_DOWN_TIMEOUT_S):
        message = f"lab {record.name!r}: some of its processes can't be killed"
        raise BoardError(message)
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_PAUSE_S)
    message = f"{folder} can't be removed; please remove it by hand"
    raise BoardError(message)


def _write_record(folder: Path, record: _Record) -> None:
    temporary = folder / (_RECORD + ".new")
    temporary.write_bytes(codec.canonical_json(record))
    temporary.replace(folder / _RECORD)


def _read_record(folder: Path) -> _Record:
    file = folder / _RECORD
    try:
        data = file.read_bytes()
    except OSError as error:
        message = f"{folder} is not a lab: it has no readable {_RECORD}; remove the folder if it is not needed"
        raise InputError(message) from error
    return codec.decode(_Record, codec.parse_json(data, str(file)), str(file))


def _by_number(name: str) -> int:
    return int(name.rpartition("-")[2])
