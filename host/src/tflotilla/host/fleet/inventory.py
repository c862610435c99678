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
    [agent.inference]                   # parts of agent.toml for every board; also agent.source, agent.reporting
    [boards.pi-7]
    host = "192.168.1.7"                # or a Host of ~/.ssh/config
    user = "pi"
    labels = { room = "kitchen" }
    [boards.pi-7.agent.source]          # parts of agent.toml for this board
    kind = "folder"

    .tflotilla/known_hosts       pinned host keys, in OpenSSH's format, the board's name as comment
    .tflotilla/facts/NAME.json   what the board said about itself last
    .tflotilla/allowed_signers   made from signing.key, when signing.allowed_signers isn't given

Rules it keeps: a person's comments survive `board add` and `board remove`; files change by rename, under a lock.
What it does NOT do: connect.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tflotilla.host.fleet import selectors
from tflotilla.shared.contract import codec, layout
from tflotilla.shared.contract.agent_config import AgentConfig, MqttConfig
from tflotilla.shared.contract.board import BoardFacts, check_board_id
from tflotilla.shared.contract.errors import ConfigError, ContractError, UsageError
from tflotilla.shared.contract.manifest import SIGNATURE_NAMESPACE
from tflotilla.shared.contract.topics import check_fleet

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "TFLOTILLA_FLEET"
DEFAULT_PATH = "fleet.toml"
STATE_FOLDER = ".tflotilla"
Install = Literal["auto", "user", "system"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningConfig:
    """Whose bundles the boards take: paths, relative to fleet.toml."""

    key: str | None = None
    allowed_signers: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig:
    """Who does the pushes of rollouts, and who remembers them."""

    #: `threads` of the command itself, or workers of `celery` (`tflotilla rollout worker`), on other machines too.
    executor: Literal["threads", "celery"] = "threads"
    #: Celery's broker: `redis://host:6379/0`.
    broker: str | None = None
    #: `postgresql://user@host/database` where several hosts share it; its password stands in ~/.pgpass. Else a file,
    #: relative to fleet.toml; without one, .tflotilla/rollouts.db.
    journal: str | None = None
    #: How many boards at once.
    forks: int = 10

    def __post_init__(self) -> None:
        """Raise ValueError with what is allowed."""
        if self.executor == "celery" and self.broker is None:
            message = 'executor = "celery" needs a broker = "redis://host:6379/0"'
            raise ValueError(message)
        if self.broker is not None and not self.broker.startswith(("redis://", "rediss://", "redis+socket://")):
            message = "broker must be a Redis: redis://host:6379/0, rediss://… or redis+socket:///path"
            raise ValueError(message)
        if not 1 <= self.forks <= 1000:  # noqa: PLR2004 - connections that one machine still carries
            message = f"forks must be 1..1000, not {self.forks}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardEntry:
    """One board as fleet.toml has it. Port and user may also come from ~/.ssh/config, so None is "not said"."""

    host: str
    port: int | None = None
    user: str | None = None
    #: Private key file; without one, ssh's usual ones and the agent's.
    identity: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Where the agent lives: `system` is /var/lib/tflotilla with root and systemd, `user` is ~/.local/share/tflotilla.
    install: Install = "auto"
    #: The board's interpreter, when its `python3` isn't the one to use.
    python: str = "python3"
    #: Parts of agent.toml: tables inference, source, reporting, mqtt.
    agent: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what ssh would take for an option, and ports that don't exist. Raises ValueError."""
        if not self.host or self.host.startswith("-") or re.search(r"[\s\x00-\x1f\x7f'\"`$;&|<>\\]", self.host):
            message = f"host {self.host!r} is not a host name or address"
            raise ValueError(message)
        if self.user is not None and not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.@-]*", self.user):
            message = f"user {self.user!r} is not a login name"
            raise ValueError(message)
        if self.port is not None and not 0 < self.port < 1 << 16:
            message = f"port must be 1..65535, not {self.port}"
            raise ValueError(message)
        for key, value in self.labels.items():
            if not selectors.is_label(key, value):
                message = f"label {key!r} = {value!r}: no selector can pick it; use words without spaces, ',', '!', '='"
                raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    name: str
    mqtt: MqttConfig | None = None
    signing: SigningConfig = field(default_factory=SigningConfig)
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    agent: Mapping[str, Any] = field(default_factory=dict)
    boards: Mapping[str, BoardEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fleet(self.name)
        for board in self.boards:
            check_board_id(board)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A loaded fleet. Changing it writes the file; load it again to see the change."""

    path: Path
    name: str
    mqtt: MqttConfig | None
    signing: SigningConfig
    rollouts: RolloutConfig
    agent: Mapping[str, Any]
    boards: Mapping[str, BoardEntry]

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
            document = codec.decode(_Document, tomllib.loads(text), str(path), strict=True)
        except (tomllib.TOMLDecodeError, ContractError, RecursionError) as error:
            where = "" if str(error).startswith(str(path)) else f"{path}: "
            message = f"{where}{error}"
            raise ConfigError(message) from error
        fleet = cls(path=path, **{f.name: getattr(document, f.name) for f in dataclasses.fields(_Document)})
        for name in fleet.boards:
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
        return self.boards[self.select(name)[0]] if name not in self.boards else self.boards[name]

    def select(self, expression: str) -> tuple[str, ...]:
        """Return the names a selector picks. Raises UsageError."""
        return selectors.select(expression, {name: entry.labels for name, entry in self.boards.items()})

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
                _replace(path, line.encode())
            except OSError as error:
                message = f"{path}: can't be written ({error.strerror or error})"
                raise ConfigError(message) from error
        return path

    def facts(self, name: str) -> BoardFacts | None:
        """Return what the board said about itself last; None when it was never asked."""
        try:
            data = (self.state / "facts" / f"{name}.json").read_bytes()
        except OSError:
            return None
        with contextlib.suppress(ContractError):
            return codec.decode(BoardFacts, codec.parse_json(data, f"facts/{name}.json"), f"facts/{name}.json")
        # Written by another version: as good as never asked.
        return None

    def save_facts(self, name: str, facts: BoardFacts) -> None:
        """Remember what a board says about itself, where that can be written: it is asked again each time anyway."""
        with contextlib.suppress(OSError):
            _replace(self.state / "facts" / f"{name}.json", codec.canonical_json(facts) + b"\n")

    def add(self, name: str, entry: BoardEntry, known_host: str) -> Fleet:
        """Append a board and pin its host key (a line of known_hosts without comment); return the changed fleet.

        Raises:
            ConfigError: the file can't be written.
            UsageError: there is such a board already, or the name can't be one.

        """
        import tomli_w

        try:
            check_board_id(name)
        except ValueError as error:
            raise UsageError(str(error)) from error
        document = _without_none(codec.encode(entry))
        for optional in ("labels", "agent"):
            if not document[optional]:
                del document[optional]
        for key, default in (("install", "auto"), ("python", "python3")):
            if document[key] == default:
                del document[key]
        with self._locked():
            text = self.path.read_text()
            if name in self._parse(text, self.path).boards:
                message = f"the fleet has a board {name} already; `tflotilla board remove {name}` first"
                raise UsageError(message)
            changed = text.rstrip("\n") + "\n\n" + tomli_w.dumps({"boards": {name: document}})
            fleet = self._parse(changed, self.path)
            self._pin(name, known_host)
            _replace(self.path, changed.encode(), mode=None)
        return fleet

    def remove(self, name: str) -> Fleet:
        """Take a board out of the file, and its pinned key and facts out of the state; return the changed fleet."""
        import tomli_w

        with self._locked():
            text = self.path.read_text()
            wanted = tomllib.loads(text)
            del wanted["boards"][name]
            changed = _without_board(text, name)
            # Text surgery keeps comments; where it fails (inline tables), the plain rewriting is right but bare.
            if _loads(changed).get("boards", {}) != wanted["boards"]:
                changed = tomli_w.dumps(wanted)
            _replace(self.path, changed.encode(), mode=None)
            self._pin(name, None)
            (self.state / "facts" / f"{name}.json").unlink(missing_ok=True)
        return self._parse(changed, self.path)

    def pinned(self, name: str) -> tuple[str, str] | None:
        """Return type and base64 of a board's pinned host key, None when it has none."""
        for line in self._known_lines():
            match line.split():
                case [_host, kind, key, comment] if comment == name:
                    return kind, key
        return None

    def _known_lines(self) -> list[str]:
        try:
            return self.known_hosts.read_text().splitlines()
        except FileNotFoundError:
            return []

    def _pin(self, name: str, known_host: str | None) -> None:
        lines = [line for line in self._known_lines() if line.split()[3:] != [name]]
        if known_host is not None:
            lines.append(f"{known_host} {name}")
        _replace(self.known_hosts, "".join(f"{line}\n" for line in lines).encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.state.mkdir(mode=0o700, exist_ok=True)
            with (self.state / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
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


def _without_board(text: str, name: str) -> str:
    quoted = rf"(?:{re.escape(name)}|\"{re.escape(name)}\"|'{re.escape(name)}')"
    ours = re.compile(rf"\s*\[\s*boards\s*\.\s*{quoted}\s*(?:\..*)?\]")
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("["):
            inside = ours.match(line) is not None
        if not inside:
            kept.append(line)
    return "".join(kept).rstrip("\n") + "\n"


def _replace(path: Path, data: bytes, *, mode: int | None = 0o600) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if mode is None:
        mode = path.stat().st_mode & 0o777
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
