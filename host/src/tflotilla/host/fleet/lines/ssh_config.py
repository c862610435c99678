"""ssh's client configuration, with its `Include`s, which paramiko's reader passes over; a door to paramiko.

What it does NOT do: connect, or run the commands of `Match exec` when a file is only looked at for its hosts.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import paramiko

from tflotilla.shared.contract.errors import InputError

SYSTEM = Path("/etc/ssh/ssh_config")
#: As OpenSSH.
_DEEPEST = 16
_SSH_PORT = 22
_LINE = re.compile(r"\s*(?P<key>[A-Za-z]+)(?:\s*=\s*|\s+)(?P<value>.*?)\s*")
_NEVER = "Host !*\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredHost:
    """One `Host` without wildcards, and what the whole file says of it."""

    alias: str
    host: str
    port: int | None = None
    user: str | None = None
    identity: str | None = None
    jump: str | None = None
    #: Its ProxyCommand, which only ssh's own configuration can hold.
    command: str | None = None


def user_file() -> Path:
    """Return where a person's own configuration is."""
    return Path.home() / ".ssh" / "config"


def load() -> paramiko.SSHConfig:
    """Read the person's configuration and then the system's, as ssh does. Raises paramiko.ConfigParseError.

    The same text is the same object: it is read for every connection, and parsed once.
    """
    files = []
    for path in (user_file(), SYSTEM):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            files.append(tuple(_expanded(path, 0)))
    return _parsed(tuple(files))


@functools.lru_cache(maxsize=4)
def _parsed(files: tuple[tuple[str, ...], ...]) -> paramiko.SSHConfig:
    config = paramiko.SSHConfig()
    for lines in files:
        config.parse(iter(lines))
    return config


def addresses(config: paramiko.SSHConfig, host: str, port: int | None) -> tuple[str, ...]:
    """Return what a known_hosts file may call a host, the way it is connected to first."""
    said = config.lookup(host)
    used = port or int(said.get("port", _SSH_PORT))
    names = dict.fromkeys((said["hostname"], said.get("hostkeyalias", host), host))
    return tuple(name if used == _SSH_PORT else f"[{name}]:{used}" for name in names)


def hosts(path: Path) -> tuple[ConfiguredHost, ...]:
    """Return the hosts that a configuration names one by one, in order.

    Raises:
        InputError: it isn't there, or can't be read.

    """
    try:
        lines = [_harmless(line) for line in _expanded(path, 0)]
        config = paramiko.SSHConfig()
        config.parse(iter(lines))
        return tuple(_configured(config, alias) for alias in dict.fromkeys(_aliases(lines)))
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise InputError(message) from error
    except (paramiko.SSHException, ValueError, KeyError) as error:
        message = f"{path} can't be read: {' '.join(str(error).split())}"
        raise InputError(message) from error


def _expanded(path: Path, depth: int) -> list[str]:
    """Return a file's lines with those of the files it includes in their place. Raises OSError, ValueError."""
    found: list[str] = []
    block = ""
    for line in path.read_text(errors="replace").splitlines(keepends=True):
        key, value = _split(line)
        if key in ("host", "match"):
            block = line
        if key != "include":
            found.append(line if line.endswith("\n") else f"{line}\n")
            continue
        if depth >= _DEEPEST:
            message = f"{path}: Include goes deeper than {_DEEPEST} files"
            raise ValueError(message)
        for pattern in shlex.split(value):
            base = SYSTEM.parent if path.is_relative_to(SYSTEM.parent) else user_file().parent
            # glob, not Path.glob: the pattern may be absolute.
            for name in sorted(glob.glob(str(base / Path(pattern).expanduser()))):  # noqa: PTH207
                with contextlib.suppress(FileNotFoundError, PermissionError, IsADirectoryError):
                    found += _expanded(Path(name), depth + 1)
        # What follows belongs to the block that the Include stands in.
        found.append(block or "Host *\n")
    return found


def _split(line: str) -> tuple[str, str]:
    matched = _LINE.fullmatch(line.rstrip("\n"))
    return ("", "") if matched is None else (matched["key"].lower(), matched["value"])


def _harmless(line: str) -> str:
    key, value = _split(line)
    return _NEVER if key == "match" and re.search(r"\bexec\b", value, re.IGNORECASE) else line


def _aliases(lines: list[str]) -> list[str]:
    found = []
    for line in lines:
        key, value = _split(line)
        if key == "host":
            found += [word for word in shlex.split(value) if not re.search(r"[*?!]", word)]
    return found


def _configured(config: paramiko.SSHConfig, alias: str) -> ConfiguredHost:
    said = config.lookup(alias)
    jump = said.get("proxyjump")
    port = said.get("port")
    return ConfiguredHost(
        alias=alias,
        host=said["hostname"],
        port=int(port) if port is not None else None,
        user=said.get("user"),
        identity=next(iter(said.get("identityfile", ())), None),
        jump=None if jump is None or jump.lower() == "none" else jump,
        command=said.get("proxycommand"),
    )
