"""What is kept of what boards report, and what is not."""

from __future__ import annotations

from typing import Any

from tflotilla.host.rollouts.watcher import Watcher
from tflotilla.host.telemetry.inbox import Received
from tflotilla.shared.contract import topics
from tflotilla.shared.contract.messages import Availability, Event, LabelCount, Message, Metrics

OLD, NEW = "0" * 64, "1" * 64


def metrics(count: int = 10) -> Metrics:
    return Metrics(
        window_s=1.0,
        count=count,
        errors=0,
        dropped=0,
        stages={},
        labels=(LabelCount(label="cat", count=count, mean_score=0.9),),
        rss_bytes=1000,
    )


def received(body: Any, *, seq: int = 1, bundle: str | None = OLD, board: str = "pi-1", boot: str = "a") -> Received:  # noqa: ANN401
    channel: Any = {Metrics: "metrics", Availability: "availability", Event: "event"}[type(body)]
    message: Message[Any] = Message(board=board, boot=boot, seq=seq, time=1.0, bundle=bundle, body=body)
    return Received(topic=topics.topic("farm", board, channel), payload=message.to_bytes(), at=50.0 + seq)


def test_windows_are_summed_per_board_and_bundle() -> None:
    watcher = Watcher(["pi-1"])

    watcher.hear([received(metrics(), seq=1), received(metrics(), seq=2), received(metrics(), seq=3, bundle=NEW)])

    assert {OLD: 20, NEW: 10} == {bundle: found.results for bundle, found in watcher.evidence["pi-1"].items()}


def test_what_comes_twice_counts_once() -> None:
    watcher = Watcher(["pi-1"])

    watcher.hear([received(metrics(), seq=1), received(metrics(), seq=1)])
    watcher.hear([received(metrics(), seq=1)])

    assert 10 == watcher.evidence["pi-1"][OLD].results


def test_a_new_boot_counts_anew() -> None:
    watcher = Watcher(["pi-1"])

    watcher.hear([received(metrics(), seq=1), received(metrics(), seq=1, boot="b")])

    assert 20 == watcher.evidence["pi-1"][OLD].results


def test_boards_of_no_concern_are_not_kept() -> None:
    watcher = Watcher(["pi-1"])

    born = watcher.hear([received(metrics(), board="pi-2"), received(Availability(status="online"), board="pi-2")])

    assert () == born
    assert {} == watcher.evidence


def test_a_birth_is_told_once() -> None:
    watcher = Watcher(["pi-1"])
    there, gone = Availability(status="online"), Availability(status="offline")

    assert ("pi-1",) == watcher.hear([received(there, seq=0), received(there, seq=0)])
    assert () == watcher.hear([received(gone, seq=0)])


def test_metrics_that_can_not_be_read_keep_their_gates_from_passing() -> None:
    watcher = Watcher(["pi-1"])
    watcher.hear([received(metrics())])

    whole = received(metrics(), seq=2)
    watcher.hear([Received(topic=whole.topic, payload=whole.payload.replace(b"0.9", b"NaN"), at=60.0)])

    assert {"errors", "latency", "labels"} <= set(watcher.evidence["pi-1"][OLD].broken)


def test_garbage_elsewhere_changes_nothing() -> None:
    watcher = Watcher(["pi-1"])

    watcher.hear([Received(topic="tflotilla/farm/pi-1/metrics", payload=b"\xff", at=1.0)])
    watcher.hear([Received(topic="else/where", payload=b"", at=1.0)])

    assert {} == watcher.evidence


def test_evidence_can_be_begun_anew() -> None:
    watcher = Watcher(["pi-1"])
    watcher.hear([received(metrics())])

    watcher.forget("pi-1", OLD)
    watcher.forget("pi-9", OLD)

    assert {"pi-1": {}} == watcher.evidence


def test_of_a_board_the_newest_three_bundles_are_kept() -> None:
    watcher = Watcher(["pi-1"])

    watcher.hear([received(metrics(), seq=number, bundle=f"{number}" * 64) for number in range(1, 6)])

    assert ["3" * 64, "4" * 64, "5" * 64] == list(watcher.evidence["pi-1"])
