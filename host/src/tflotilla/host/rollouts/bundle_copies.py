"""The bundles that rollouts need as long as boards may still want them: copies beside the fleet, by digest.

A rollout outlives the command that began it, and the file that was named there may be gone by then.
What it does NOT do: verify signatures (`push.verify` does, before every push).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.host.bundles.archive import Bundle
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from tflotilla.host.fleet.inventory.fleet import Fleet

FOLDER = "bundles"


def keep(fleet: Fleet, bundle: Bundle) -> str:
    """Copy a bundle beside the fleet, whole or not at all; return where, relative to fleet.toml's folder.

    Raises:
        InputError: it can't be written.

    """
    target = fleet.state / FOLDER / f"{bundle.digest}.tflb"
    if not _is_whole(target, bundle.digest):
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as scratch:
                fresh = Path(scratch) / target.name
                if bundle.path.is_dir():
                    shutil.copytree(bundle.path, fresh)
                else:
                    shutil.copyfile(bundle.path, fresh)
                if target.is_dir():
                    shutil.rmtree(target)
                fresh.replace(target)
        except OSError as error:
            message = f"{target}: the bundle can't be kept for the rollout ({error.strerror or error})"
            raise InputError(message) from error
    return str(target.relative_to(fleet.folder))


def _is_whole(target: Path, digest: str) -> bool:
    try:
        found = Bundle.open(target)
        found.verify_files()
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is copied again
        return False
    return found.digest == digest
