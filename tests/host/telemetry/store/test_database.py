"""Appending to a store: once, durably, whoever else does."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sql

from tests.host.telemetry.store import made
from tflotilla.host.telemetry.store import database, schema
from tflotilla.host.telemetry.store.port import UnavailableError
from tflotilla.host.telemetry.store.retention import Retention
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tflotilla.host.telemetry.store.database import DatabaseStore

    Opened = Callable[..., DatabaseStore]


def rows(store: DatabaseStore, table: sql.Table = schema.METRICS) -> list[tuple[str, str, int]]:
    """Return (board, boot, seq) of what a store holds, in order of numbers."""
    with store.reading() as connection:
        assert connection is not None
        wanted = sql.select(schema.BOARDS.c.name, schema.BOOTS.c.boot, table.c.seq)
        wanted = wanted.join_from(table, schema.BOOTS, table.c.boot == schema.BOOTS.c.id)
        wanted = wanted.join(schema.BOARDS, schema.BOOTS.c.board == schema.BOARDS.c.id).order_by(table.c.id)
        return [(row.name, row.boot, row.seq) for row in connection.execute(wanted)]


def boot_row(store: DatabaseStore) -> tuple[str, int, int]:
    with store.reading() as connection:
        assert connection is not None
        boots = schema.BOOTS.c
        return connection.execute(sql.select(boots.ranges, boots.received, boots.duplicates)).one()


def test_a_message_is_kept_once(opened: Opened) -> None:
    store = opened()
    first, second = made.arrival(1), made.arrival(2)

    assert ["stored", "stored"] == store.append([first, second])
    assert ["duplicate", "stored"] == store.append([second, made.arrival(3)])
    assert [("pi-1", "boot-a", 1), ("pi-1", "boot-a", 2), ("pi-1", "boot-a", 3)] == rows(store)
    assert ("1-3", 3, 1) == boot_row(store)


def test_a_batch_may_hold_a_message_twice(opened: Opened) -> None:
    assert ["stored", "duplicate"] == opened().append([made.arrival(7), made.arrival(7)])


def test_another_boot_numbers_anew(opened: Opened) -> None:
    store = opened()
    store.append([made.arrival(1)])

    assert ["stored"] == store.append([made.arrival(1, boot="boot-b")])
    assert ["stored"] == store.append([made.arrival(1, board="pi-2")])


def test_who_opens_it_again_knows_what_is_there(opened: Opened) -> None:
    opened().append([made.arrival(1), made.arrival(5)])

    assert ["duplicate", "stored"] == opened().append([made.arrival(5), made.arrival(4)])


def test_two_writers_keep_each_message_once(opened: Opened) -> None:
    """As collectors that share the work do, in turns and at once."""
    one, other = opened(), opened()
    assert ["stored"] == one.append([made.arrival(1)])
    assert ["duplicate", "stored"] == other.append([made.arrival(1), made.arrival(2)])
    assert ["duplicate"] == one.append([made.arrival(2)])

    outcomes: list[list[str]] = []

    def write(store: DatabaseStore, boards: range) -> None:
        outcomes.extend(
            list(store.append([made.arrival(seq, board=f"pi-{n}") for n in boards])) for seq in range(3, 13)
        )

    writers = [
        threading.Thread(target=write, args=(one, range(1, 30))),
        threading.Thread(target=write, args=(other, range(29, 0, -1))),
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    everything = [each for batch in outcomes for each in batch]
    assert (290, 290) == (everything.count("stored"), everything.count("duplicate"))
    found = rows(one)
    assert len(set(found)) == len(found) == 292


def test_what_no_store_can_keep_is_refused_and_the_rest_is_kept(opened: Opened) -> None:
    store = opened()
    batch = [
        made.arrival(1),
        dataclasses.replace(made.arrival(2), seq=0),
        dataclasses.replace(made.arrival(2), seq=1 << 63),
        dataclasses.replace(made.arrival(2), seq=-1),
        dataclasses.replace(made.arrival(2), boot="a\0b"),
        dataclasses.replace(made.arrival(2), boot=""),
        dataclasses.replace(made.arrival(2), boot="x" * 1000),
        dataclasses.replace(made.arrival(2), channel="thumbnail", seq=0),
        dataclasses.replace(made.arrival(2), bundle="no\0digest"),
    ]

    assert ["stored", *["refused"] * 7, "stored"] == store.append(batch)
    assert 2 == len(rows(store))


def test_the_newest_of_what_describes_the_present_is_kept(opened: Opened) -> None:
    store = opened()
    card = b'{"digest": "%s", "name": "digits", "version": "1.2.0"}' % made.DIGEST.encode()
    model = dataclasses.replace(made.arrival(1), seq=0, channel="model", payload=card)
    older = dataclasses.replace(model, at=made.NOON - 60, payload=b"{}")

    assert ["stored", "stored"] == store.append([model, made.arrival(1)])
    assert ["stored"] == store.append([older])
    with store.reading() as connection:
        assert connection is not None
        assert card == connection.execute(sql.select(schema.LATEST.c.payload)).scalar_one()
        bundles = schema.BUNDLES.c
        named = connection.execute(sql.select(bundles.digest, bundles.name, bundles.version)).all()
    assert [(made.DIGEST, "digits", "1.2.0")] == list(named)


@pytest.mark.parametrize("named", [("d\0", "n", "1"), ("d", "n\0", "1"), ("d", "n", "1\0"), ("d" * 1000, "n", "1")])
def test_a_model_that_cannot_be_written_down_stops_nothing(opened: Opened, named: tuple[str, str, str]) -> None:
    store = opened()
    card = json.dumps(dict(zip(("digest", "name", "version"), named, strict=True))).encode()
    model = dataclasses.replace(made.arrival(1), seq=0, channel="model", payload=card)

    assert ["stored", "stored"] == store.append([model, made.arrival(1)])
    with store.reading() as connection:
        assert connection is not None
        assert (
            [] == connection.execute(sql.select(schema.BUNDLES.c.name).where(schema.BUNDLES.c.name.is_not(None))).all()
        )


def test_reports_are_kept_apart_from_measurements(opened: Opened) -> None:
    store = opened()
    store.append(
        [
            dataclasses.replace(made.arrival(n), channel=channel)
            for n, channel in enumerate(("metrics", "predictions", "deployment", "event", "benchmark"), 1)
        ]
    )

    assert [1] == [seq for _, _, seq in rows(store)]
    assert [2] == [seq for _, _, seq in rows(store, schema.PREDICTIONS)]
    assert [3, 4, 5] == [seq for _, _, seq in rows(store, schema.REPORTS)]


@pytest.mark.parametrize(
    ("time", "kept"),
    [
        (made.NOON - 3600, made.NOON - 3600),
        (made.NOON + 60, made.NOON + 60),
        (0.0, made.NOON),
        (made.NOON + 86400, made.NOON),
        (made.NOON - 40 * 86400, made.NOON),
    ],
)
def test_a_clock_that_is_absurd_is_not_believed(opened: Opened, time: float, kept: float) -> None:
    store = opened()
    store.append([made.arrival(1, time=time)])

    with store.reading() as connection:
        assert connection is not None
        assert kept == connection.execute(sql.select(schema.METRICS.c.time)).scalar()


def test_an_empty_batch_makes_nothing(tmp_path: Path) -> None:
    store = database.open_store(str(tmp_path / "telemetry.db"))

    assert [] == store.append([])
    assert [] == list(tmp_path.iterdir())


def test_looking_makes_nothing(tmp_path: Path) -> None:
    store = database.open_store(str(tmp_path / "telemetry.db"))
    store.maintain(now=made.NOON)

    with store.reading() as connection:
        assert None is connection
    assert [] == list(tmp_path.iterdir())


def test_a_locked_file_keeps_nothing_and_takes_the_same_batch_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_PATIENCE_S", 0.05)
    file = tmp_path / "telemetry.db"
    store = database.open_store(str(file))
    store.append([made.arrival(1)])
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(UnavailableError, match=f"the telemetry store {file} can't be used: database is locked"):
            store.append([made.arrival(2)])
    finally:
        other.execute("ROLLBACK")
        other.close()

    assert ["stored"] == store.append([made.arrival(2)])
    assert ("1-2", 2, 0) == boot_row(store)


def test_a_server_that_went_away_keeps_nothing_and_takes_the_same_batch_later() -> None:
    from tests import postgres

    pytest.importorskip("psycopg")
    with postgres.server() as own:
        store = database.open_store(own.url())
        store.append([made.arrival(1)])
        own.stop()
        with pytest.raises(UnavailableError, match="can't be used") as caught:
            store.append([made.arrival(2)])
        assert postgres.PASSWORD not in str(caught.value)
        assert 1 == len(str(caught.value).splitlines())
        own.start()

        assert ["duplicate", "stored"] == store.append([made.arrival(1), made.arrival(2)])
        store.close()


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "telemetry.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")

    with pytest.raises(InputError, match=f"{file} is not a telemetry store; move it away to begin one"):
        database.open_store(str(file))


def test_a_damaged_file_is_said_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "telemetry.db"
    file.write_bytes(b"SQLite format 3\0" + b"\xff" * 9000)

    with pytest.raises(InputError, match=r"is damaged: .*; move it away to begin a new one"):
        database.open_store(str(file))


def test_a_store_of_a_newer_version_is_left_alone(opened: Opened) -> None:
    store = opened()
    store.append([made.arrival(1)])
    with store.taking_turns() as connection:
        connection.execute(sql.update(schema.META).where(schema.META.c.key == "version").values(value="9"))

    with pytest.raises(InputError, match=r"was written by a newer tflotilla \(version 9\); upgrade this one"):
        opened()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://me:secret@host/db", r"\[telemetry\] store: mysql is not supported"),
        ("postgresql://me:secret@host:port/db", r"\[telemetry\] store is no URL"),
    ],
)
def test_another_database_is_refused_without_its_password(url: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        database.open_store(url)

    assert "secret" not in str(caught.value)


def test_what_retention_forgot_is_still_a_duplicate(opened: Opened) -> None:
    store = opened(Retention(raw_s=3600))
    store.append([made.arrival(1), made.arrival(2)])
    while store.maintain(now=made.NOON + 7200).more:
        pass
    assert [] == rows(store)

    assert ["duplicate", "stored"] == store.append([made.arrival(2), made.arrival(3, at=made.NOON + 7200)])
    assert ("1-3", 3, 1) == boot_row(store)
