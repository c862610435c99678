"""Summing up: each message exactly once, whoever does it and whatever is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import sqlalchemy as sql

from tests.host.telemetry.store import made
from tflotilla.host.telemetry.store import database, folding, schema
from tflotilla.host.telemetry.store.sums import Sums

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from tflotilla.host.telemetry.store.database import DatabaseStore

    Opened = Callable[..., DatabaseStore]

_NOON = made.NOON
_ACKED_BEFORE_KILL = 12


def parts(store: DatabaseStore, table: sql.Table) -> list[tuple[int, int]]:
    """Return (start after noon, windows) of every sum, in order."""
    with store.reading() as connection:
        assert connection is not None
        rows = connection.execute(sql.select(table.c.start, table.c.sums).order_by(table.c.start, table.c.id)).all()
    return [(int(row.start - _NOON), Sums.unpack(bytes(row.sums)).scalars.windows) for row in rows]


def settle(store: DatabaseStore, now: float) -> None:
    while store.maintain(now=now).more:
        pass


def test_a_minute_is_summed_up_when_it_is_over(opened: Opened) -> None:
    store = opened()
    store.append([made.arrival(n, at=_NOON + n) for n in range(1, 70)])

    settle(store, _NOON + 70)
    assert [(0, 59)] == parts(store, schema.MINUTES)
    settle(store, _NOON + 125)
    assert [(0, 59), (60, 10)] == parts(store, schema.MINUTES)
    settle(store, _NOON + 125)
    assert [(0, 59), (60, 10)] == parts(store, schema.MINUTES)


def test_boards_and_bundles_are_summed_up_apart(opened: Opened) -> None:
    store = opened()
    store.append(
        [
            made.arrival(1),
            made.arrival(2),
            made.arrival(3, bundle="sha256:" + "b" * 64),
            made.arrival(4, bundle=None),
            made.arrival(1, board="pi-2"),
        ]
    )

    settle(store, _NOON + 60)
    assert [(0, 1), (0, 1), (0, 1), (0, 2)] == sorted(parts(store, schema.MINUTES))


def test_minutes_become_hours_and_hours_days(opened: Opened) -> None:
    store = opened()
    store.append([made.arrival(n, at=_NOON + 600 * n) for n in range(1, 145)])

    settle(store, _NOON + 90_000)
    assert 144 == len(parts(store, schema.MINUTES))
    assert 144 == sum(windows for _, windows in parts(store, schema.HOURS))
    assert 25 == len(parts(store, schema.HOURS))
    # Of the day that goes on nothing is there yet.
    assert [(-43200, 71)] == parts(store, schema.DAYS)


def test_what_comes_late_goes_where_it_belongs(opened: Opened) -> None:
    store = opened()
    store.append([made.arrival(n, at=_NOON + n) for n in (1, 2)])
    settle(store, _NOON + 4000)
    late = [made.arrival(n, time=_NOON + n, at=_NOON + 4000) for n in (3, 4, 5)]
    store.append(late)

    settle(store, _NOON + 8000)
    assert [(0, 2), (0, 3)] == parts(store, schema.MINUTES)
    assert [(0, 2), (0, 3)] == parts(store, schema.HOURS)


def test_a_clock_that_was_set_back_does_not_stop_it(opened: Opened) -> None:
    """Messages came when the clock here was a year ahead."""
    store = opened()
    store.append([made.arrival(1, at=_NOON + 365 * 86400)])
    store.append([made.arrival(2, at=_NOON)])

    settle(store, _NOON + 60)
    assert 2 == sum(windows for _, windows in parts(store, schema.MINUTES))


def test_more_than_memory_is_given_is_summed_up_in_several_steps(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "_MOST_ROWS", 10)
    store = opened()
    store.append([made.arrival(n, at=_NOON + 1) for n in range(1, 26)])

    assert store.maintain(now=_NOON + 2).more
    settle(store, _NOON + 2)
    # The rest is of the minute that goes on.
    assert [(0, 10), (0, 10)] == parts(store, schema.MINUTES)
    settle(store, _NOON + 60)
    assert [(0, 10), (0, 10), (0, 5)] == parts(store, schema.MINUTES)


def test_two_that_sum_up_at_once_count_nothing_twice(opened: Opened) -> None:
    """The other one is done between what one read and what it writes."""
    one, other = opened(), opened()
    one.append([made.arrival(n) for n in range(1, 6)])
    turns = [lambda: settle(other, _NOON + 60)]

    def stop() -> bool:
        # Asked in the middle of adding up.
        if turns:
            turns.pop()()
        return False

    one.maintain(now=_NOON + 60, stop=stop)
    settle(one, _NOON + 60)

    assert [(0, 5)] == parts(one, schema.MINUTES)


def test_a_step_that_is_stopped_never_was(opened: Opened) -> None:
    store = opened()
    store.append([made.arrival(n) for n in range(1, 6)])

    assert store.maintain(now=_NOON + 60, stop=lambda: True).more
    assert [] == parts(store, schema.MINUTES)
    settle(store, _NOON + 60)
    assert [(0, 5)] == parts(store, schema.MINUTES)


def test_a_message_that_is_no_metrics_stops_nothing(opened: Opened) -> None:
    import dataclasses

    store = opened()
    store.append([made.arrival(1), dataclasses.replace(made.arrival(2), payload=b"\xff{}"), made.arrival(3)])

    settle(store, _NOON + 60)
    assert [(0, 2)] == parts(store, schema.MINUTES)


_WRITER = """
import sys
from tests.host.telemetry.store import made
from tflotilla.host.telemetry.store import database, folding
folding._MOST_ROWS = 7
store = database.open_store(sys.argv[1])
first = int(sys.argv[2])
for n in range(first, first + 100_000):
    at = made.NOON + n * 5
    store.append([made.arrival(2 * n, at=at), made.arrival(2 * n + 1, at=at)])
    print(2 * n + 1, flush=True)
    store.maintain(now=at + 1)
"""


def test_killed_at_any_moment_everything_counts_once(tmp_path: Path) -> None:
    file = tmp_path / "telemetry.db"
    last = 1
    for kill in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(file), str(last // 2 + 1)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(_ACKED_BEFORE_KILL + 5 * kill):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()

        with database.open_store(str(file)) as store:
            said = range(2, last + 1)
            assert {"duplicate"} == set(store.append([made.arrival(n) for n in said]))
    with database.open_store(str(file)) as store:
        settle(store, _NOON + 10 * 86400)
        with store.reading() as connection:
            assert connection is not None
            stored = connection.execute(sql.select(sql.func.count()).select_from(schema.METRICS)).scalar_one()
        for table in (schema.MINUTES, schema.HOURS, schema.DAYS):
            assert stored == sum(windows for _, windows in parts(store, table))
