"""The pinned host keys: OpenSSH's known_hosts, one line per board, the board's name as its comment.

`lookup` reads other people's known_hosts as well: patterns, hashed names, revoked keys (sshd(8), SSH_KNOWN_HOSTS).
What it does NOT do: decide whether a key is to be trusted, or speak SSH.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import functools
import hashlib
import hmac
from typing import TYPE_CHECKING

from tflotilla.host.fleet.inventory import state_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_FIELDS = 4
#: The best first: which kind a board is asked for follows from the one that is pinned.
_KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
_HASHED = "|1|"


def read(path: Path) -> Mapping[str, tuple[str, str]]:
    """Return each board's key, as type and base64; nothing where there is no file. Raises OSError."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return {}
    return _read(path, (status.st_ino, status.st_mtime_ns, status.st_size))


def change(path: Path, lines: Mapping[str, str | None]) -> None:
    """Pin keys (lines of known_hosts without comment), or forget them (None). Raises OSError."""
    try:
        kept = [line for line in path.read_text().splitlines() if not set(line.split()[3:]) & set(lines)]
    except FileNotFoundError:
        kept = []
    kept += [f"{line} {name}" for name, line in lines.items() if line is not None]
    state_files.replace(path, "".join(f"{line}\n" for line in kept).encode())


class KnownHosts:
    """A known_hosts file that somebody else keeps."""

    def __init__(self, text: str) -> None:
        """Read its text; lines that can't be read are passed over, as ssh does."""
        self._exact: dict[str, list[tuple[str, str]]] = {}
        self._others: list[tuple[str, str, str]] = []
        self._revoked: set[str] = set()
        for line in text.splitlines():
            fields = line.split()
            if not fields or fields[0].startswith("#"):
                continue
            if fields[0].startswith("@"):
                # Certificate authorities vouch for keys that aren't known yet: nothing that could be pinned.
                if fields[0] == "@revoked" and len(fields) >= _FIELDS:
                    self._revoked.add(fields[3])
                continue
            if len(fields) < _FIELDS - 1:
                continue
            self._add(fields[0], fields[1], fields[2])

    def _add(self, patterns: str, kind: str, key: str) -> None:
        if patterns.startswith(_HASHED) or any(sign in patterns for sign in "*?!"):
            self._others.append((patterns, kind, key))
            return
        for pattern in patterns.split(","):
            self._exact.setdefault(pattern.lower(), []).append((kind, key))

    def lookup(self, addresses: Sequence[str]) -> tuple[str, str] | None:
        """Return type and base64 of the best key of a host, under any of its addresses (`host`, `[host]:port`)."""
        found = [key for address in addresses for key in self._exact.get(address.lower(), ())]
        for patterns, kind, key in self._others:
            if any(_names(patterns, address.lower()) for address in addresses):
                found.append((kind, key))
        usable = [each for each in found if each[0] in _KINDS and each[1] not in self._revoked]
        return min(usable, key=lambda each: _KINDS.index(each[0]), default=None)


def _names(patterns: str, address: str) -> bool:
    """Whether a line's first field means an address."""
    if patterns.startswith(_HASHED):
        try:
            salt, hashed = (base64.b64decode(part) for part in patterns[len(_HASHED) :].split("|"))
        except (ValueError, binascii.Error):
            return False
        # SHA-1, because that is how OpenSSH hides the names.
        return hmac.compare_digest(hmac.new(salt, address.encode(), hashlib.sha1).digest(), hashed)
    each = patterns.lower().split(",")
    if any(pattern.startswith("!") and fnmatch.fnmatchcase(address, _literal(pattern[1:])) for pattern in each):
        return False
    return any(fnmatch.fnmatchcase(address, _literal(pattern)) for pattern in each if not pattern.startswith("!"))


def _literal(pattern: str) -> str:
    # ssh knows `*` and `?`; brackets are those of `[host]:port`.
    return pattern.replace("[", "[[]")


@functools.lru_cache(maxsize=4)
def _read(path: Path, _version: tuple[int, int, int]) -> Mapping[str, tuple[str, str]]:
    # A file that is replaced has another inode: what is kept here is the file as it is, read once for 10,000 boards.
    found: dict[str, tuple[str, str]] = {}
    for line in path.read_text().splitlines():
        fields = line.split()
        if len(fields) == _FIELDS:
            found.setdefault(fields[3], (fields[1], fields[2]))
    return found
