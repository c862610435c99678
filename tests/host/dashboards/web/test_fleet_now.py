"""The fleet as all browsers see it: what boards say goes in, what pages show comes out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.benchmarks import answers
from tests.host.dashboards.web import simulated
from tests.host.dashboards.web.test_tiles import METRICS, STATE
from tflotilla.host.dashboards.web import site
from tflotilla.host.dashboards.web.fleet_now import FleetNow
from tflotilla.host.telemetry.inbox import Received
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.messages import Availability, Event, LabelCount, Message, Predictions, Thumbnail

if TYPE_CHECKING:
    from tflotilla.shared.contract.topics import Channel

NOW = 1.8e9
FLEET = "home"


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(clock: Clock) -> FleetNow:
    now = FleetNow(FLEET, {"pi-1": {"room": "roof"}, "pi-2": {}}, clock=clock)
    now.connection(connected=True)
    return now


def say(
    channel: Channel,
    body: Any,  # noqa: ANN401 - any body
    *,
    board: str = "pi-1",
    seq: int = 0,
    at: float = NOW,
    time: float | None = None,
    retained: bool = False,
    bundle: str | None = None,
) -> Received:
    """Return a message as it arrives."""
    message = Message(board=board, boot="b1", seq=seq, time=at if time is None else time, bundle=bundle, body=body)
    return Received(topic=topics.topic(FLEET, board, channel), payload=message.to_bytes(), at=at, retained=retained)


ONLINE = Availability(status="online")


def tile(fleet: FleetNow, board: str = "pi-1") -> dict[str, Any]:
    """Return a tile as it was drawn last."""
    return next(each for each in fleet.fleet_document()["tiles"] if each["board"] == board)


def test_boards_of_the_inventory_are_there_before_they_speak(fleet: FleetNow) -> None:
    changes = fleet.changes()

    assert ["pi-1", "pi-2"] == sorted(each["board"] for each in changes.tiles)
    assert {"unknown"} == {each["status"] for each in changes.tiles}


def test_only_boards_that_look_otherwise_are_told_again(fleet: FleetNow) -> None:
    fleet.changes()
    fleet.hear([say("availability", ONLINE)])

    assert ["pi-1"] == [each["board"] for each in fleet.changes().tiles]
    assert [] == fleet.changes().tiles


def test_a_board_that_nobody_enrolled_is_shown_as_such(fleet: FleetNow) -> None:
    fleet.hear([say("availability", ONLINE, board="stranger")])
    fleet.changes()

    assert (False, {}) == (tile(fleet, "stranger")["known"], tile(fleet, "stranger")["labels"])


def test_a_board_that_is_taken_out_of_the_fleet_goes(fleet: FleetNow) -> None:
    fleet.hear([say("availability", ONLINE)])
    fleet.changes()
    fleet.know({"pi-2": {"room": "hall"}})
    changes = fleet.changes()

    assert (["pi-1"], ["pi-2"]) == (changes.gone, [each["board"] for each in changes.tiles])
    assert {"room": "hall"} == tile(fleet, "pi-2")["labels"]
    assert fleet.board_document("pi-1") is None


def test_a_board_that_is_taken_out_and_put_back_is_online_once_it_reports(fleet: FleetNow) -> None:
    fleet.hear([say("availability", ONLINE), say("metrics", METRICS, seq=1)])
    fleet.know({"pi-2": {}})
    fleet.know({"pi-1": {}, "pi-2": {}})
    fleet.changes()
    before = tile(fleet)["status"]
    fleet.hear([say("metrics", METRICS, seq=2)])
    fleet.changes()

    assert ("unknown", "online", None) == (before, tile(fleet)["status"], tile(fleet)["why"])


def test_falling_silent_is_told_without_a_message(fleet: FleetNow, clock: Clock) -> None:
    fleet.hear([say("availability", ONLINE), say("state", STATE), say("metrics", METRICS, seq=1)])
    fleet.changes()
    clock.now += 20

    assert ["silent"] == [each["status"] for each in fleet.changes().tiles]
    assert [] == fleet.changes().tiles


def test_nobody_falls_silent_while_the_broker_is_away(fleet: FleetNow, clock: Clock) -> None:
    fleet.hear([say("availability", ONLINE), say("state", STATE), say("metrics", METRICS, seq=1)])
    fleet.changes()
    fleet.connection(connected=False, reason="it was lost")
    clock.now += 500
    away = fleet.changes()
    fleet.connection(connected=True)
    clock.now += 5
    back = fleet.changes()

    assert ([], (False, "it was lost")) == (away.tiles, away.source)
    assert ([], (True, None)) == (back.tiles, back.source)


def test_what_the_broker_kept_says_nothing_about_when_a_board_was_there(fleet: FleetNow) -> None:
    fleet.hear([say("state", STATE, time=NOW - 7200, retained=True)])
    fleet.changes()

    assert NOW - 7200 == tile(fleet)["seen"]


def test_a_message_that_comes_twice_counts_once(fleet: FleetNow) -> None:
    fleet.watch("pi-1")
    fleet.changes()
    window = say("metrics", METRICS, seq=1, bundle="ab" * 32)
    fleet.hear([window, window])
    news = fleet.news("pi-1")

    assert news is not None
    assert 1 == len(news["points"])
    assert 20 == fleet.models_document()["models"][0]["versions"][0]["count"]


def test_who_looks_at_a_board_hears_what_is_new_once(fleet: FleetNow) -> None:
    board = simulated.Board("pi-1", 0, fleet=FLEET)
    fleet.changes()
    fleet.watch("pi-1")
    fleet.hear([*board.window(NOW), say("event", Event(level="error", kind="source", message="no frame"), seq=900)])
    news = fleet.news("pi-1")

    assert news is not None
    assert (1, 20, "no frame") == (len(news["points"]), len(news["predictions"]), news["events"][0]["message"])
    assert "pi-1" == news["detail"]["tile"]["board"]
    assert "series" not in news["detail"]
    assert fleet.news("pi-1") is None


def test_what_waits_for_who_looks_at_a_board_is_bounded(fleet: FleetNow) -> None:
    board = simulated.Board("pi-1", 0, fleet=FLEET)
    fleet.changes()
    fleet.watch("pi-1")
    for second in range(200):
        fleet.hear(board.window(NOW + second))
    news = fleet.news("pi-1")

    assert news is not None
    assert (50, 50) == (len(news["points"]), len(news["predictions"]))


def test_a_board_that_nobody_looks_at_keeps_no_news(fleet: FleetNow) -> None:
    fleet.changes()
    fleet.watch("pi-1")
    fleet.unwatch("pi-1")
    fleet.hear([say("metrics", METRICS, seq=1)])

    assert fleet.news("pi-1") is None


def test_a_board_is_shown_with_all_that_is_known_of_it(fleet: FleetNow) -> None:
    board = simulated.Board("pi-1", 0, fleet=FLEET)
    fleet.hear([*board.births(NOW), *board.window(NOW), *board.window(NOW + 1), board.picture(NOW)])
    fleet.changes()
    found = fleet.board_document("pi-1")

    assert found is not None
    assert [NOW, NOW + 1] == found["series"]["time"]
    assert 40 == found["stages"]["total"]["count"] == sum(each["count"] for each in found["labels"])
    assert 1.0 == pytest.approx(sum(found["reference"]["scores"]))
    assert ("digits", "2.0.0") == (found["card"]["name"], found["card"]["version"])
    assert found["thumbnail"]["jpeg"].startswith("/9j/")
    assert "Raspberry Pi 4 Model B Rev 1.4" == found["facts"]["model"]


def test_versions_of_a_model_stand_side_by_side_over_the_fleet(fleet: FleetNow) -> None:
    boards = [simulated.Board(f"pi-{number}", number, fleet=FLEET) for number in range(3)]
    for board in boards:
        fleet.hear([*board.births(NOW), *board.window(NOW), *board.window(NOW + 1)])
    fleet.changes()
    (model,) = fleet.models_document()["models"]

    assert [("2.0.0", ["pi-0"], 40), ("1.0.0", ["pi-1", "pi-2"], 80)] == [
        (version["version"], version["boards"], version["count"]) for version in model["versions"]
    ]
    newest = model["versions"][0]
    assert newest["drift"]["labels"]["psi"] >= 0
    assert newest["drift"]["labels"]["chance"] > 0
    assert (0.969, 2000) == (newest["accuracy"], newest["samples"])


def test_garbage_is_counted_and_changes_nothing(fleet: FleetNow) -> None:
    fleet.changes()
    topic = topics.topic(FLEET, "pi-1", "metrics")
    payloads = [b"", b"\xff", b"{}", b"[" * 100_000, b'{"schema":1,"board":"pi-2"}', b'{"schema":1}' * 2, b"NaN"]
    fleet.hear(Received(topic=topic, payload=payload, at=NOW) for payload in payloads)

    assert [] == fleet.changes().tiles
    assert len(payloads) == fleet.garbage


def test_a_picture_that_is_none_of_ours_is_not_kept(fleet: FleetNow) -> None:
    large = Thumbnail(item="a", time=NOW, jpeg="A" * 300_000, top=())
    fleet.hear([say("availability", ONLINE), say("thumbnail", large)])
    fleet.changes()
    found = fleet.board_document("pi-1")

    assert found is not None
    assert found["thumbnail"] is None


def test_what_a_board_measured_is_told_in_short(fleet: FleetNow) -> None:
    fleet.hear([say("benchmark", answers.report(2, 3), seq=1), say("availability", ONLINE, board="pi-2")])
    fleet.hear([say("benchmark", answers.refusal("no such bundle"), seq=1, board="pi-2")])
    fleet.changes()
    one, other = (fleet.board_document(board) for board in ("pi-1", "pi-2"))

    assert one is not None
    assert other is not None
    told = one["benchmark"]
    assert (2, 3, 700, 0.0253, True) == tuple(told[key] for key in ("position", "total", "runs", "p50_ms", "valid"))
    assert (None, "no such bundle") == (other["benchmark"]["p50_ms"], other["benchmark"]["error"])


def test_what_nobody_could_read_is_cut_or_not_kept(fleet: FleetNow) -> None:
    label = LabelCount(label="l" * 100_000, count=1, mean_score=0.5)
    answer = messages.Prediction(item="i" * 100_000, time=NOW, stages_ns={}, top=())
    fleet.hear(
        [
            say("event", Event(level="error", kind="k", message="m" * 50_000), seq=1),
            say("event", Event(level="error", kind="k", message="m" * 100_000), seq=2),
            say("metrics", dataclasses.replace(METRICS, labels=(label,)), seq=3, bundle="ab" * 32),
            say("predictions", Predictions(results=(answer,)), seq=4),
        ]
    )
    fleet.changes()
    found = fleet.board_document("pi-1")

    assert (1, 1) == (fleet.garbage, len(found["events"]) if found else None)
    assert len(site.encode(found)) < 10_000


def test_figures_that_are_no_numbers_reach_no_page(fleet: FleetNow) -> None:
    odd = dataclasses.replace(METRICS, temperature_c=1e308, labels=())
    answer = messages.Prediction(item="a", time=NOW, stages_ns={"total": 5}, top=())
    fleet.hear([say("metrics", odd, seq=1), say("predictions", Predictions(results=(answer,)), seq=2)])
    fleet.changes()
    found = fleet.board_document("pi-1")

    assert found is not None
    assert [None] == found["series"]["temperature_c"]
    assert [] == found["predictions"][0]["top"]
