"""The journal of a benchmark on disk: a line for the plan, then one for each thing that happened; see `campaign`.

Rules it keeps: a line counts when it is whole and durable; what a power cut left of the last one is ignored; lines are
appended, because rewriting the figures of every cell for each new one would wear the card.
What it does NOT do: decide what is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.device import campaign
from tflotilla.device.campaign import Campaign, Entry, Plan
from tflotilla.device.disk import Disk, RealDisk, write
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class BenchmarkJournal:
    """One home's journal. All of its writing may raise OSError."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self._path = path
        self._disk = disk or RealDisk()
        #: Whether this plan's first line is there: lines must not be added to another one's journal.
        self._begun = False

    def begin(self, plan: Plan) -> None:
        """Replace whatever is there by a new plan."""
        self._begun = False
        try:
            write(self._disk, self._path, codec.canonical_json(plan) + b"\n")
        except OSError:
            # The one before would be taken for this one's after a restart.
            self._disk.remove(self._path)
            raise
        self._begun = True

    def add(self, entry: Entry) -> None:
        """Add one line, durably. Does nothing while the plan itself could not be written."""
        if not self._begun:
            return
        try:
            self._disk.append(self._path, codec.canonical_json(entry) + b"\n")
            self._disk.sync_file(self._path)
        except OSError:
            # Half a line would swallow the next one.
            self._begun = False
            raise

    def read(self) -> tuple[Campaign, bool] | None:
        """Return what the journal tells, and whether its last report is owed (`campaign.owes`).

        None when there is no journal that can be understood.
        """
        try:
            data = self._path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            first, *rest = whole.splitlines() or [b""]
            plan = codec.decode(Plan, codec.parse_json(first, "journal"), "journal")
            if whole != data:
                write(self._disk, self._path, whole)
        except (OSError, ContractError):
            return None
        self._begun = True
        entries = tuple(_entries(rest))
        return campaign.replay(plan, entries), campaign.owes(entries)


def _entries(lines: list[bytes]) -> Iterator[Entry]:
    for line in lines:
        try:
            yield codec.decode(Entry, codec.parse_json(line, "journal"), "journal")
        except ContractError:
            return
