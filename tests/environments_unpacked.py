"""What a board's environment holds, unpacked once per run: tests link it onto their boards instead of sending it."""

from __future__ import annotations

import fcntl
import subprocess
from typing import TYPE_CHECKING

from tflotilla.host.fleet.agents import layers

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.fleet.agents.layers import Layer


def folder(packages: Layer) -> Path:
    """Return the folder of these packages; whoever comes while another unpacks them waits."""
    unpacked = layers.cache() / "unpacked" / packages.digest
    unpacked.parent.mkdir(parents=True, exist_ok=True)
    with unpacked.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.exists():
            new = unpacked.with_suffix(".new")
            subprocess.run(["rm", "-rf", str(new)], check=True)
            new.mkdir(parents=True)
            # Not tarfile: Debian 12's Python 3.11.2 has no extraction filters, and later ones want one.
            subprocess.run(["tar", "-xf", str(packages.archive), "-C", str(new)], check=True)
            new.rename(unpacked)
    return unpacked
