"""Benchmark answers as rows and as a document."""

from __future__ import annotations

import dataclasses
import json

from tests.host.telemetry import fake_board
from tflotilla.host.benchmarks import report
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.errors import BrokerError


def answer(*cells: messages.BenchmarkCell) -> messages.BenchmarkReport:
    return messages.BenchmarkReport(request="r1", model_sha256="ab", cells=cells)


def test_cells_stand_side_by_side_the_fastest_first() -> None:
    slow = fake_board.cell(fake_board.TFLITE, 1, p50_ns=1_840_000)
    fast = fake_board.cell(fake_board.LITERT, 2, p50_ns=25_400)

    shown = report.report({"pi-1": answer(slow, fast)})

    columns = [dict(zip(report.COLUMNS, row, strict=True)) for row in shown.rows]
    assert [row["runtime"] for row in columns] == ["ai-edge-litert 2.3.0", "tflite-runtime 2.14.0"]
    assert [row["p50"] for row in columns] == ["25.4 µs", "1.84 ms"]
    assert [row[""] for row in columns] == ["fastest", ""]
    assert columns[0]["RSS"] == "48 MiB"
    assert columns[0]["load"] == "3.00 ms"
    assert shown.notes == ()


def test_a_percentile_that_too_few_runs_support_is_marked_and_explained() -> None:
    shown = report.report({"pi-1": answer(fake_board.cell(runs=120))})

    row = dict(zip(report.COLUMNS, shown.rows[0], strict=True))
    assert (row["p50"], row["p90"], row["p99"]) == ("25.0 µs", "50.0 µs", "75.0 µs*")
    assert shown.notes == ("* pi-1, ai-edge-litert 2.3.0, threads 1: not enough runs for p99: 120 of 662",)


def test_ten_runs_support_nothing() -> None:
    assert (
        report.shortage(fake_board.cell(runs=10)) == "not enough runs for p50: 10 of 11, p90: 10 of 64, p99: 10 of 662"
    )


def test_a_cell_that_failed_shows_its_reason_in_the_table() -> None:
    failed = messages.BenchmarkCell(runtime=fake_board.TFLITE, num_threads=8, error="8 threads,\x1b[31m 4 cores")

    shown = report.report({"pi-1": answer(failed, fake_board.cell())})

    assert shown.rows[1] == ("pi-1", "tflite-runtime 2.14.0", "8", *("-",) * 6, "8 threads,?[31m 4 cores")


def test_an_answer_without_cells_is_said_in_words() -> None:
    assert report.report({"pi-1": answer()}).notes == ("pi-1: has no runtime that was asked for",)


def test_the_document_holds_every_board_with_its_cells_or_its_error() -> None:
    cell = dataclasses.replace(fake_board.cell(runs=120), delegate_active="libedgetpu.so.1")
    request = messages.BenchmarkRequest(request="r1")

    document = report.document(request, {"pi-1": answer(cell)}, {"pi-2": BrokerError("pi-2 is offline")})

    boards = json.loads(json.dumps(document))["boards"]
    assert boards["pi-1"]["cells"][0]["latency"]["p50_ns"] == 25_000
    assert boards["pi-1"]["cells"][0]["shortage"] == "not enough runs for p99: 120 of 662"
    assert boards["pi-2"] == {"model_sha256": None, "cells": [], "error": "pi-2 is offline"}
