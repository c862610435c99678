"""What a push will cost, before it is done: bytes by what the board has, seconds by what pushes took before.

What it does NOT do: ask boards, or promise anything; the plan shows both with a `~`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.bundles.archive import Bundle
from tflotilla.host.rollouts import bundle_copies
from tflotilla.host.rollouts.events import Deployed
from tflotilla.shared.contract.errors import TflotillaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.rollouts.journal.port import Journal
    from tflotilla.shared.contract.messages import ServedBundle

#: Handshake, hello, manifest, signature.
_OVERHEAD_BYTES = 6000
_LOOKED_AT = 20


def send_bytes(fleet: Fleet, bundle: Bundle, there: Iterable[ServedBundle | None]) -> int:
    """Return the bytes of the bundle's files that a board with these bundles lacks, uncompressed."""
    known: set[str] = set()
    for served in there:
        if served is not None:
            known |= _files(fleet, served.digest)
    missing = {entry.sha256: entry.size for entry in bundle.manifest.files.values() if entry.sha256 not in known}
    return sum(missing.values()) + len(bundle.manifest_bytes) + _OVERHEAD_BYTES


def durations(journal: Journal) -> Mapping[str, float]:
    """Return board → seconds of its last push that changed something, in the newest rollouts."""
    found: dict[str, float] = {}
    for name in journal.rollouts()[-_LOOKED_AT:]:
        for recorded in journal.events(name):
            if isinstance(recorded.event, Deployed) and recorded.event.changed:
                found[recorded.event.board] = recorded.event.duration_s
    return found


def _files(fleet: Fleet, digest: str) -> set[str]:
    try:
        manifest = Bundle.open(fleet.state / bundle_copies.FOLDER / f"{digest}.tflb").manifest
    except TflotillaError:
        # Rolled out from elsewhere: nothing is known of its files.
        return set()
    return {entry.sha256 for entry in manifest.files.values()}
