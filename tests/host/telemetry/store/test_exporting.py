"""What is stored as CSV and Parquet."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
import os
from typing import TYPE_CHECKING

import pytest
from pyarrow import parquet  # type: ignore[import-untyped]

from tests.host.telemetry.store import made
from tflotilla.host.telemetry.store import database, exporting, tables
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.errors import InputError
from tflotilla.shared.contract.messages import Candidate, Event, Message, Prediction, Predictions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tflotilla.host.telemetry.store.database import DatabaseStore
    from tflotilla.host.telemetry.store.port import Arrival
    from tflotilla.host.telemetry.store.tables import What

_NOON = made.NOON


def said(seq: int, channel: str, body: Event | DeploymentStatus | Predictions) -> Arrival:
    message = Message(board="pi-1", boot="boot-a", seq=seq, time=_NOON, bundle=made.DIGEST, body=body)
    return dataclasses.replace(made.arrival(seq), channel=channel, payload=message.to_bytes())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DatabaseStore]:
    results = tuple(
        Prediction(
            item=f"{n}.png",
            time=_NOON + n / 10,
            stages_ns={"invoke": 900, "total": 1000},
            top=(Candidate(label='a "cat", or\nso', index=1, score=0.75),),
        )
        for n in range(3)
    )
    status = DeploymentStatus(
        deployment="d1", candidate=made.DIGEST, title="digits-1.0.0", state=DeploymentState.SUCCEEDED
    )
    with database.open_store(str(tmp_path / "telemetry.db")) as store:
        store.append(
            [
                made.arrival(1, body=made.metrics([1_000_000, 3_000_000])),
                said(2, "predictions", Predictions(results=results)),
                said(3, "event", Event(level="warning", kind="outbox", message="full", detail={"rows": 3})),
                said(4, "deployment", status),
                dataclasses.replace(made.arrival(5), payload=b"no message"),
                made.arrival(1, board="pi-2", at=_NOON + 3600),
            ]
        )
        yield store


def as_csv(store: DatabaseStore, what: What, folder: Path) -> list[dict[str, str]]:
    file = folder / f"{what}.csv"
    count = exporting.write(tables.table(store, what, since=_NOON - 60, until=_NOON + 600), file, "csv")
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == count
    return rows


def test_a_window_is_a_row(store: DatabaseStore, tmp_path: Path) -> None:
    (row,) = as_csv(store, "metrics", tmp_path)

    assert ("2025-06-16T12:00:00.000Z", "pi-1", "boot-a", "1", made.DIGEST) == (
        row["time"],
        row["board"],
        row["boot"],
        row["seq"],
        row["bundle"],
    )
    assert ("2", "0", "51.5", "false") == (row["count"], row["errors"], row["temperature_c"], row["throttled"])
    assert ("2", "3000000", "") == (row["total_count"], row["total_max_ns"], row["invoke_p99_ns"])
    assert "cat" == json.loads(row["labels"])[0]["label"]


def test_a_prediction_is_a_row(store: DatabaseStore, tmp_path: Path) -> None:
    rows = as_csv(store, "predictions", tmp_path)

    assert ["0.png", "1.png", "2.png"] == [row["item"] for row in rows]
    assert ('a "cat", or\nso', "0.75", "1000", "") == (
        rows[0]["label"],
        rows[0]["score"],
        rows[0]["total_ns"],
        rows[0]["decode_ns"],
    )


@pytest.mark.parametrize("form", exporting.FORMATS)
def test_a_time_that_no_calendar_has_is_empty(store: DatabaseStore, tmp_path: Path, form: exporting.Format) -> None:
    times = (-1e300, 1e18, 1e308, 253_402_300_800.0, _NOON)
    results = tuple(Prediction(item="x", time=time, stages_ns={}, top=()) for time in times)
    store.append([said(9, "predictions", Predictions(results=results))])
    table = tables.table(store, "predictions", since=_NOON - 60, until=_NOON + 600)

    assert 8 == exporting.write(table, tmp_path / "file", form)


def test_of_times_only_those_of_the_calendar_are_written(store: DatabaseStore, tmp_path: Path) -> None:
    results = tuple(Prediction(item="odd", time=time, stages_ns={}, top=()) for time in (1e18, 0.0))
    store.append([said(9, "predictions", Predictions(results=results))])

    rows = [row for row in as_csv(store, "predictions", tmp_path) if row["item"] == "odd"]

    assert ["", "1970-01-01T00:00:00.000Z"] == [row["predicted"] for row in rows]


def test_events_and_deployments_are_rows(store: DatabaseStore, tmp_path: Path) -> None:
    (event,) = as_csv(store, "events", tmp_path)
    (deployment,) = as_csv(store, "deployments", tmp_path)

    assert ("warning", "outbox", "full", '{"rows":3}') == (
        event["level"],
        event["kind"],
        event["message"],
        event["detail"],
    )
    assert ("d1", "digits-1.0.0", "succeeded", "") == (
        deployment["deployment"],
        deployment["title"],
        deployment["state"],
        deployment["error"],
    )
    assert [] == as_csv(store, "benchmarks", tmp_path)


@pytest.mark.parametrize("span", ["minute", "hour", "day"])
def test_rollups_are_sums_per_span_board_and_bundle(store: DatabaseStore, tmp_path: Path, span: tables.Span) -> None:
    for now in (_NOON, _NOON + 7200, _NOON + 3 * 86400):
        store.maintain(now=now)
        file = tmp_path / "rollups.csv"
        table = tables.table(store, "rollups", since=_NOON - 60, until=_NOON + 86400, span=span)
        exporting.write(table, file, "csv")
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))

        assert [("pi-1", "2", "1"), ("pi-2", "1", "1")] == [
            (row["board"], row["count"], row["windows"]) for row in rows
        ]
        assert float(rows[0]["total_p99_ns"]) == pytest.approx(3_000_000, rel=0.005)
        assert str(tables.SPANS[span]) == rows[0]["span_s"]
        assert {"cat": 2} == json.loads(rows[0]["labels"])


def test_years_before_the_first_report_are_not_asked_about(store: DatabaseStore) -> None:
    """Minutes of a thousand years would be five hundred million spans."""
    store.maintain(now=_NOON + 60)

    table = tables.table(store, "rollups", since=_NOON - 30_000_000_000, until=_NOON + 86400, span="minute")

    assert ["pi-1", "pi-2"] == [row[2] for row in table.rows]


def test_parquet_has_types(store: DatabaseStore, tmp_path: Path) -> None:
    file = tmp_path / "metrics.parquet"
    exporting.write(tables.table(store, "metrics", since=_NOON, until=_NOON + 7200), file, "parquet")
    rows = parquet.read_table(file).to_pylist()

    assert [datetime.datetime(2025, 6, 16, hour, tzinfo=datetime.UTC) for hour in (12, 13)] == [
        row["time"] for row in rows
    ]
    assert (2, 51.5, False, None) == (
        rows[0]["count"],
        rows[0]["temperature_c"],
        rows[0]["throttled"],
        rows[0]["decode_p99_ns"],
    )


@pytest.mark.parametrize("what", tables.WHATS)
def test_every_table_can_be_parquet_also_of_nothing(store: DatabaseStore, tmp_path: Path, what: What) -> None:
    for since in (_NOON - 60, _NOON + 90 * 86400):
        file = tmp_path / f"{what}.parquet"
        count = exporting.write(tables.table(store, what, since=since, until=since + 7200), file, "parquet")

        assert count == parquet.read_table(file).num_rows


def test_a_file_appears_whole_or_not_at_all(store: DatabaseStore, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    table = tables.table(store, "metrics", since=_NOON, until=_NOON + 60)

    def broken() -> Iterator[Sequence[object]]:
        yield from table.rows
        raise InputError("the store went away")

    with pytest.raises(InputError, match="the store went away"):
        exporting.write(dataclasses.replace(table, rows=broken()), folder / "metrics.csv", "csv")
    assert [] == list(folder.iterdir())


def test_what_is_no_file_is_not_replaced_by_one(store: DatabaseStore, tmp_path: Path) -> None:
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    link.symlink_to(file)
    table = tables.table(store, "metrics", since=_NOON - 60, until=_NOON + 600)

    with pytest.raises(InputError, match="it is no file"):
        exporting.write(table, pipe, "csv")
    exporting.write(table, link, "csv")

    assert pipe.is_fifo()
    assert link.is_symlink()
    assert file.read_bytes().startswith(b"time,")


def test_a_file_that_cannot_be_written_is_said(store: DatabaseStore, tmp_path: Path) -> None:
    table = tables.table(store, "metrics", since=_NOON, until=_NOON + 60)

    with pytest.raises(InputError, match=r"can't be written: No such file or directory"):
        exporting.write(table, tmp_path / "nowhere" / "metrics.csv", "csv")
