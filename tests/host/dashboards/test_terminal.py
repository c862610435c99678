"""What a terminal shows of a fleet."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from tests.host.telemetry import fake_board
from tflotilla.host.dashboards import terminal
from tflotilla.host.dashboards.looking import Looking
from tflotilla.host.dashboards.terminal import Scene
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


def scene(*boards: BoardView, now: float = 101.0, **changes: Any) -> Scene:  # noqa: ANN401 - any field
    return Scene(view=FleetView(fleet="barn", boards={each.board: each for each in boards}), now=now, **changes)


BY_HURT = Looking()


def drawn(
    shown: Scene, *, width: int = 80, looking: Looking = BY_HURT, rows: int | None = None, keys: bool = False
) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(terminal.table(shown, looking, rows=rows, keys=keys))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def names(lines: list[str]) -> list[str]:
    """Return the boards that were drawn, in order."""
    return [line.split()[0] for line in lines[1:-2]]


def test_the_table_of_a_busy_fleet_fits_eighty_columns() -> None:
    warm = replace(fake_board.metrics(), temperature_c=67.4, throttled=True)
    boards = [board(board=f"kitchen-pi-{n}", metrics=warm) for n in range(4)]

    lines = drawn(scene(*boards), keys=True)

    assert max(len(line) for line in lines) <= 80
    (row,) = [line for line in lines if "kitchen-pi-2" in line]
    for word in ("online", "digits-1.0.0", "litert x2", "10.0", "25.0 µs", "75.0 µs", "67!", "seven 0.97"):
        assert word in row
    assert "by hurt; h n p m i t l s sort, r reverse, j k scroll, q quit" == lines[-1].strip()


def test_a_long_name_shortens_words_and_no_figure() -> None:
    slow = fake_board.metrics()
    probing = DeploymentStatus(deployment="d", candidate="c", title="t", state=DeploymentState.TRANSFERRING)
    boards = [board(board="a-board-with-a-name-that-is-too-long"), board(metrics=slow, deployment=probing)]
    wide = fake_board.predictions(99.0, label="a label that is long").results

    lines = drawn(scene(*boards, board(board="pi", predictions=wide)), keys=True)

    assert max(len(line) for line in lines) <= 80
    assert 6 == len(lines)
    assert ["inf/s", "p50", "p99", "°C", "last"] == lines[0].split()[-5:]
    for line in lines[1:4]:
        assert " 10.0 25.0 µs 75.0 µs  - " in line
    assert "transferring" in lines[2]


def test_the_line_on_keys_fits_whatever_is_shown() -> None:
    boards = [board(board=f"pi-{n}") for n in range(3)]

    line = drawn(scene(*boards), looking=Looking(sort="temperature", reverse=True), rows=2, keys=True)[-1]

    assert "by temperature reversed, boards 1 to 2; s sort, r reverse, j k, q quit" == line.strip()


def test_a_board_that_only_said_hello_has_dashes() -> None:
    bare = board(state=None, metrics=None, predictions=())

    (row,) = [line for line in drawn(scene(bare)) if "kitchen" in line]

    assert row.split() == ["kitchen-pi-4", "online", *["-"] * 7]


def test_a_board_of_the_fleet_that_never_spoke_is_there() -> None:
    lines = drawn(scene(board(), labels={"kitchen-pi-4": {}, "attic": {}}))

    (row,) = [line for line in lines if line.startswith("attic")]
    assert row.split() == ["attic", "unknown", *["-"] * 7]
    assert lines[-2].startswith("1 of 2 boards online")


def test_a_filter_leaves_the_rest_out() -> None:
    lines = drawn(scene(board(), board(board="attic"), labels={"attic": {}}, only_known=True))

    assert ["attic"] == names(lines)
    assert lines[-2].startswith("1 of 1 boards online")


@pytest.mark.parametrize("changes", [{"availability": "offline"}, {"availability": "online"}])
def test_figures_of_a_board_that_is_gone_say_how_old_they_are(changes: dict[str, Any]) -> None:
    (row,) = [line for line in drawn(scene(board(**changes), now=100.0 + 12 * 60)) if "kitchen" in line]

    assert row.endswith("12 min ago")


def test_all_figures_are_old_while_the_broker_is_away() -> None:
    lines = drawn(scene(board(), now=160.0, deaf_since=110.0), width=120)

    assert "online" in lines[1]
    assert lines[1].endswith("60 s ago")
    assert lines[-2].startswith("the broker is away for 50 s: all of this is old, 1 of 1 boards online")


def test_more_boards_than_lines_are_scrolled_through() -> None:
    boards = [board(board=f"pi-{n}") for n in range(9)]
    looking = Looking(sort="name")

    top = drawn(scene(*boards), looking=looking, rows=4)
    end = drawn(scene(*boards), looking=looking.pressed("G", boards=9, rows=4), rows=4)

    assert ["pi-0", "pi-1", "pi-2", "pi-3"] == names(top)
    assert "by name, boards 1 to 4" == top[-1].strip()
    assert ["pi-5", "pi-6", "pi-7", "pi-8"] == names(end)


def test_what_hurts_is_on_top() -> None:
    boards = [
        board(board="a-fine"),
        board(board="b-off", availability="offline"),
        board(board="c-failing", state=fake_board.state(worker="failing")),
        board(board="d-erring", metrics=fake_board.metrics(errors=3)),
    ]

    assert ["c-failing", "b-off", "d-erring", "a-fine"] == names(drawn(scene(*boards)))


def test_what_a_board_says_is_shown_and_not_obeyed() -> None:
    nasty = fake_board.predictions(99.0, label="[red]\x1b[2J\nlabel")

    text = "\n".join(drawn(scene(board(board="pi", predictions=nasty.results)), width=200))

    assert "\x1b" not in text
    assert "[red]?[2… 0.97" in text


_PROBING = DeploymentStatus(deployment="d", candidate="c", title="t", state=DeploymentState.PROBING)


@pytest.mark.parametrize(
    ("changes", "now", "expected"),
    [
        ({}, 101.0, "online"),
        ({"availability": "offline"}, 101.0, "offline"),
        ({"availability": None}, 101.0, "online"),
        ({"availability": None, "metrics": None}, 101.0, "unknown"),
        ({}, 200.0, "silent"),
        ({"state": fake_board.state(worker="failing")}, 101.0, "failing"),
        ({"deployment": _PROBING}, 101.0, "probing"),
        ({"deployment": _PROBING, "availability": "offline"}, 101.0, "offline"),
    ],
)
def test_one_word_says_how_a_board_is(changes: dict[str, Any], now: float, expected: str) -> None:
    (tile,) = terminal.tiles_of(scene(board(**changes), now=now))

    assert expected == tile["status"]


def test_the_footer_speaks_of_losses_only_when_there_are_some() -> None:
    assert terminal.footer(scene()) == "no board said anything yet, 0 inferences, 0 messages"
    lossy = replace(
        scene(board(messages=3, inferences=9)),
        view=FleetView(fleet="barn", boards={"pi": board(board="pi", messages=3, inferences=9)}, garbage=2),
    )
    assert terminal.footer(lossy) == "1 of 1 boards online, 9 inferences, 3 messages, 2 not understood"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-3.0, "0 s"), (59.6, "60 s"), (719.0, "12 min"), (7300.0, "2 h"), (2e6, "23 d")]
)
def test_ages_have_the_unit_that_matters(seconds: float, expected: str) -> None:
    assert expected == words.age(seconds)


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
