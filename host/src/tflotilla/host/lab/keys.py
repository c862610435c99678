"""The keys of a lab: its client key, its host keys, its signing key.

They go with it, so nothing asks before replacing one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.bundles import sshsig

if TYPE_CHECKING:
    from pathlib import Path


def generate(path: Path, *, comment: str) -> str:
    """Write an ed25519 private key (mode 0600) and its `.pub`; return the public line `ssh-ed25519 AAAA… comment`."""
    public = path.with_name(path.name + ".pub")
    for file in (path, public):
        file.unlink(missing_ok=True)
    sshsig.generate_key(path, comment=comment)
    return public.read_text().strip()
