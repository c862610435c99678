"""Orders, scrolling, and what each key does."""

from __future__ import annotations

from typing import Any

import pytest

from tflotilla.host.cli import keyboard
from tflotilla.host.dashboards.looking import SORTS, Looking, Sort, ranked


def tile(board: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    figures = {"hurt": 0.0, "p99_ms": None, "p50_ms": None, "rate": None, "temperature_c": None, "seen": None}
    return {"board": board, **figures, **changes}


BOARDS = [
    tile("b", hurt=90.0, p99_ms=5.0, p50_ms=1.0, rate=0.1, temperature_c=40.0, seen=100.0),
    tile("a", hurt=0.0, p99_ms=9.0, p50_ms=3.0, rate=10.0, temperature_c=80.0, seen=300.0),
    tile("c", hurt=0.0),
    tile("d", hurt=100.0, p99_ms=7.0, p50_ms=2.0, rate=5.0, temperature_c=60.0, seen=200.0),
]


@pytest.mark.parametrize(
    ("sort", "expected", "backwards"),
    [
        ("hurt", "dbac", "acbd"),
        ("name", "abcd", "dcba"),
        ("p99", "adbc", "bdac"),
        ("p50", "adbc", "bdac"),
        ("rate", "bdac", "adbc"),
        ("temperature", "adbc", "bdac"),
        ("seen", "bdac", "adbc"),
    ],
)
def test_the_worst_is_first_and_what_is_not_known_last(sort: Sort, expected: str, backwards: str) -> None:
    orders = [ranked(BOARDS, Looking(sort=sort, reverse=reverse)) for reverse in (False, True)]

    assert [expected, backwards] == ["".join(each["board"] for each in order) for order in orders]


def pressed(keys: str, *, boards: int = 20, rows: int = 5) -> Looking:
    looking = Looking()
    for key in keys.split():
        looking = looking.pressed(key, boards=boards, rows=rows)
    return looking


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        ("", 0),
        ("k up b", 0),
        ("j down", 2),
        ("pgdn pgdn pgup", 4),
        ("G", 15),
        ("end j pgdn", 15),
        ("G g", 0),
        ("x ! home", 0),
    ],
)
def test_keys_scroll_and_stop_at_the_ends(keys: str, first: int) -> None:
    assert first == pressed(keys).first


def test_fewer_boards_than_lines_do_not_scroll() -> None:
    assert 0 == pressed("j G pgdn", boards=3).first


def test_keys_sort_turn_and_quit() -> None:
    assert Looking(sort="p99") == pressed("j j p")
    assert Looking(sort="temperature", reverse=True) == pressed("r t")
    assert SORTS[1] == pressed("s").sort
    assert "hurt" == pressed(" ".join("s" * len(SORTS))).sort
    assert pressed("q").quits


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("pq", ["p", "q"]),
        ("\x1b[A\x1b[B\x1bOA", ["up", "down", "up"]),
        ("\x1b[5~\x1b[6~\x1b[1~\x1b[F", ["pgup", "pgdn", "home", "end"]),
        ("\x1b[200~x\x1b[1;5D", ["x"]),
        ("\x1b", []),
        ("\x01\r\n ", [" "]),
    ],
)
def test_what_a_terminal_sends_becomes_keys(sent: str, expected: list[str]) -> None:
    assert expected == keyboard.parse(sent)
