"""Asking: sums over spans, grouped; gaps."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.host.telemetry.store import made
from tflotilla.host.telemetry.store import database, folding, history
from tflotilla.host.telemetry.store.history import Piece, Question, planned
from tflotilla.host.telemetry.store.retention import Retention
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tflotilla.host.telemetry.store.database import DatabaseStore

    Opened = Callable[..., DatabaseStore]

_NOON = made.NOON
_HOUR_S, _DAY_S = 3600, 86400
_OTHER = "sha256:" + "b" * 64


def settle(store: DatabaseStore, now: float) -> None:
    while store.maintain(now=now).more:
        pass


def windows(store: DatabaseStore, since: float, until: float, *by: history.By) -> dict[tuple[str, ...], int]:
    answer = history.ask(store, Question(since=since, until=until, by=by))
    return {group.key: group.sums.scalars.windows for group in answer.groups}


def card(digest: str, version: str) -> bytes:
    return b'{"digest": "%s", "name": "digits", "version": "%s"}' % (digest.encode(), version.encode())


def test_what_was_stored_counts_at_once_and_once(opened: Opened) -> None:
    """Before it is summed up, while a part of it is, and after."""
    store = opened()
    store.append([made.arrival(n, at=_NOON + n) for n in range(1, 200)])
    found = []
    for now in (_NOON, _NOON + 130, _NOON + 7200, _NOON + 2 * _DAY_S):
        settle(store, now)
        found.append(windows(store, _NOON, _NOON + 600))
        # A day's span is answered by hours.
        found.append(windows(store, _NOON - _DAY_S / 2, _NOON + _DAY_S / 2))
        # A month's by days.
        found.append(windows(store, _NOON - 15 * _DAY_S, _NOON + 15 * _DAY_S))

    assert [{(): 199}] * 12 == found


def test_groups_are_by_board_version_and_time(opened: Opened) -> None:
    store = opened()
    model = dataclasses.replace(made.arrival(1), seq=0, channel="model", payload=card(made.DIGEST, "1.0.0"))
    store.append([model])
    store.append(
        [
            made.arrival(1),
            made.arrival(2, at=_NOON + _HOUR_S),
            made.arrival(3, at=_NOON + _HOUR_S, bundle=_OTHER),
            made.arrival(1, board="pi-2", bundle=None),
        ]
    )
    until = _NOON + _DAY_S

    assert {("pi-1",): 3, ("pi-2",): 1} == windows(store, _NOON, until, "board")
    assert {
        ("(none)", "2025-06-16T12:00:00Z"): 1,
        ("digits-1.0.0", "2025-06-16T12:00:00Z"): 1,
        ("digits-1.0.0", "2025-06-16T13:00:00Z"): 1,
        ("sha256:bbbbbbbbbbbb", "2025-06-16T13:00:00Z"): 1,
    } == windows(store, _NOON, until, "version", "hour")
    assert {("digits", "pi-1"): 2, ("sha256:bbbbbbbbbbbb", "pi-1"): 1, ("(none)", "pi-2"): 1} == windows(
        store, _NOON, until, "model", "board"
    )


def test_only_the_boards_that_were_asked_for(opened: Opened) -> None:
    store = opened()
    store.append([made.arrival(1, board=f"pi-{n}") for n in range(1, 6)])
    question = Question(since=_NOON, until=_NOON + 60, boards=frozenset({"pi-2", "pi-4", "pi-99"}), by=("board",))

    for now in (_NOON, _NOON + 120):
        settle(store, now)
        assert [("pi-2",), ("pi-4",)] == [group.key for group in history.ask(store, question).groups]


def test_a_span_does_not_reach_into_its_neighbours(opened: Opened) -> None:
    store = opened()
    store.append([made.arrival(n + 1, at=_NOON + 60 * n) for n in range(10)])

    for now in (_NOON, _NOON + _DAY_S):
        settle(store, now)
        assert {(): 3} == windows(store, _NOON + 120, _NOON + 300)


def test_percentiles_are_those_of_all_samples(opened: Opened) -> None:
    chance = np.random.default_rng(5)
    store = opened()
    samples = [chance.lognormal(17 if n % 10 else 19, 0.1, 50).astype(np.int64) for n in range(100)]
    store.append(
        [
            made.arrival(1, board=f"pi-{n}", at=_NOON + 3 * n, body=made.metrics([int(v) for v in values]))
            for n, values in enumerate(samples)
        ]
    )
    settle(store, _NOON + 120)
    (group,) = history.ask(store, Question(since=_NOON, until=_NOON + _HOUR_S)).groups

    ordered = np.sort(np.concatenate(samples))
    for percent in (50, 90, 99):
        exact = float(ordered[int(np.ceil(percent / 100 * ordered.size)) - 1])
        assert pytest.approx(exact, rel=0.005) == group.sums.percentile("total", percent)


def test_where_minutes_were_forgotten_hours_answer_and_the_answer_says_so(opened: Opened) -> None:
    store = opened(Retention(raw_s=_DAY_S, minutes_s=2 * _DAY_S))
    store.append([made.arrival(n, at=_NOON + 60 * n) for n in range(1, 121)])
    settle(store, _NOON + 4 * _DAY_S)

    answer = history.ask(store, Question(since=_NOON + 600, until=_NOON + 1200))
    assert (_NOON, _NOON + _HOUR_S) == (answer.since, answer.until)
    assert [59] == [group.sums.scalars.windows for group in answer.groups]
    long = history.ask(store, Question(since=_NOON + 600, until=_NOON + _DAY_S + 600))
    assert [120] == [group.sums.scalars.windows for group in long.groups]


def test_gaps_are_exact_per_boot(opened: Opened) -> None:
    store = opened()
    store.append([made.arrival(n, at=_NOON + n) for n in (3, 4, 7, 9, 9)])
    store.append([made.arrival(1, boot="boot-b", at=_NOON + 100)])

    first, second = history.gaps(store, since=_NOON)
    assert (3, 9, 4, 3, 1) == (first.first, first.last, first.received, first.missing, first.duplicates)
    assert ("boot-b", 1, 0) == (second.boot, second.received, second.missing)
    assert [second] == list(history.gaps(store, since=_NOON + 50))
    assert () == history.gaps(store, since=_NOON, boards={"pi-2"})


def test_messages_stream_in_order_of_time(opened: Opened) -> None:
    store = opened()
    store.append([made.arrival(1, at=_NOON + 5, time=_NOON + 5), made.arrival(2, at=_NOON + 6, time=_NOON + 2)])

    found = list(history.messages(store, "metrics", since=_NOON, until=_NOON + 60))
    assert [2, 1] == [each.seq for each in found]
    assert made.arrival(2, at=_NOON + 6, time=_NOON + 2).payload == found[0].payload
    assert (made.DIGEST, "pi-1", "boot-a", "metrics") == (
        found[0].bundle,
        found[0].board,
        found[0].boot,
        found[0].channel,
    )
    assert [] == list(history.messages(store, "metrics", since=_NOON, until=_NOON + 60, boards={"pi-2"}))


def test_nothing_was_collected_yet(tmp_path: Path) -> None:
    store = database.open_store(str(tmp_path / "telemetry.db"))

    with pytest.raises(InputError, match=r"nothing was collected in .*telemetry\.db yet"):
        history.ask(store, Question(since=0, until=60))


def test_a_span_is_cut_into_the_coarsest_sums_that_fit() -> None:
    midnight = int(_NOON // _DAY_S * _DAY_S)
    since, until = midnight - 90, midnight + 20 * _DAY_S + 3700

    assert (
        Piece(level=0, start=midnight - 120, end=midnight),
        Piece(level=2, start=midnight, end=midnight + 20 * _DAY_S),
        Piece(level=1, start=midnight + 20 * _DAY_S, end=midnight + 20 * _DAY_S + _HOUR_S),
        Piece(level=0, start=midnight + 20 * _DAY_S + _HOUR_S, end=midnight + 20 * _DAY_S + _HOUR_S + 120),
    ) == planned(Question(since=since, until=until))
    assert [0] == [piece.level for piece in planned(Question(since=since, until=until, by=("minute",)))]
    assert {0, 1} == {piece.level for piece in planned(Question(since=since, until=until, by=("hour",)))}


def test_pieces_touch_and_cover_the_span_whatever_was_forgotten() -> None:
    chance = np.random.default_rng(11)
    for _ in range(500):
        since = _NOON + float(chance.integers(-40 * _DAY_S, 0))
        until = since + float(chance.integers(1, 40 * _DAY_S))
        minutes_from, hours_from = (int(_NOON + chance.integers(-60 * _DAY_S, _DAY_S)) for _ in range(2))
        hours_from = min(hours_from, minutes_from)
        pieces = planned(Question(since=since, until=until), minutes_from=minutes_from, hours_from=hours_from)

        assert all(a.end == b.start for a, b in itertools.pairwise(pieces))
        assert pieces[0].start <= since
        assert pieces[-1].end >= until
        for piece in pieces:
            span = folding.LEVELS[piece.level].span_s
            assert 0 == piece.start % span
            assert piece.level > 0 or piece.start >= minutes_from
            assert piece.level > 1 or piece.start >= hours_from
