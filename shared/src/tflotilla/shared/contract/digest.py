"""SHA-256 digests: how every file, bundle and environment is named."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_HEX = re.compile(r"[0-9a-f]{64}")
SHORT_LENGTH = 12


def of_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces of 1 MiB. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def check(text: str) -> str:
    """Return `text` if it is a digest in canonical form. Raises ValueError."""
    if not _HEX.fullmatch(text):
        message = f"{text[:80]!r} is not a SHA-256 digest (64 lower-case hex digits)"
        raise ValueError(message)
    return text


def short(text: str) -> str:
    """Return the first 12 digits: enough for people, never for a decision."""
    return text[:SHORT_LENGTH]
