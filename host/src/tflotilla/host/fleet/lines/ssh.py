"""The only door to fabric and paramiko: one factory for connections, with everything fabric leaves open closed.

Rules it keeps:
- the host key must be the one pinned at enrolment; an unknown or another one is refused, and so is a ProxyJump host
  that the user's own known_hosts doesn't have (fabric by itself accepts every key of every host);
- ~/.ssh/config is honoured (HostName, User, Port, IdentityFile, ProxyJump, ProxyCommand, ConnectTimeout), keys come
  from files and from the agent, never a password;
- nothing waits for ever: connecting, banner, login, channels and reads have deadlines, and a silent line is cut;
- every byte that leaves for the board is counted where it enters the socket.

What it does NOT do: quote. Commands are made by the modules that need them, from constants and `shlex.quote`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import fabric
import paramiko
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import BadHostKeyException, NoValidConnectionsError, PasswordRequiredException

from tflotilla.host.fleet.inventory import contacts
from tflotilla.host.fleet.lines import ssh_config
from tflotilla.host.fleet.lines.duplex import CHANNEL_SILENCE_S, CommandEndedError, Completed, Duplex
from tflotilla.host.fleet.lines.wire import Meter, Wire
from tflotilla.shared.contract.errors import ConfigError, IdentityError, TflotillaError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet

CONNECT_TIMEOUT_S = 10
BANNER_TIMEOUT_S = 15
AUTH_TIMEOUT_S = 20
CHANNEL_TIMEOUT_S = 20
#: Bytes that stay unacknowledged that long mean that the line is dead.
SILENCE_TIMEOUT_S = 30
_KEEPALIVE_S = 10
_DEFAULT_PORT = 22
#: Broken or worn out, and every OpenSSH of the last ten years has better ones.
_WEAK = {
    "ciphers": ["aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc"],
    "macs": ["hmac-sha1", "hmac-md5", "hmac-sha1-96", "hmac-md5-96"],
}
_FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")

# paramiko logs what we translate into errors; without a handler Python prints it on the user's terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = bool(os.environ.get("TFLOTILLA_DEBUG"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """A host key as a server showed it."""

    #: `[host]:port`, or `host` on port 22, as known_hosts names it.
    address: str
    kind: str
    base64: str
    #: `SHA256:…`, as ssh-keygen shows it.
    fingerprint: str

    @property
    def line(self) -> str:
        """The key as a line of known_hosts, without comment."""
        return f"{self.address} {self.kind} {self.base64}"


class _UnknownKeyError(paramiko.SSHException):
    def __init__(self, address: str, key: paramiko.PKey) -> None:
        super().__init__(address)
        self.address = address
        self.key = key


class _ShownKeyError(_UnknownKeyError):
    """Carries a key out of paramiko's handshake where that is all that was wanted."""


class _Refuse(paramiko.MissingHostKeyPolicy):
    error: type[_UnknownKeyError] = _UnknownKeyError

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> NoReturn:
        del client
        raise self.error(hostname, key)


class _Show(_Refuse):
    error = _ShownKeyError


class Link:
    """One authenticated connection to one board."""

    def __init__(self, board: str, address: str, connection: Any, meter: Meter) -> None:  # noqa: ANN401 - untyped fabric
        """Take over an open fabric connection."""
        self.board = board
        self.address = address
        self._connection = connection
        self._meter = meter

    @property
    def bytes_sent(self) -> int:
        """Everything sent over this connection's socket so far, handshake included."""
        return self._meter.sent_bytes

    @property
    def alive(self) -> bool:
        """Whether the transport still stands."""
        return bool(self._connection.is_connected)

    def open(self, command: str) -> Duplex:
        """Start a command, given as the shell on the board shall read it. Raises UnreachableError, BoardError."""
        with self.translated("starting a command on"):
            channel = self._connection.transport.open_session(timeout=CHANNEL_TIMEOUT_S)
            channel.settimeout(CHANNEL_SILENCE_S)
            channel.exec_command(command)
        return Duplex(channel, self)

    @contextlib.contextmanager
    def gathering(self) -> Iterator[Wire]:
        """Send what this thread sends in few large writes."""
        wire = self._meter.wire
        if wire is None:
            raise self.lost("before anything was sent")
        with wire.gathering():
            yield wire

    def run(self, command: str, *, stdin: bytes = b"", timeout_s: float) -> Completed:
        """Run a command to its end; its exit status is the caller's to judge. Raises UnreachableError, BoardError."""
        with self.open(command) as duplex:
            if stdin:
                # A command that ends without reading its input is judged by its exit status.
                with contextlib.suppress(CommandEndedError):
                    duplex.write(stdin)
            return duplex.finish(timeout_s=timeout_s)

    def lost(self, when: str) -> TflotillaError:
        """Make the error of a connection that broke; of a command that ended while the line stands, another one."""
        if self.alive:
            return CommandEndedError(f"{self.board} ended the command {when}")
        return UnreachableError(f"the connection to {self.board} ({self.address}) was lost {when}; try again")

    @contextlib.contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Turn what paramiko and the socket raise into an UnreachableError."""
        try:
            yield
        except TflotillaError:
            raise
        except (TimeoutError, OSError, EOFError, paramiko.SSHException) as error:
            # A channel that was closed has no errno; a socket's error is the line's, whether or not paramiko knows yet.
            socket_broke = (
                isinstance(error, (TimeoutError, ConnectionError)) or getattr(error, "errno", None) is not None
            )
            if self.alive and isinstance(error, OSError) and not socket_broke:
                raise CommandEndedError(f"{self.board} ended the command while {doing} it") from error
            message = f"the connection to {self.board} ({self.address}) broke while {doing} it: {_brief(error)}"
            raise UnreachableError(message) from error


@contextlib.contextmanager
def connect(name: str, board: BoardEntry, fleet: Fleet) -> Iterator[Link]:
    """Connect to a board of the fleet, its host key pinned.

    Raises:
        UnreachableError: it is off, the name is unknown, it speaks no SSH, or a deadline passed.
        IdentityError: its host key isn't the pinned one, none is pinned, or it refused our keys.
        ConfigError: the key file that fleet.toml names isn't there.

    """
    pinned = fleet.pinned(name)
    if pinned is None:
        message = f"{name}'s host key is not pinned; `tflotilla fleet pin {name}` pins it"
        raise IdentityError(message)
    meter = Meter()
    connection = _connection(name, board, fleet, meter)
    address = _address(connection)
    kind, key = pinned
    try:
        entry = paramiko.hostkeys.HostKeyEntry.from_line(f"{address} {kind} {key}")
    except (paramiko.SSHException, binascii.Error) as error:
        message = f"{fleet.known_hosts}: the line of {name} can't be read; enrol the board again"
        raise ConfigError(message) from error
    if entry is None or entry.key is None:
        message = f"{fleet.known_hosts}: the line of {name} can't be read; enrol the board again"
        raise ConfigError(message)
    connection.client.get_host_keys().add(address, kind, entry.key)
    connection.client.set_missing_host_key_policy(_Refuse())
    try:
        with contacts.noted(fleet.state, name), _identified(name, address, connection):
            connection.open()
            connection.transport.set_keepalive(_KEEPALIVE_S)
        yield Link(name, address, connection, meter)
    finally:
        _close(connection)


def fetch_host_keys(name: str, board: BoardEntry, fleet: Fleet, *, every_kind: bool = False) -> tuple[HostKey, ...]:
    """Ask a board for its host key, without logging in; with `every_kind`, for one of each kind it has.

    Raises:
        UnreachableError: it is off, the name is unknown, it speaks no SSH, or a deadline passed.

    """
    kinds = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512") if every_kind else (None,)
    found: dict[str, HostKey] = {}
    for kind in kinds:
        connection = _connection(name, board, fleet, Meter(), only_kind=kind)
        connection.client.set_missing_host_key_policy(_Show())
        try:
            with _identified(name, _address(connection), connection):
                connection.open()
        except _ShownKeyError as shown:
            key = HostKey(
                address=shown.address,
                kind=shown.key.get_name(),
                base64=base64.b64encode(shown.key.asbytes()).decode(),
                fingerprint=shown.key.fingerprint,
            )
            found[key.kind] = key
        except UnreachableError:
            # A server without a key of this kind ends the handshake.
            if kind is None or (kind == kinds[-1] and not found):
                raise
        finally:
            _close(connection)
    return tuple(found.values())


def _connection(name: str, board: BoardEntry, fleet: Fleet, meter: Meter, *, only_kind: str | None = None) -> Any:  # noqa: ANN401
    def transport(sock: Any, **options: Any) -> paramiko.Transport:  # noqa: ANN401 - as paramiko calls it
        _make_impatient(sock)
        made = paramiko.Transport(Wire(meter, sock), **options)  # type: ignore[arg-type]
        algorithms = made.get_security_options()
        # One pass over the bytes in place of two: half the time on both ends where there are AES instructions.
        algorithms.ciphers = (*_FAST_CIPHERS, *(c for c in algorithms.ciphers if c not in _FAST_CIPHERS))
        if only_kind is not None:
            algorithms.key_types = (only_kind,)
        return made

    options: dict[str, Any] = {
        "banner_timeout": BANNER_TIMEOUT_S,
        "auth_timeout": AUTH_TIMEOUT_S,
        "channel_timeout": CHANNEL_TIMEOUT_S,
        "transport_factory": transport,
        "disabled_algorithms": _WEAK,
    }
    if board.identity is not None:
        identity = fleet.resolve(board.identity)
        if not identity.is_file():
            message = f"{fleet.path}: boards.{name}.identity: there is no key file {identity}"
            raise ConfigError(message)
        status = identity.stat()
        key = _key(str(identity), status.st_mtime_ns, status.st_size)
        # What needs a passphrase, or can't be read at all, is left to paramiko to complain about.
        if key is None:
            options["key_filename"] = [str(identity)]
        else:
            options["pkey"] = key
    try:
        config = _fabric_config(ssh_config.load())
        connection = fabric.Connection(
            board.host,
            user=board.user,
            port=board.port,
            config=config,
            connect_timeout=None,
            connect_kwargs=options,
            gateway=None if board.jump is None else fabric.Connection(board.jump, config=config),
        )
    except (ValueError, KeyError, paramiko.ConfigParseError) as error:
        message = f"the SSH configuration for {name} ({board.host}) can't be used: {error}"
        raise ConfigError(message) from error
    connection.connect_timeout = connection.connect_timeout or CONNECT_TIMEOUT_S
    _keep_existing_keys(connection)
    _secure_gateways(connection)
    return connection


@functools.lru_cache(maxsize=4)
def _fabric_config(ssh: paramiko.SSHConfig) -> Any:  # noqa: ANN401 - untyped fabric
    # The home's ssh config alone, read here and not by fabric: its own file lookup would also run fabric.py's.
    return fabric.Config(ssh_config=ssh, lazy=True)


@functools.lru_cache(maxsize=16)
def _key(path: str, modified_ns: int, size: int) -> paramiko.PKey | None:
    """Return a private key, with its certificate where there is one; read once, and not once for every board."""
    del modified_ns, size
    try:
        return paramiko.PKey.from_path(path)
    except (paramiko.SSHException, UnknownKeyType, OSError, ValueError, TypeError):
        return None


def _keep_existing_keys(connection: Any) -> None:  # noqa: ANN401 - untyped fabric
    # ssh passes over an IdentityFile that isn't there; paramiko would fail on it.
    names = connection.connect_kwargs.get("key_filename") or []
    kept = [name for name in map(os.path.expanduser, names) if Path(name).is_file()]
    connection.connect_kwargs["key_filename"] = kept
    if connection.ssh_config.get("identitiesonly") == "yes":
        connection.connect_kwargs["look_for_keys"] = False


def _secure_gateways(connection: Any) -> None:  # noqa: ANN401 - untyped fabric
    gateway = connection.gateway
    while isinstance(gateway, fabric.Connection):
        gateway.client.load_system_host_keys()
        gateway.client.set_missing_host_key_policy(_Refuse())
        gateway.connect_timeout = gateway.connect_timeout or CONNECT_TIMEOUT_S
        gateway.connect_kwargs["banner_timeout"] = BANNER_TIMEOUT_S
        gateway.connect_kwargs["auth_timeout"] = AUTH_TIMEOUT_S
        _keep_existing_keys(gateway)
        gateway = gateway.gateway


def _address(connection: Any) -> str:  # noqa: ANN401 - untyped fabric
    host, port = connection.host, int(connection.port)
    return str(host) if port == _DEFAULT_PORT else f"[{host}]:{port}"


def _make_impatient(sock: Any) -> None:  # noqa: ANN401 - socket, Channel or ProxyCommand
    if isinstance(sock, socket.socket):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_TIMEOUT_S * 1000)


def _close(connection: Any) -> None:  # noqa: ANN401 - untyped fabric
    while isinstance(connection, fabric.Connection):
        with contextlib.suppress(Exception):
            # Not connection.close(): after a failed login fabric has no transport yet, paramiko's client has.
            connection.client.close()
        connection = connection.gateway


@contextlib.contextmanager
def _identified(name: str, address: str, connection: Any) -> Iterator[None]:  # noqa: ANN401 - untyped fabric
    """Translate what connecting raises."""
    shown = f"{name} ({address})"
    try:
        yield
    except (TflotillaError, _ShownKeyError):
        raise
    except BadHostKeyException as error:
        message = (
            f"{shown} shows another host key ({error.key.fingerprint}) than the one pinned at enrolment "
            f"({error.expected_key.fingerprint}): another machine, or reinstalled; if you are sure, "
            f"`tflotilla board remove {name}` and add it again"
        )
        raise IdentityError(message) from error
    except _UnknownKeyError as error:
        message = (
            f"{shown}: the host key of {error.address} ({error.key.fingerprint}) is unknown; "
            f"connect to it once with ssh, so that ~/.ssh/known_hosts has it"
        )
        raise IdentityError(message) from error
    except PasswordRequiredException as error:
        message = f"{shown}: the key file needs its passphrase; unlock it with ssh-add"
        raise IdentityError(message) from error
    except paramiko.AuthenticationException as error:
        message = (
            f"{shown} refused our keys for user {connection.user}; put your public key into its "
            f"~/.ssh/authorized_keys, or name another key with identity"
        )
        raise IdentityError(message) from error
    except NoValidConnectionsError as error:
        reasons = "; ".join(sorted({_brief(each) for each in error.errors.values()}))
        message = f"{shown} can't be reached: {reasons}; is it on?"
        raise UnreachableError(message) from error
    except socket.gaierror as error:
        message = f"{shown}: the host name {connection.host!r} can't be resolved ({error.strerror})"
        raise UnreachableError(message) from error
    except paramiko.SSHException as error:
        if "No authentication methods" in str(error):
            message = f"{shown}: there is no key to log in with; name one with identity, or start an SSH agent"
            raise IdentityError(message) from error
        message = f"{shown} speaks no SSH that we understand: {_brief(error)}"
        raise UnreachableError(message) from error
    except (TimeoutError, OSError, EOFError) as error:
        message = f"{shown} can't be reached: {_brief(error)}; is it on?"
        raise UnreachableError(message) from error


def _brief(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
