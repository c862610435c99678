"""Rows out of a damaged SQLite file: whatever page still reads, without asking whether the rest of the tree does.

Pure: bytes in, rows out. The format is https://www.sqlite.org/fileformat2.html (sections 1.3, 1.6, 2.1, 4): every leaf
page of a table is taken by itself, newest version first from the write-ahead log, as far as that was committed.

Rules it keeps: a row comes whole or not at all; rows that can't be what this tflotilla writes are left out; of a
rollout's events only those up to the first gap count, because what followed can't be understood without it.
What it does NOT do: open or replace files (`database`).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC: Final = b"SQLite format 3\x00"
_USUAL_PAGE_BYTES: Final = 4096
_LEAF_OF_TABLE: Final = 0x0D
_WAL_MAGIC: Final = (0x377F0682, 0x377F0683)
_WAL_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
#: Bytes of the serial types 0 to 9.
_FIXED_BYTES: Final = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
_REAL: Final = 7
#: After one of these a rollout begins nothing new by itself, whatever was lost behind it.
_AT_REST: Final = frozenset({"Halted", "Aborted", "Finished", "Paused", "RollbackAsked"})
_MOVING: Final = frozenset({"WaveBegan", "Resumed", "Retried", "Approved"})

Value = int | float | str | bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One event as it was stored."""

    number: int
    at: float
    by: str
    document: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRow:
    """One rollout as it was stored, with its events up to the first gap."""

    identifier: int
    name: str
    created: float
    by: str
    plan: str
    events: tuple[EventRow, ...]
    #: Events behind a gap.
    lost: int

    @property
    def moves(self) -> bool:
        """Whether it would go on by itself."""
        kinds = [json.loads(event.document)["kind"] for event in self.events]
        told = [kind for kind in kinds if kind in _AT_REST or kind in _MOVING]
        return not told or told[-1] in _MOVING


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """What a damaged journal still holds."""

    rollouts: tuple[RolloutRow, ...] = ()
    #: Audit entries by number, as they were stored; up to the first gap.
    audit: Mapping[int, str] = field(default_factory=dict)
    #: Events of rollouts whose plan is gone, and behind gaps.
    lost_events: int = 0
    lost_audit: int = 0


def journal(main: bytes, log: bytes) -> Salvaged:
    """Return what can be read of a journal's file and of the write-ahead log beside it; either may be empty."""
    plans: dict[int, tuple[str, float, str, str]] = {}
    stories: dict[int, dict[int, EventRow]] = {}
    audit: dict[int, str] = {}
    for rowid, row in rows(main, log):
        # Tables are told apart by the shapes of their rows; `database` declares them so.
        match row:
            case (None, str(name), int() | float() as created, str(by), str(plan)) if _is_document(plan):
                plans[rowid] = (name, float(created), by, plan)
            case (int(rollout), int(number), int() | float() as at, str(by), str(text)) if "kind" in _document(text):
                event = EventRow(number=number, at=float(at), by=by, document=text)
                stories.setdefault(rollout, {})[number] = event
            case (None, str(text)) if "digest" in _document(text):
                audit[rowid] = text
    found = []
    for identifier, (name, created, by, plan) in sorted(plans.items()):
        story = stories.pop(identifier, {})
        kept = tuple(story[number] for number in range(1, _unbroken(story) + 1))
        lost = len(story) - len(kept)
        found.append(
            RolloutRow(identifier=identifier, name=name, created=created, by=by, plan=plan, events=kept, lost=lost)
        )
    unbroken = _unbroken(audit)
    return Salvaged(
        rollouts=tuple(found),
        audit={number: audit[number] for number in range(1, unbroken + 1)},
        lost_events=sum(row.lost for row in found) + sum(len(story) for story in stories.values()),
        lost_audit=len(audit) - unbroken,
    )


def rows(main: bytes, log: bytes) -> Iterator[tuple[int, tuple[Value, ...]]]:
    """Return row id and columns of every row of every table that can be read, in the order of their pages.

    A row may come twice, from a page that is no longer in use; rows that are never changed are the same then.
    """
    size = _page_bytes(main, log)
    pages = _Pages(main, _committed(log, size), size)
    for number in pages:
        yield from _leaf(pages, number)


class _Pages(Mapping[int, bytes]):
    """Pages by number, counted from 1; those of the log go before those of the file. Truncated ones are not there."""

    def __init__(self, main: bytes, newer: Mapping[int, bytes], size: int) -> None:
        self._main = main
        self._newer = newer
        self.size = size
        # Each page may reserve bytes at its end for extensions; ours reserve none.
        self._count = max(len(main) // size, max(newer, default=0))

    def __getitem__(self, number: int) -> bytes:
        page = self._newer.get(number) or self._main[(number - 1) * self.size : number * self.size]
        if number < 1 or len(page) != self.size:
            raise KeyError(number)
        return page

    def __iter__(self) -> Iterator[int]:
        return (number for number in range(1, self._count + 1) if number in self)

    def __len__(self) -> int:
        return sum(1 for _number in self)


def _page_bytes(main: bytes, log: bytes) -> int:
    if main.startswith(_MAGIC):
        (said,) = struct.unpack_from(">H", main, 16)
    elif len(log) >= _WAL_HEADER_BYTES:
        (said,) = struct.unpack_from(">I", log, 8)
    else:
        said = _USUAL_PAGE_BYTES
    size = 65536 if said == 1 else int(said)
    return size if 512 <= size <= 65536 and not size & (size - 1) else _USUAL_PAGE_BYTES  # noqa: PLR2004 - the format's


def _committed(log: bytes, size: int) -> dict[int, bytes]:
    """Return the pages of a write-ahead log up to its last whole transaction."""
    if len(log) < _WAL_HEADER_BYTES:
        return {}
    magic, _version, said, _sequence, salt = struct.unpack_from(">IIII8s", log)
    order = ">" if magic & 1 else "<"
    checksum = _checksum(log[:24], (0, 0), order)
    if magic not in _WAL_MAGIC or said != size or checksum != struct.unpack_from(">II", log, 24):
        return {}
    done: dict[int, bytes] = {}
    pending: dict[int, bytes] = {}
    step = _FRAME_HEADER_BYTES + size
    for start in range(_WAL_HEADER_BYTES, len(log) - step + 1, step):
        number, commit, frame_salt, *said_sum = struct.unpack_from(">II8sII", log, start)
        page = log[start + _FRAME_HEADER_BYTES : start + step]
        checksum = _checksum(page, _checksum(log[start : start + 8], checksum, order), order)
        if frame_salt != salt or tuple(said_sum) != checksum:
            # From here on it is what an older log left behind, or was never written whole.
            break
        pending[number] = page
        if commit:
            done |= pending
            pending = {}
    return done


def _checksum(data: bytes, start: tuple[int, int], order: str) -> tuple[int, int]:
    """Return section 4.2's checksum of whole pairs of words."""
    first, second = start
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def _leaf(pages: _Pages, number: int) -> Iterator[tuple[int, tuple[Value, ...]]]:
    page = pages[number]
    start = 100 if number == 1 else 0
    if page[start] != _LEAF_OF_TABLE:
        return
    (count,) = struct.unpack_from(">H", page, start + 3)
    for index in range(count):
        try:
            (at,) = struct.unpack_from(">H", page, start + 8 + 2 * index)
            length, at = _varint(page, at)
            rowid, at = _varint(page, at)
            yield rowid, _record(_payload(pages, page, at, length))
        except (IndexError, KeyError, ValueError, struct.error):
            # Damaged: the next one may be whole.
            continue


def _payload(pages: _Pages, page: bytes, at: int, length: int) -> bytes:
    """Return a row's bytes, those on overflow pages too (section 1.6). Raises KeyError when one is not there."""
    local = pages.size - 35
    if length > local:
        least = (pages.size - 12) * 32 // 255 - 23
        surplus = least + (length - least) % (pages.size - 4)
        local = surplus if surplus <= local else least
        (following,) = struct.unpack_from(">I", page, at + local)
        pieces = [page[at : at + local]]
        missing = length - local
        while missing > 0:
            overflow = pages[following]
            (following,) = struct.unpack_from(">I", overflow)
            pieces.append(overflow[4 : 4 + missing])
            missing -= len(pieces[-1])
        return b"".join(pieces)
    return page[at : at + length]


def _record(payload: bytes) -> tuple[Value, ...]:
    """Decode the record format (section 2.1). Raises ValueError, IndexError or struct.error on what is none."""
    header, at = _varint(payload, 0)
    kinds = []
    while at < header:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values: list[Value] = []
    for kind in kinds:
        size = _FIXED_BYTES[kind] if kind < len(_FIXED_BYTES) else (kind - 12) // 2
        data = payload[at : at + size]
        if kind in (10, 11) or len(data) != size:
            raise ValueError(kind)
        values.append(_value(kind, data))
        at += size
    return tuple(values)


def _value(kind: int, data: bytes) -> Value:
    if kind == 0:
        return None
    if kind == _REAL:
        (real,) = struct.unpack(">d", data)
        return float(real)
    if kind < len(_FIXED_BYTES):
        # 8 and 9 are the numbers 0 and 1, and have no bytes.
        return kind - 8 if kind >= 8 else int.from_bytes(data, "big", signed=True)  # noqa: PLR2004 - section 2.1
    return data.decode() if kind % 2 else data


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(9):
        byte = data[at + index]
        if index == 8:  # noqa: PLR2004 - the ninth byte counts whole
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004 - the last one
            return value, at + index + 1
    raise ValueError(at)


def _unbroken(numbered: Mapping[int, Any] | Sequence[Any]) -> int:
    last = 0
    while last + 1 in numbered:
        last += 1
    return last


def _is_document(text: str) -> bool:
    return bool(_document(text))


def _document(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
