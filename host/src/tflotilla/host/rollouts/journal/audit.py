"""The audit log's chain: each entry holds the digest of the one before, so that a change of any of them shows.

    digest = SHA-256 of the canonical JSON of {number, at, by, action, rollout, detail, previous}

A chain can't tell that its end was cut off; the number and digest of its last entry, kept apart from it (`Head`), can.
What it does NOT do: keep anything (`database`), or stop somebody who rewrites the whole log and the head beside it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tflotilla.host.rollouts.journal.port import AuditEntry
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: What the first entry has instead of a digest.
NOTHING_BEFORE = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last entry that was seen."""

    number: int
    digest: str


def chained(
    previous: AuditEntry | None, *, at: float, by: str, action: str, rollout: str | None, detail: Mapping[str, Any]
) -> AuditEntry:
    """Return the entry that follows `previous`. Raises ValueError when `detail` is no JSON."""
    entry = AuditEntry(
        number=1 if previous is None else previous.number + 1,
        at=float(at),
        by=by,
        action=action,
        rollout=rollout,
        # As it will be read: tuples become lists, numbered keys words.
        detail=json.loads(_canonical(detail)),
        previous=NOTHING_BEFORE if previous is None else previous.digest,
        digest="",
    )
    return dataclasses.replace(entry, digest=digest_of(entry))


def digest_of(entry: AuditEntry) -> str:
    """Return what an entry's `digest` must be, in hex."""
    document = codec.encode(entry)
    del document["digest"]
    return hashlib.sha256(_canonical(document).encode()).hexdigest()


def verify(entries: Iterable[AuditEntry], *, head: Head | None = None) -> str | None:
    """Return what is wrong with a log, naming the first entry that is broken; None when nothing is.

    Args:
        entries: the whole log, oldest first.
        head: the last entry that was known, from elsewhere.

    """
    last = Head(number=0, digest=NOTHING_BEFORE)
    for entry in entries:
        if entry.number != last.number + 1:
            return f"entry {last.number + 1} of the audit log is missing: after {last.number} comes {entry.number}"
        if entry.previous != last.digest:
            return (
                f"entry {entry.number} of the audit log does not follow entry {last.number}: one of both was replaced"
            )
        if entry.digest != digest_of(entry):
            return f"entry {entry.number} of the audit log was changed: {entry.action} by {entry.by}"
        last = Head(number=entry.number, digest=entry.digest)
        if head is not None and head.number == last.number and head.digest != last.digest:
            return f"entry {entry.number} of the audit log is not the one that was written: all were written anew"
    if head is not None and head.number > last.number:
        return f"entries {last.number + 1} to {head.number} of the audit log are missing: its end was cut off"
    return None


def _canonical(value: Any) -> str:  # noqa: ANN401 - any JSON document
    # Only ASCII: names of files that are no UTF-8 must not keep an entry from being written.
    return json.dumps(codec.encode(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
