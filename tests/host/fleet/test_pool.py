"""Many boards at once: one bad board never stops the others."""

from __future__ import annotations

import threading

import pytest

from tflotilla.host.fleet import pool
from tflotilla.host.fleet.pool import BoardResult
from tflotilla.shared.contract.errors import BoardError, TflotillaError, UnreachableError


def test_one_bad_board_never_stops_the_others() -> None:
    def work(name: str) -> int:
        if name == "b":
            message = "b is off"
            raise UnreachableError(message)
        return len(name)

    results = pool.run(["a", "b", "c"], work, forks=2)

    assert [(r.board, r.value, r.ok) for r in results] == [("a", 1, True), ("b", None, False), ("c", 1, True)]
    assert str(results[1].error) == "b is off"


def test_no_more_than_forks_boards_are_worked_on_at_once() -> None:
    running, most = 0, 0
    lock = threading.Lock()
    full = threading.Barrier(3, timeout=30)

    def work(name: str) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        full.wait()
        with lock:
            running -= 1
        assert name

    results = pool.run([f"b{i}" for i in range(9)], work, forks=3)

    # Nine boards pass a barrier of three only if three run at a time; a fourth would be counted.
    assert all(result.ok for result in results)
    assert most == 3


def test_a_bug_in_one_boards_work_is_told_as_such_and_stops_no_one() -> None:
    def work(name: str) -> None:
        if name == "a":
            raise ZeroDivisionError

    first, second = pool.run(["a", "b"], work)

    assert isinstance(first.error, TflotillaError)
    assert "a bug of tflotilla: ZeroDivisionError" in str(first.error)
    assert second.ok


def test_results_are_announced_as_they_come() -> None:
    heard: list[str] = []

    pool.run(["a", "b"], lambda _name: None, on_result=lambda result: heard.append(result.board))

    assert sorted(heard) == ["a", "b"]


_OFF, _POOR = UnreachableError("off"), BoardError("no space")


@pytest.mark.parametrize(
    ("errors", "code"),
    [((), 0), ((None, None), 0), ((None, _OFF), 5), ((_OFF, _OFF), 5), ((_OFF, _POOR), 1), ((_POOR,), 7)],
)
def test_the_exit_code_is_the_class_that_all_failures_share(
    errors: tuple[TflotillaError | None, ...], code: int
) -> None:
    results: list[BoardResult[None]] = [BoardResult(board=str(i), error=error) for i, error in enumerate(errors)]

    assert pool.exit_code(results) == code
