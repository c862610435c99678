"""The fold of messages into a view: order, repetition, garbage and fuzz."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from tests.host.telemetry import fake_board
from tflotilla.host.telemetry.fleet_view import BoardView, FleetView, Sequence
from tflotilla.host.telemetry.inbox import Received
from tflotilla.host.telemetry.live import Live
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus

Raw = tuple[str, bytes, float]
EMPTY = FleetView(fleet="barn")


def dice_of(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - tests want the same dice each time


def raw(
    channel: topics.Channel,
    body: Any,  # noqa: ANN401 - any body
    *,
    board: str = "pi-1",
    boot: str = "a",
    seq: int = 0,
    at: float = 100.0,
    fleet: str = "barn",
) -> Raw:
    message = messages.Message(board=board, boot=boot, seq=seq, time=at, bundle=None, body=body)
    return topics.topic(fleet, board, channel), message.to_bytes(), at


def history() -> list[Raw]:
    """Return all that a board says from start to end, with a gap of two (seq 5 and 6)."""
    said = [
        raw("availability", messages.Availability(status="online")),
        raw("state", fake_board.state()),
        raw("metrics", fake_board.metrics(10), seq=1, at=101),
        raw("predictions", fake_board.predictions(100.1, 100.2), seq=2, at=101),
        raw("metrics", fake_board.metrics(20, errors=1), seq=3, at=102),
        raw("predictions", fake_board.predictions(101.1, label="two"), seq=4, at=102),
        raw("metrics", fake_board.metrics(30), seq=7, at=103),
        raw("predictions", fake_board.predictions(102.1, 102.2, 102.3, label="three"), seq=8, at=103),
    ]
    status = DeploymentStatus(
        deployment="d1", candidate="ab" * 32, title="digits-1.0.0", state=DeploymentState.SUCCEEDED
    )
    return [*said, raw("deployment", status, seq=9, at=104)]


def only(view: FleetView) -> BoardView:
    (board,) = view.boards.values()
    return board


def test_a_history_folds_into_what_the_board_is_doing() -> None:
    board = only(EMPTY.folding(history()))

    assert board.availability == "online"
    assert board.state == fake_board.state()
    assert board.metrics == fake_board.metrics(30)
    assert (board.inferences, board.errors, board.predicted) == (60, 1, 6)
    assert [prediction.time for prediction in board.predictions] == [102.3, 102.2, 102.1, 101.1, 100.2]
    assert board.deployment is not None
    assert board.deployment.state is DeploymentState.SUCCEEDED
    assert (board.missing, board.duplicates, board.messages) == (2, 0, 9)
    assert board.inferences_per_second == 30.0


@pytest.mark.parametrize("seed", range(20))
def test_order_and_repetition_change_only_the_count_of_duplicates(seed: int) -> None:
    expected = only(EMPTY.folding(history()))
    *present, first, second, third, fourth = history()[:6]
    shuffled = [second, third, fourth, *history()[6:], first, second, third, fourth]
    dice_of(seed).shuffle(shuffled)
    shuffled = [*present, first, *shuffled]

    board = only(EMPTY.folding(shuffled))

    assert board.duplicates == 4
    for name in ("metrics", "predictions", "inferences", "errors", "predicted", "missing", "availability", "state"):
        assert getattr(board, name) == getattr(expected, name), name


def test_folding_in_pieces_gives_the_same_view() -> None:
    whole = EMPTY.folding(history())

    for cut in range(len(history())):
        assert EMPTY.folding(history()[:cut]).folding(history()[cut:]) == whole


def test_folding_leaves_the_view_it_started_from_alone() -> None:
    before = EMPTY.folding(history()[:3])
    copy = EMPTY.folding(history()[:3])

    before.folding(history()[3:])

    assert before == copy


def test_garbage_and_foreign_messages_are_counted_and_change_nothing() -> None:
    before = EMPTY.folding(history())
    topic, payload, at = history()[2]
    nonsense: list[Raw] = [
        (topic, b"", at),
        (topic, b"\xff\xfe", at),
        (topic, b"[]", at),
        (topic, b"{}", at),
        (topic, payload[:-1], at),
        (topic, payload.replace(b'"schema":1', b'"schema":2'), at),
        (topic, payload.replace(b'"board":"pi-1"', b'"board":"pi-2"'), at),
        (topic, payload.replace(b'"count":10', b'"count":"10"'), at),
        (topic, b"[" * 100_000, at),
    ]
    foreign: list[Raw] = [
        ("", b"", at),
        ("tflotilla/barn", payload, at),
        ("tflotilla/barn/pi-1/nonsense", payload, at),
        ("tflotilla/barn/Pi 1/metrics", payload, at),
        ("homeassistant/status", b"online", at),
        raw("metrics", fake_board.metrics(), seq=1, fleet="house"),
    ]

    after = before.folding([*nonsense, *foreign])

    assert after.boards == before.boards
    assert (after.garbage, after.foreign) == (len(nonsense), len(foreign))


def test_a_deleted_retained_message_is_no_garbage() -> None:
    before = EMPTY.folding(history())

    assert before.folding([("tflotilla/barn/pi-1/state", b"", 105.0)]) == before


def test_the_last_will_of_the_running_boot_takes_a_board_offline() -> None:
    will = raw("availability", messages.Availability(status="offline"), boot="a", at=1.0)

    assert only(EMPTY.folding([*history(), will])).availability == "offline"


def test_the_late_last_will_of_an_earlier_boot_does_not_hide_that_the_board_is_back() -> None:
    back = raw("availability", messages.Availability(status="online"), boot="b", at=200)
    will = raw("availability", messages.Availability(status="offline"), boot="a", at=1.0)

    assert only(EMPTY.folding([*history(), back, will])).availability == "online"


def test_each_boot_has_numbers_of_its_own() -> None:
    said = [raw("metrics", fake_board.metrics(), boot=boot, seq=seq) for boot in "abc" for seq in (1, 2, 4)]

    board = only(EMPTY.folding(said))

    assert (board.duplicates, board.missing, board.inferences) == (0, 3, 90)


def test_an_old_window_from_an_outbox_counts_but_is_not_the_present() -> None:
    said = [raw("metrics", fake_board.metrics(7), seq=9, at=200), raw("metrics", fake_board.metrics(5), seq=1, at=100)]

    board = only(EMPTY.folding(said))

    assert board.metrics == fake_board.metrics(7)
    assert board.inferences == 12


def test_what_an_outbox_repeats_of_a_deployment_does_not_undo_its_end() -> None:
    confirming = DeploymentStatus(
        deployment="d1", candidate="ab" * 32, title="digits-1.0.0", state=DeploymentState.CONFIRMING
    )

    board = only(EMPTY.folding([*history(), raw("deployment", confirming, seq=6, at=102.5)]))

    assert board.deployment is not None
    assert board.deployment.state is DeploymentState.SUCCEEDED


def test_a_board_that_starts_again_with_its_clock_at_1970_is_followed() -> None:
    again = [
        raw("availability", messages.Availability(status="online"), boot="b", at=5),
        raw("metrics", fake_board.metrics(3), boot="b", seq=1, at=6),
        raw("metrics", fake_board.metrics(7), boot="a", seq=8, at=200),
    ]

    board = only(EMPTY.folding([raw("metrics", fake_board.metrics(5), boot="a", seq=9, at=100), *again]))

    assert board.metrics == fake_board.metrics(3)
    assert board.inferences == 15


def hear(live: Live, said: Raw, *, at: float, retained: bool = False) -> list[messages.Message[Any]]:
    return live.hear([Received(topic=said[0], payload=said[1], at=at, retained=retained)])


def test_what_the_broker_kept_is_no_end_of_a_gap_and_no_duplicate_when_it_is_told_again() -> None:
    deployment = history()[-1]
    live = Live("barn")

    heard = [
        len(hear(live, deployment, at=500.0, retained=True)),
        len(hear(live, raw("metrics", fake_board.metrics(), seq=60), at=501.0)),
        len(hear(live, deployment, at=502.0, retained=True)),
        len(hear(live, raw("metrics", fake_board.metrics(), seq=61), at=503.0)),
    ]

    board = live.boards["pi-1"]
    assert [1, 1, 0, 1] == heard
    assert (0, 0, 1) == (board.missing, board.duplicates, len(board.deployments))


def test_a_board_was_seen_when_it_spoke_not_when_the_broker_told_of_it() -> None:
    spoke_at = 1_700_000_000.0
    state = raw("state", fake_board.state(), at=spoke_at)
    live = Live("barn")

    hear(live, state, at=spoke_at + 9000, retained=True)
    assert spoke_at == live.boards["pi-1"].seen

    # A clock that was never set, or is ahead, says nothing.
    unset = Live("barn")
    hear(unset, raw("state", fake_board.state(), at=7.0), at=spoke_at, retained=True)
    ahead = Live("barn")
    hear(ahead, state, at=spoke_at - 60, retained=True)
    assert (spoke_at, spoke_at - 60) == (unset.boards["pi-1"].seen, ahead.boards["pi-1"].seen)


def test_a_fleet_of_boards_is_kept_apart() -> None:
    said = [raw("metrics", fake_board.metrics(n), board=f"pi-{n}", seq=1) for n in range(1, 101)]

    view = EMPTY.folding(said)

    assert [view.boards[f"pi-{n}"].inferences for n in range(1, 101)] == list(range(1, 101))


@pytest.mark.parametrize("seed", range(20))
def test_numbers_that_arrived_are_counted_exactly_in_any_order(seed: int) -> None:
    dice = dice_of(seed)
    numbers = [dice.randint(1, 150) for _ in range(200)]
    sequence = Sequence()
    for number in numbers:
        sequence = sequence.adding(number)

    different = set(numbers)
    assert sequence.received == len(different)
    assert sequence.duplicates == len(numbers) - len(different)
    assert sequence.missing == max(numbers) - numbers[0] + 1 - len({each for each in different if each >= numbers[0]})


def test_what_a_board_repeats_of_the_time_before_makes_no_gap() -> None:
    sequence = Sequence()
    for number in (5000, 5001, *range(1, 21), 5002, *range(1, 21)):
        sequence = sequence.adding(number)

    assert (0, 20, 23) == (sequence.missing, sequence.duplicates, sequence.received)


@pytest.mark.parametrize("seed", range(5))
def test_memory_is_saved_without_a_change_of_the_counts(seed: int) -> None:
    numbers = [3001, *dice_of(seed).sample(range(1, 6000), 3000)]
    sequence = Sequence()
    for number in numbers:
        sequence = sequence.adding(number)

    assert len(sequence.ranges) <= 256
    heard = {each for each in numbers if each >= 3001}
    # Late ones that fall into what was given up may count as repeated: never fewer missing than there are.
    assert sequence.missing >= max(numbers) - 3001 + 1 - len(heard)


def test_numbers_full_of_holes_keep_little_memory_and_the_right_count() -> None:
    sequence = Sequence()
    for number in range(1, 20_001, 2):
        sequence = sequence.adding(number)

    assert len(sequence.ranges) <= 256
    assert sequence.received == 10_000
    assert sequence.missing == 9_999


def test_twenty_thousand_mutated_payloads_are_folded_in_bounded_time() -> None:
    """Fuzz: whatever is cut, flipped, doubled or nested, the fold counts it and goes on."""
    dice = dice_of(20_000)
    seeds = history()
    hostile = [b"null", b"1e999", b'{"schema":1}', b'{"a":' * 500, b"\x00" * 64, "\ud800".encode("utf-8", "replace")]

    def mutated() -> Raw:
        topic, payload, at = dice.choice(seeds)
        data = bytearray(payload)
        match dice.randrange(5):
            case 0:
                del data[dice.randrange(1, len(data)) :]
            case 1:
                for _ in range(dice.randrange(1, 4)):
                    data[dice.randrange(len(data))] = dice.randrange(256)
            case 2:
                start = dice.randrange(len(data))
                data[start:start] = data[start : start + dice.randrange(40)]
            case 3:
                data = bytearray(dice.choice(hostile))
            case _:
                levels = topic.split("/")
                levels[dice.randrange(4)] = dice.choice(["", "+", "pi-1", "barn", "state", "\x00", "é"])
                topic = "/".join(levels)
        return topic, bytes(data), at

    payloads = [mutated() for _ in range(20_000)]
    begin = time.process_time()
    view = EMPTY.folding(payloads)
    took_s = time.process_time() - begin

    folded = sum(board.messages for board in view.boards.values())
    assert view.garbage + view.foreign + folded == 20_000
    assert min(view.garbage, view.foreign, folded) > 500
    # 2 s here; a loop that is quadratic in the messages takes minutes.
    assert took_s < 40
