"""Keys of a lab: made anew whenever they are asked for, unlike a person's, which are never overwritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.bundles import sshsig

if TYPE_CHECKING:
    from pathlib import Path


def generate(path: Path, *, comment: str) -> str:
    """Write a private key (mode 0600) and its `.pub`; return the public line `ssh-ed25519 AAAA… comment`."""
    path.unlink(missing_ok=True)
    sshsig.generate_key(path, comment=comment)
    return path.with_name(path.name + ".pub").read_text().rstrip("\n")
