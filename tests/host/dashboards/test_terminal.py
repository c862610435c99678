"""What a terminal shows of a fleet."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tests.host.telemetry import fake_board
from tflotilla.host.dashboards import terminal
from tflotilla.host.pages import words
from tflotilla.host.telemetry.fleet_view import BoardView, FleetView
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus


def board(**changes: Any) -> BoardView:  # noqa: ANN401 - any field
    values: dict[str, Any] = {
        "board": "kitchen-pi-4",
        "seen": 100.0,
        "availability": "online",
        "state": fake_board.state(),
        "metrics": fake_board.metrics(),
        "predictions": fake_board.predictions(99.0).results,
    }
    return BoardView(**{**values, **changes})


def drawn(view: FleetView, *, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(terminal.table(view, now=101.0))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_table_of_a_busy_fleet_fits_eighty_columns() -> None:
    view = FleetView(fleet="barn", boards={f"kitchen-pi-{n}": board(board=f"kitchen-pi-{n}") for n in range(4)})

    lines = drawn(view)

    assert max(len(line) for line in lines) <= 80
    (row,) = [line for line in lines if "kitchen-pi-2" in line]
    for word in ("online", "digits-1.0.0", "litert x2", "10.0", "25.0 µs", "75.0 µs", "seven 0.97"):
        assert word in row


def test_a_board_that_only_said_hello_has_dashes() -> None:
    bare = board(state=None, metrics=None, predictions=())

    (row,) = [line for line in drawn(FleetView(fleet="barn", boards={"kitchen-pi-4": bare})) if "kitchen" in line]

    assert row.split() == ["kitchen-pi-4", "online", "-", "-", "-", "-", "-", "-"]


def test_what_a_board_says_is_shown_and_not_obeyed() -> None:
    nasty = fake_board.predictions(99.0, label="[red]\x1b[2J\nlabel")
    view = FleetView(fleet="barn", boards={"pi": board(board="pi", predictions=nasty.results)})

    text = "\n".join(drawn(view, width=200))

    assert "\x1b" not in text
    assert "[red]?[2… 0.97" in text


_PROBING = DeploymentStatus(deployment="d", candidate="c", title="t", state=DeploymentState.PROBING)


@pytest.mark.parametrize(
    ("changes", "now", "expected"),
    [
        ({}, 101.0, "online"),
        ({"availability": "offline"}, 101.0, "offline"),
        ({"availability": None}, 101.0, "unknown"),
        ({}, 200.0, "silent"),
        ({"state": fake_board.state(worker="failing")}, 101.0, "failing"),
        ({"deployment": _PROBING}, 101.0, "probing"),
        ({"deployment": _PROBING, "availability": "offline"}, 101.0, "offline"),
    ],
)
def test_one_word_says_how_a_board_is(changes: dict[str, Any], now: float, expected: str) -> None:
    assert terminal.status(board(**changes), now) == expected


def test_the_footer_speaks_of_losses_only_when_there_are_some() -> None:
    assert terminal.footer(FleetView(fleet="barn")) == "no board said anything yet, 0 inferences, 0 messages"
    assert terminal.footer(FleetView(fleet="barn", boards={"pi": board(messages=3, inferences=9)}, garbage=2)) == (
        "1 of 1 boards online, 9 inferences, 3 messages, 2 not understood"
    )


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (0, "0.00 µs"),
        (1_234, "1.23 µs"),
        (9_999, "10.0 µs"),
        (25_400, "25.4 µs"),
        (999_900, "1.00 ms"),
        (1_840_000, "1.84 ms"),
        (418_000_000, "418 ms"),
        (12_000_000_000, "12.0 s"),
    ],
)
def test_latencies_have_three_digits_and_a_unit(nanoseconds: int, expected: str) -> None:
    assert words.duration(nanoseconds) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (messages.Availability(status="offline"), "offline"),
        (fake_board.metrics(), "10.0 inferences/s, p50 25.0 µs, p99 75.0 µs, mostly seven"),
        (fake_board.state(), "digits-1.0.0 on ai-edge-litert==2.3.0 with 2 threads, worker running"),
        (_PROBING, "deployment of t probing"),
        (messages.Event(level="warning", kind="k", message="hot\n"), "warning: hot?"),
    ],
)
def test_each_message_is_one_plain_line(body: Any, expected: str) -> None:  # noqa: ANN401 - any body
    message = messages.Message(board="pi", boot="a", seq=1, time=0.0, bundle=None, body=body)

    (line,) = terminal.lines("pi", message)

    assert line.split("  ", 1)[1].strip().removeprefix("pi").strip() == expected


def test_predictions_make_no_line_of_their_own() -> None:
    message = messages.Message(board="pi", boot="a", seq=1, time=0.0, bundle=None, body=fake_board.predictions(1.0))

    assert list(terminal.lines("pi", message)) == []
