"""The fleet: `fleet.toml`, which people write, and what tflotilla learnt, in `.tflotilla/` beside it.

    name = "greenhouse"
    [mqtt]                      # as the boards see it; see agent_config.MqttConfig
    host = "192.168.1.2"
    password_file = "mqtt-password"     # on this machine; its content goes to the boards
    [signing]
    key = "~/.ssh/id_ed25519"           # signs bundles; boards trust its public half
    allowed_signers = "allowed_signers" # instead, or with more signers
    [rollouts]                          # who does the pushes, and who remembers; see RolloutConfig
    forks = 20
    [telemetry]                         # where reports are kept, and for how long; see TelemetryConfig
    raw_days = 7
    [agent.inference]                   # parts of agent.toml for every board; also agent.source, agent.reporting
    [boards.pi-7]
    host = "192.168.1.7"                # or a Host of ~/.ssh/config
    user = "pi"
    labels = { room = "kitchen" }
    [boards.pi-7.agent.source]          # parts of agent.toml for this board
    kind = "folder"
    [groups.kitchen]                    # what several boards have in common; see groups
    boards = ["pi-7", "pi-8"]
    user = "pi"
    [inventory]                         # boards of an Ansible inventory, read where it is
    ansible = "hosts.ini"

    .tflotilla/known_hosts       pinned host keys, in OpenSSH's format, the board's name as comment
    .tflotilla/facts/, contacts/ what boards said about themselves last, and when they were reached; see contacts
    .tflotilla/allowed_signers   made from signing.key, when signing.allowed_signers isn't given

Rules it keeps: a person's comments survive `board add` and `board remove`; files change by rename, under a lock.
What it does NOT do: connect.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.fleet.inventory import contacts, groups, state_files, toml_text
from tflotilla.host.fleet.inventory.entries import (
    BoardEntry,
    GroupEntry,
    Install,
    RolloutConfig,
    SigningConfig,
    TelemetryConfig,
)
from tflotilla.host.fleet.lines import pins
from tflotilla.host.fleet.selection import selectors
from tflotilla.shared.contract import codec, layout
from tflotilla.shared.contract.agent_config import AgentConfig, MqttConfig
from tflotilla.shared.contract.board import BoardFacts, check_board_id
from tflotilla.shared.contract.errors import ConfigError, ContractError, UsageError
from tflotilla.shared.contract.manifest import SIGNATURE_NAMESPACE
from tflotilla.shared.contract.topics import check_fleet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tflotilla.shared.contract.session import Hello

__all__ = [
    "BoardEntry",
    "Fleet",
    "GroupEntry",
    "Install",
    "RolloutConfig",
    "SigningConfig",
    "TelemetryConfig",
    "locate",
]

VARIABLE = "TFLOTILLA_FLEET"
DEFAULT_PATH = "fleet.toml"
STATE_FOLDER = ".tflotilla"
#: What is not written into a board's table, because it goes without saying.
_DEFAULTS = {"install": "auto", "python": "python3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryConfig:
    """Boards that stand elsewhere: paths, relative to fleet.toml."""

    ansible: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    name: str
    mqtt: MqttConfig | None = None
    signing: SigningConfig = field(default_factory=SigningConfig)
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    agent: Mapping[str, Any] = field(default_factory=dict)
    inventory: InventoryConfig = field(default_factory=InventoryConfig)
    groups: Mapping[str, GroupEntry] = field(default_factory=dict)
    boards: Mapping[str, BoardEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fleet(self.name)
        for board in self.boards:
            check_board_id(board)
            selectors.check_name(board)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A loaded fleet. Changing it writes the file; load it again to see the change."""

    path: Path
    name: str
    mqtt: MqttConfig | None
    signing: SigningConfig
    rollouts: RolloutConfig
    agent: Mapping[str, Any]
    #: With what their groups say for them.
    boards: Mapping[str, BoardEntry]
    #: Name → its boards, in the fleet's order.
    groups: Mapping[str, tuple[str, ...]]
    #: Boards that stand in the Ansible inventory alone, not in the file.
    elsewhere: frozenset[str] = frozenset()
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)

    @classmethod
    def load(cls, path: Path | None = None) -> Fleet:
        """Read a fleet: the given path, else $TFLOTILLA_FLEET, else ./fleet.toml.

        Raises:
            ConfigError: there is no such file, or it isn't valid; the key is named.

        """
        found = locate(path)
        try:
            text = found.read_text()
        except FileNotFoundError as error:
            message = f"no fleet file {found}: `tflotilla board add` makes one, --fleet or ${VARIABLE} names another"
            raise ConfigError(message) from error
        except UnicodeDecodeError as error:
            message = f"fleet file {found} is not text in UTF-8 (byte {error.start})"
            raise ConfigError(message) from error
        except OSError as error:
            message = f"fleet file {found} can't be read: {error.strerror or error}"
            raise ConfigError(message) from error
        return cls._parse(text, found)

    @classmethod
    def _parse(cls, text: str, path: Path) -> Fleet:
        try:
            raw = tomllib.loads(text)
            boards, belongs, elsewhere = _with_groups(raw, path)
            document = codec.decode(_Document, raw | {"boards": boards}, str(path), strict=True)
        except (tomllib.TOMLDecodeError, ContractError, ConfigError, RecursionError) as error:
            where = "" if str(error).startswith(str(path)) else f"{path}: "
            message = f"{where}{error}"
            raise ConfigError(message) from error
        fleet = cls(
            path=path,
            name=document.name,
            mqtt=document.mqtt,
            signing=document.signing,
            rollouts=document.rollouts,
            agent=document.agent,
            boards=document.boards,
            groups=belongs,
            elsewhere=elsewhere,
            telemetry=document.telemetry,
        )
        seen: set[str] = set()
        for name, entry in fleet.boards.items():
            # Boards of which the same is said give the same agent.toml but for the name: one of them is looked at.
            said = json.dumps(entry.agent, default=str, sort_keys=True) if entry.agent else ""
            if said not in seen:
                seen.add(said)
                fleet.agent_config(name, home="/")
        return fleet

    @classmethod
    def create(cls, path: Path, *, name: str, mqtt: MqttConfig | None = None, signing_key: Path | None = None) -> Fleet:
        """Write a new fleet file and return it. Raises ConfigError when it exists or can't be written."""
        import tomli_w

        document: dict[str, Any] = {"name": name}
        if mqtt is not None:
            document["mqtt"] = _without_none(codec.encode(mqtt))
        if signing_key is not None:
            document["signing"] = {"key": str(signing_key)}
        text = tomli_w.dumps(document)
        fleet = cls._parse(text, path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x") as stream:
                stream.write(text)
        except OSError as error:
            message = f"fleet file {path} can't be made: {error.strerror or error}"
            raise ConfigError(message) from error
        return fleet

    @property
    def folder(self) -> Path:
        """Where fleet.toml lies; its relative paths start here."""
        return self.path.parent

    @property
    def state(self) -> Path:
        """The folder of what tflotilla learnt."""
        return self.folder / STATE_FOLDER

    @property
    def known_hosts(self) -> Path:
        """The pinned host keys."""
        return self.state / "known_hosts"

    def resolve(self, text: str) -> Path:
        """Return a path of fleet.toml as one that can be opened."""
        return self.folder / Path(text).expanduser()

    def board(self, name: str) -> BoardEntry:
        """Return one board. Raises UsageError naming those there are."""
        if name not in self.boards:
            message = f"no board {name!r}; {selectors.those_there(self.boards)}"
            raise UsageError(message)
        return self.boards[name]

    def named_groups(self) -> dict[str, tuple[str, ...]]:
        """Return the boards that the file's groups name one by one, or by pattern: what importing adds to."""
        groups_said = _loads(self.path.read_text()).get("groups", {})
        return {name: tuple(entry.get("boards", ())) for name, entry in groups_said.items()}

    def select(self, expression: str, *, limit: str | None = None) -> tuple[str, ...]:
        """Return the names a selector picks, at most those that `limit` leaves (`selectors.limited`).

        Raises:
            UsageError: the selector or the limit can't be read, or picks nothing.

        """
        labels = {name: entry.labels for name, entry in self.boards.items()}
        chosen = selectors.select(expression, labels, groups=self.groups, known=self.known)
        if limit is None:
            return chosen
        return selectors.limited(chosen, limit, labels, groups=self.groups, known=self.known)

    def agent_config(self, name: str, *, home: str) -> AgentConfig:
        """Merge what fleet.toml says for every board and for this one into its agent.toml.

        Raises:
            ConfigError: naming file, key and what is allowed.

        """
        merged: dict[str, Any] = {"board": name, "fleet": self.name}
        if self.mqtt is not None:
            merged["mqtt"] = _without_none(codec.encode(self.mqtt))
        for part in (self.agent, self.boards[name].agent):
            for table, values in part.items():
                if isinstance(values, Mapping) and isinstance(merged.get(table), Mapping):
                    merged[table] = {**merged[table], **values}
                elif table in ("board", "fleet"):
                    message = f"{self.path}: agent.{table} can't be set; it is the board's name and the fleet's"
                    raise ConfigError(message)
                else:
                    merged[table] = values
        if isinstance(merged.get("mqtt"), dict):
            # These files are this machine's; their content is pushed beside agent.toml.
            for key, file in (("password_file", layout.MQTT_PASSWORD), ("ca_file", MQTT_CA)):
                if merged["mqtt"].get(key) is not None:
                    merged["mqtt"][key] = f"{home}/{file}"
        try:
            return codec.decode(AgentConfig, merged, f"{self.path}: boards.{name}.agent", strict=True)
        except ContractError as error:
            raise ConfigError(str(error)) from error

    def mqtt_files(self) -> dict[str, bytes]:
        """Return the files that [mqtt] names, under the names they get on a board. Raises ConfigError."""
        if self.mqtt is None:
            return {}
        named = ((layout.MQTT_PASSWORD, self.mqtt.password_file), (MQTT_CA, self.mqtt.ca_file))
        return {board_name: self._read("mqtt", path) for board_name, path in named if path is not None}

    def allowed_signers(self) -> Path:
        """Return the file with the signers whose bundles this fleet's boards take.

        Raises:
            ConfigError: fleet.toml names neither a key nor a file, or what it names can't be read.

        """
        if self.signing.allowed_signers is not None:
            self._read("signing.allowed_signers", self.signing.allowed_signers)
            return self.resolve(self.signing.allowed_signers)
        if self.signing.key is None:
            message = (
                f"{self.path}: nobody's bundles are trusted yet; "
                'set [signing] key = "~/.ssh/id_ed25519" (or allowed_signers)'
            )
            raise ConfigError(message)
        public = self._read("signing.key", f"{self.signing.key}.pub").decode(errors="replace").split()
        if len(public) < 2:  # noqa: PLR2004 - type and key
            message = f"{self.path}: signing.key: {self.signing.key}.pub is not an SSH public key"
            raise ConfigError(message)
        line = f'{self.name} namespaces="{SIGNATURE_NAMESPACE}" {public[0]} {public[1]}\n'
        path = self.state / "allowed_signers"
        if not path.exists() or path.read_text() != line:
            try:
                state_files.replace(path, line.encode())
            except OSError as error:
                message = f"{path}: can't be written ({error.strerror or error})"
                raise ConfigError(message) from error
        return path

    def facts(self, name: str) -> BoardFacts | None:
        """Return what the board said about itself last; None when it was never asked."""
        return contacts.facts(self.state, name)

    def save_facts(self, name: str, facts: BoardFacts) -> None:
        """Remember what a board says about itself."""
        contacts.save_facts(self.state, name, facts, at=time.time())

    def save_hello(self, name: str, hello: Hello) -> None:
        """Remember what a board's agent says: the facts, its version, and what serves there."""
        self.save_facts(name, hello.facts)
        contacts.note(
            self.state,
            name,
            agent=hello.agent_version,
            serving=hello.serving,
            previous=hello.previous,
            said=time.time(),
        )

    def known(self, names: Iterable[str]) -> Mapping[str, contacts.Known]:
        """Return what is remembered of boards: facts, contacts, and how old that is."""
        return contacts.known(self.state, names)

    def add(self, name: str, entry: BoardEntry, known_host: str | None) -> Fleet:
        """Append a board and pin its host key (a line of known_hosts without comment); return the changed fleet.

        Raises:
            ConfigError: the file can't be written.
            UsageError: there is such a board already, or the name can't be one.

        """
        return self.change(add={name: entry}, pin={name: known_host})

    def change(
        self,
        *,
        add: Mapping[str, BoardEntry] | None = None,
        put: Mapping[toml_text.Path, Any] | None = None,
        pin: Mapping[str, str | None] | None = None,
    ) -> Fleet:
        """Append boards, set values (path → value, None takes it out) and pin host keys, all at once.

        Raises:
            ConfigError: the file can't be written, or not changed without harm to what its author wrote.
            UsageError: there is such a board already, or a name can't be one.

        """
        for name in add or {}:
            try:
                check_board_id(name)
                selectors.check_name(name)
            except ValueError as error:
                raise UsageError(str(error)) from error
        with self._locked():
            text = self.path.read_text()
            there = self._parse(text, self.path).boards
            for name in add or {}:
                if name in there:
                    message = f"the fleet has a board {name} already; `tflotilla board remove {name}` first"
                    raise UsageError(message)
            changed = self._put(text, put or {})
            if add:
                changed = toml_text.append(changed, {("boards", name): _table(entry) for name, entry in add.items()})
            fleet = self._parse(changed, self.path)
            if pin:
                pins.change(self.known_hosts, pin)
            if changed != text:
                state_files.replace(self.path, changed.encode(), mode=None)
        return fleet

    def remove(self, name: str) -> Fleet:
        """Take a board out of the file, and its pinned key and facts out of the state; return the changed fleet.

        Raises:
            ConfigError: the file can't be changed.
            UsageError: it stands in the Ansible inventory, which is not ours to change.

        """
        with self._locked():
            text = self.path.read_text()
            changes: dict[toml_text.Path, Any] = {("boards", name): None}
            for group, entry in _loads(text).get("groups", {}).items():
                if name in entry.get("boards", ()):
                    changes["groups", group, "boards"] = [each for each in entry["boards"] if each != name]
            changed = text if name in self.elsewhere else self._put(text, changes)
            fleet = self._parse(changed, self.path)
            if name in fleet.boards:
                message = f"{name} stands in the Ansible inventory that {self.path} names; take it out there"
                raise UsageError(message)
            state_files.replace(self.path, changed.encode(), mode=None)
            pins.change(self.known_hosts, {name: None})
            contacts.forget(self.state, name)
        return fleet

    def _put(self, text: str, changes: Mapping[toml_text.Path, Any]) -> str:
        try:
            return toml_text.put(text, changes) if changes else text
        except ValueError as error:
            message = f"{self.path}: {error}; change it by hand"
            raise ConfigError(message) from error

    def pinned(self, name: str) -> tuple[str, str] | None:
        """Return type and base64 of a board's pinned host key, None when it has none."""
        return pins.read(self.known_hosts).get(name)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with state_files.locked(self.state / "lock"):
                yield
        except OSError as error:
            message = f"fleet {self.path} can't be changed: {error.strerror or error}"
            raise ConfigError(message) from error

    def _read(self, key: str, path: str) -> bytes:
        try:
            return self.resolve(path).read_bytes()
        except OSError as error:
            message = f"{self.path}: {key}: {self.resolve(path)}: {error.strerror or error}"
            raise ConfigError(message) from error


#: Beside `layout.MQTT_PASSWORD`: the broker's certificate authority, when fleet.toml names one.
MQTT_CA = "mqtt-ca.pem"


def locate(path: Path | None) -> Path:
    """Return where the fleet file is or would be."""
    return (path or Path(os.environ.get(VARIABLE) or DEFAULT_PATH)).absolute()


def _without_none(document: Any) -> Any:  # noqa: ANN401 - TOML has no null
    if isinstance(document, dict):
        return {key: _without_none(value) for key, value in document.items() if value is not None}
    return document


def _loads(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _table(entry: BoardEntry) -> dict[str, Any]:
    """Return a board's table without what goes without saying."""
    document = _without_none(codec.encode(entry))
    return {key: value for key, value in document.items() if value not in ({}, _DEFAULTS.get(key))}


def _with_groups(
    raw: Mapping[str, Any], path: Path
) -> tuple[dict[str, Any], dict[str, tuple[str, ...]], frozenset[str]]:
    """Return the boards' tables with what their groups say, each group's boards, and the boards of another file."""
    own = raw.get("boards", {})
    if not isinstance(own, dict) or not isinstance(raw.get("groups", {}), dict):
        return own, {}, frozenset()
    if "groups" not in raw and "inventory" not in raw:
        return own, {}, frozenset()
    inventory = codec.decode(InventoryConfig, raw.get("inventory", {}), f"{path}: inventory", strict=True)
    groups_said = {
        name: codec.decode(GroupEntry, entry, f"{path}: groups.{name}", strict=True)
        for name, entry in raw.get("groups", {}).items()
    }
    boards = dict(own)
    foreign: Mapping[str, Any] = {}
    belongs: dict[str, tuple[str, ...]] = {}
    if inventory.ansible is not None:
        from tflotilla.host.fleet.importing import in_place

        foreign, belongs = in_place.read(path.parent / Path(inventory.ansible).expanduser())
        boards = {name: groups.merged(table, own.get(name, {})) for name, table in foreign.items()} | {
            name: table for name, table in own.items() if name not in foreign
        }
    named = groups.members(groups_said, boards, belongs, str(path))
    boards = groups.applied(raw.get("groups", {}), named, boards)
    return boards, {**belongs, **named}, frozenset(foreign) - frozenset(own)
