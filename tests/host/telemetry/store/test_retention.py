"""Forgetting what is old, and making room."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sql

from tests.host.telemetry.store import made
from tflotilla.host.telemetry.store import database, schema
from tflotilla.host.telemetry.store.history import Question, ask
from tflotilla.host.telemetry.store.port import UnavailableError
from tflotilla.host.telemetry.store.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tflotilla.host.telemetry.store.database import DatabaseStore

    Opened = Callable[..., DatabaseStore]

_NOON = made.NOON
_DAY_S = 86400.0
_MIB = 1 << 20


def count(store: DatabaseStore, table: sql.Table) -> int:
    with store.reading() as connection:
        assert connection is not None
        return connection.execute(sql.select(sql.func.count()).select_from(table)).scalar_one()


def settle(store: DatabaseStore, now: float) -> None:
    while store.maintain(now=now).more:
        pass


def test_each_table_is_kept_for_its_own_time(opened: Opened) -> None:
    store = opened(Retention(raw_s=_DAY_S, reports_s=3 * _DAY_S, minutes_s=2 * _DAY_S, hours_s=4 * _DAY_S))
    store.append([made.arrival(1), dataclasses.replace(made.arrival(2), channel="event")])

    def left(days: float) -> list[int]:
        settle(store, _NOON + days * _DAY_S)
        tables = (schema.METRICS, schema.REPORTS, schema.MINUTES, schema.HOURS, schema.DAYS)
        return [count(store, table) for table in tables]

    assert [1, 1, 1, 1, 1] == left(0.99)
    assert [0, 1, 1, 1, 1] == left(1.01)
    assert [0, 1, 0, 1, 1] == left(2.5)
    assert [0, 0, 0, 1, 1] == left(3.01)
    assert [0, 0, 0, 0, 1] == left(5.0)
    assert [0, 0, 0, 0, 1] == left(5000.0)


def test_days_are_forgotten_only_when_told(opened: Opened) -> None:
    store = opened(Retention(days_s=10 * _DAY_S))
    store.append([made.arrival(1)])

    settle(store, _NOON + 20 * _DAY_S)
    assert 0 == count(store, schema.DAYS)


def test_what_is_not_summed_up_is_not_forgotten(opened: Opened) -> None:
    """It is old, but its minute goes on: the clock stands."""
    store = opened(Retention(raw_s=1.0, minutes_s=1.0, hours_s=1.0))
    store.append([made.arrival(n, at=_NOON + n) for n in range(1, 6)])

    settle(store, _NOON + 50)
    assert 5 == count(store, schema.METRICS)
    settle(store, _NOON + 3 * _DAY_S)
    assert [0, 0, 0, 1] == [
        count(store, table) for table in (schema.METRICS, schema.MINUTES, schema.HOURS, schema.DAYS)
    ]
    answer = ask(store, Question(since=_NOON, until=_NOON + 60))
    assert [5] == [group.sums.scalars.windows for group in answer.groups]


def test_messages_of_a_clock_that_was_ahead_do_not_stay_for_ever(opened: Opened) -> None:
    store = opened(Retention(raw_s=_DAY_S))
    store.append([made.arrival(1, at=_NOON + 3650 * _DAY_S)])
    store.append([made.arrival(2, at=_NOON)])

    settle(store, _NOON + 2 * _DAY_S)
    assert 0 == count(store, schema.METRICS)


def test_a_file_stops_growing_and_the_oldest_messages_go_first(tmp_path: Path) -> None:
    file = tmp_path / "telemetry.db"
    most = 2 * _MIB
    with database.open_store(str(file), retention=Retention(most_bytes=most)) as store:
        sizes = []
        for batch in range(60):
            at = _NOON + batch * 60
            store.append([made.arrival(batch * 200 + n, at=at) for n in range(1, 201)])
            settle(store, at + 60)
            sizes.append(file.stat().st_size)
        with store.reading() as connection:
            assert connection is not None
            left: list[int] = sorted(connection.execute(sql.select(schema.METRICS.c.seq)).scalars())
        answer = ask(store, Question(since=_NOON, until=_NOON + _DAY_S))

    # What is written between two looks is on top.
    assert max(sizes[10:]) < 1.5 * most
    assert list(range(left[0], 60 * 200 + 1)) == left
    assert [60 * 200] == [group.sums.scalars.windows for group in answer.groups]


def test_a_file_that_is_given_less_room_becomes_smaller(tmp_path: Path) -> None:
    file = tmp_path / "telemetry.db"
    with database.open_store(str(file)) as store:
        store.append([made.arrival(n) for n in range(1, 20_001)])
        store.maintain(now=_NOON + 1)
    before = file.stat().st_size
    with database.open_store(str(file), retention=Retention(most_bytes=before // 4)) as store:
        settle(store, _NOON + 60)

    assert before // 3 > file.stat().st_size


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk to fill")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(path: Path) -> None:
    """Take every block that is left."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(handle, b"x" * 4096)
    os.close(handle)


def test_on_a_full_disk_nothing_stored_is_lost_and_it_goes_on_when_there_is_room(tiny_disk: Path) -> None:
    store = database.open_store(str(tiny_disk / "telemetry.db"))
    store.append([made.arrival(1)])
    seq = 1
    others = tiny_disk / "of somebody else"
    fill_up(others)
    problem = ""
    while not problem:
        try:
            store.append([made.arrival(n) for n in range(seq + 1, seq + 501)])
            seq += 500
        except UnavailableError as error:
            problem = str(error)
    assert f"the telemetry store {tiny_disk / 'telemetry.db'} can't be used: database or disk is full" == problem
    assert seq == count(store, schema.METRICS)

    others.unlink()
    assert ["duplicate", "stored"] == store.append([made.arrival(seq), made.arrival(seq + 1)])
    assert seq + 1 == count(store, schema.METRICS)
    store.close()


def test_what_is_too_old_goes_from_a_full_disk_too(tiny_disk: Path) -> None:
    file = tiny_disk / "telemetry.db"
    store = database.open_store(str(file), retention=Retention(raw_s=_DAY_S))
    store.append([made.arrival(n) for n in range(1, 3001)])
    settle(store, _NOON + 3600)
    fill_up(tiny_disk / "of somebody else")
    seq = 3000
    with contextlib.suppress(UnavailableError):
        while True:
            store.append([made.arrival(n, at=_NOON + 100) for n in range(seq + 1, seq + 501)])
            seq += 500

    for _ in range(10):
        with contextlib.suppress(UnavailableError):
            store.maintain(now=_NOON + 2 * _DAY_S)
    assert 0 == count(store, schema.METRICS)
    assert {"stored"} == set(store.append([made.arrival(n, at=_NOON + 2 * _DAY_S) for n in range(seq + 1, seq + 100)]))
    store.close()
