"""Who may do what on the page: which names it is asked under, and who holds the token. Pure but for the delays.

Rules it keeps: a request under a foreign name is refused, because a web page of somebody else's may have been told that
its own name is our address (DNS rebinding); a token is compared in constant time, and wrong ones wait their turn.
What it does NOT do: cookies. What a browser sends by itself proves nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import os
import socket
import stat
from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

_SHORTEST = 16
_LONGEST = 1024
#: Each wrong token costs whoever guesses that long; so many may wait.
_DELAY_S = 1.0
_MOST_WAITING = 20
_BEARER = "bearer "


class Token:
    """The token that lets people do things; `None` in its place makes the page read-only."""

    def __init__(self, text: str, *, delay_s: float = _DELAY_S) -> None:
        self._digest = hashlib.sha256(text.encode()).digest()
        self._delay_s = delay_s
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def allows(self, authorization: str | None) -> bool:
        """Whether a request's `Authorization` holds it; a wrong one is answered late."""
        given = authorization or ""
        if given[: len(_BEARER)].lower() == _BEARER:
            digest = hashlib.sha256(given[len(_BEARER) :].strip().encode(errors="replace")).digest()
            if hmac.compare_digest(digest, self._digest):
                return True
        if given and self._waiting < _MOST_WAITING:
            self._waiting += 1
            try:
                async with self._turn:
                    await asyncio.sleep(self._delay_s)
            finally:
                self._waiting -= 1
        return False


def read_token(file: Path, *, tell: Callable[[str], None] = lambda _line: None) -> Token:
    """Read the token from a file: its first line.

    Raises:
        InputError: it can't be read, or what is in it is too short to be a secret.

    """
    try:
        with file.open() as opened:
            # Whatever is named here by mistake, a device say, need not end.
            lines = opened.read(2 * _LONGEST).splitlines()
            mode = os.fstat(opened.fileno()).st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"token file {file} can't be read: {reason}") from error
    text = lines[0].strip() if lines else ""
    if not _SHORTEST <= len(text) <= _LONGEST or not text.isascii():
        raise InputError(
            f"token file {file}: its first line must be {_SHORTEST} to {_LONGEST} ASCII characters; "
            f"`openssl rand -hex 24 > {file}` makes one"
        )
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        tell(f"token file {file} can be read by others; `chmod 600 {file}`")
    return Token(text)


def own_names(host: str, more: Collection[str] = ()) -> frozenset[str]:
    """Return the names that a page on this address may be asked under, besides addresses."""
    names = {"localhost", host.lower(), *(name.lower() for name in more)}
    if not is_loopback(host):
        name = socket.gethostname().lower()
        short = name.split(".")[0]
        names |= {name, short, f"{short}.local"}
    return frozenset(names)


def is_ours(header: str | None, names: Collection[str]) -> bool:
    """Whether a `Host` header names this machine. Addresses do: rebinding needs a name."""
    host = host_of(header or "")
    return host in names or _is_address(host)


def host_of(header: str) -> str:
    """Return the host of `host:port`, in lower case, IPv6 without its brackets."""
    text = header.strip().lower()
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        return address if not rest or rest.startswith(":") else text
    return text.partition(":")[0].rstrip(".") if text.count(":") <= 1 else text


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches the address."""
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def same_site(origin: str | None, host: str | None) -> bool:
    """Whether a request comes from a page of ours, or from no page at all."""
    if origin is None:
        return True
    return origin.lower() in (f"http://{(host or '').lower()}", f"https://{(host or '').lower()}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
