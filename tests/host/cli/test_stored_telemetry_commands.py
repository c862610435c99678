"""`query` and `export` as users run them, over a store that a collector filled."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.host.telemetry.store import made
from tflotilla.host.telemetry.store import database

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_S = 120.0
_NOW = int(time.time())


def tflotilla(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tflotilla.host", *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if key != "TFLOTILLA_FLEET"} | {"COLUMNS": "200"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment, cwd=folder
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet of two boards, of which one is in the kitchen, and what was collected of them."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "fleet.toml").write_text(
        'name = "home"\n[boards.pi-1]\nhost = "a"\nlabels = { room = "kitchen" }\n[boards.pi-2]\nhost = "b"\n'
    )
    with database.open_store(str(folder / ".tflotilla" / database.FILE)) as store:
        for board, latency_ns in (("pi-1", 1_000_000), ("pi-2", 5_000_000)):
            store.append(
                [
                    made.arrival(n, board=board, at=_NOW - 600 + n, body=made.metrics([latency_ns] * 10))
                    for n in (1, 2, 4)
                ]
            )
    return folder


def test_latencies_of_all_boards_are_added_up(folder: Path) -> None:
    result = tflotilla("query", "--json", folder=folder)

    assert (0, "") == (result.returncode, result.stderr)
    (row,) = json.loads(result.stdout)["rows"]
    assert ("total", 60) == (row["stage"], row["count"])
    assert pytest.approx(1.0, rel=0.005) == row["p50_ms"]
    assert pytest.approx(5.0, rel=0.005) == row["p99_ms"]


def test_a_selector_and_a_grouping(folder: Path) -> None:
    result = tflotilla("query", "room=kitchen", "--by", "board,version", "--json", folder=folder)

    (row,) = json.loads(result.stdout)["rows"]
    assert ("pi-1", "sha256:aaaaaaaaaaaa", 30) == (row["board"], row["version"], row["count"])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("labels", {"label": "cat", "count": 60, "share": 1.0, "mean_score": 0.75, "std_score": 0.1}),
        ("scores", {"score": "0.7-0.8", "count": 60, "share": 1.0}),
        ("counts", {"windows": 6, "inferences": 60, "per_second": 10.0, "errors": 0, "low_confidence_share": 0.0}),
        ("health", {"temperature_mean_c": 51.5, "throttled_share": 0.0, "rss_max_mib": 50.0}),
    ],
)
def test_other_metrics(folder: Path, metric: str, expected: dict[str, object]) -> None:
    result = tflotilla("query", "--metric", metric, "--json", folder=folder)

    rows = [row for row in json.loads(result.stdout)["rows"] if row.get("count") != 0]
    assert [expected] == [{key: row[key] for key in expected} for row in rows]


def test_gaps(folder: Path) -> None:
    result = tflotilla("query", "--metric", "gaps", "--json", folder=folder)

    assert [("pi-1", 3, 1, 0), ("pi-2", 3, 1, 0)] == [
        (row["board"], row["received"], row["missing"], row["duplicates"]) for row in json.loads(result.stdout)["rows"]
    ]


def test_a_table_for_people(folder: Path) -> None:
    result = tflotilla("query", "--by", "board", folder=folder)

    header, first, second = result.stdout.splitlines()
    assert ["board", "stage", "count", "p50_ms", "p90_ms", "p99_ms"] == header.split()
    assert ["pi-1", "pi-2"] == [first.split()[0], second.split()[0]]
    assert [] == [line for line in tflotilla("query", "--since", "1s", folder=folder).stdout.splitlines() if line]


def test_export_to_a_file_and_to_stdout(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "metrics.parquet"
    to_file = tflotilla("export", "pi-2", "--format", "parquet", "--output", file, "--json", folder=folder)
    to_stdout = tflotilla("export", "pi-2", "-o", "-", folder=folder)

    assert {"file": str(file), "format": "parquet", "rows": 3, "what": "metrics"} == json.loads(to_file.stdout)
    assert b"PAR1" == file.read_bytes()[:4]
    rows = list(csv.DictReader(io.StringIO(to_stdout.stdout)))
    assert ["1", "2", "4"] == [row["seq"] for row in rows]


def test_a_store_can_be_asked_without_a_fleet(folder: Path, tmp_path: Path) -> None:
    file = folder / ".tflotilla" / database.FILE
    result = tflotilla("query", "--store", file, "--metric", "counts", "--json", folder=tmp_path)

    assert 60 == json.loads(result.stdout)["rows"][0]["inferences"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["query", "--by", "colour"], 2, "--by must be of board, model, version, bundle, minute, hour, day"),
        (["query", "--by", "board,board"], 2, "--by names something twice: board,board"),
        (["query", "--since", "yesterday"], 2, "--since must be like 15min, 1h, 7d or 2025-06-16T12:00"),
        (["query", "--since", "1h", "--until", "2h"], 2, "--since 1h must be before --until 2h"),
        (["query", "--metric", "gaps", "--by", "board"], 2, "--by does not go with --metric gaps"),
        (["query", "--metric", "gaps", "--until", "10min"], 2, "--until does not go with --metric gaps"),
        (["query", "--metric", "labels", "--stage", "total"], 2, "--stage goes with --metric latency, not labels"),
        (["query", "--store", "/"], 3, "--store: / is a folder; name a file in it"),
        (["query", "pi-9"], 2, "pi-9"),
        (["query", "--store", "nothing.db"], 3, "nothing was collected in"),
        (["query", "--store", "mysql://a:secret@b/c"], 3, "--store: mysql is not supported"),
        (["query", "--store", "fleet.toml"], 3, "is damaged: file is not a database"),
        (["export"], 2, "say where to: --output FILE, or - for stdout"),
        (["export", "-o", "-", "--format", "parquet"], 2, "only CSV goes to stdout"),
        (["export", "-o", "no/where.csv"], 3, "no/where.csv can't be written"),
        (["export", "-o", "x.csv", "--store", "nothing.db"], 3, "nothing was collected in"),
    ],
)
def test_mistakes_are_one_line(folder: Path, arguments: list[str], code: int, said: str) -> None:
    result = tflotilla(*arguments, folder=folder)

    assert code == result.returncode
    complaint = result.stderr.splitlines()[-1]
    assert said in complaint
    assert "secret" not in complaint
    assert "Traceback" not in result.stderr
    assert not (folder / "x.csv").exists()


def test_a_pipe_is_not_replaced_by_a_file(folder: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    result = tflotilla("export", "-o", str(pipe), folder=folder)

    assert (3, True) == (result.returncode, pipe.is_fifo())
    assert result.stderr.splitlines()[-1].endswith("pipe can't be written: it is no file")


def test_what_fleet_toml_says_of_telemetry_is_checked(tmp_path: Path) -> None:
    for line, said in (
        ("raw_days = 0", "raw_days must be 0.01..36500, not 0"),
        ("max_mib = 1", "max_mib must be at least 16, not 1"),
        ("raw_day = 1", "unknown key 'raw_day'; did you mean 'raw_days'?"),
    ):
        (tmp_path / "fleet.toml").write_text(f'name = "home"\n[telemetry]\n{line}\n')
        result = tflotilla("query", folder=tmp_path)

        assert 3 == result.returncode
        assert said in result.stderr


def test_the_store_of_fleet_toml_is_asked(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.db").write_bytes((folder / ".tflotilla" / database.FILE).read_bytes())
    (tmp_path / "fleet.toml").write_text('name = "home"\n[telemetry]\nstore = "kept.db"\n')

    result = tflotilla("query", "--fleet", tmp_path / "fleet.toml", "--metric", "counts", "--json", folder=folder)
    assert 60 == json.loads(result.stdout)["rows"][0]["inferences"]
