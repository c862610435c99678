"""What a tile says of a board, and what hurts about it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from tests import facts_made
from tests.facts_made import LITERT
from tflotilla.host.dashboards.web import tiles
from tflotilla.host.telemetry.fleet_view import BoardView
from tflotilla.host.telemetry.presence import Listening
from tflotilla.shared.contract.board import ServedBundle
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.messages import (
    Candidate,
    DelegateReport,
    LabelCount,
    Metrics,
    Prediction,
    StageLatency,
    State,
)

if TYPE_CHECKING:
    from tflotilla.host.dashboards.web.tiles import Tile

NOW = 10_000.0
LISTENING = Listening(since=NOW - 3600, now=NOW)
NO_DELEGATE = DelegateReport(requested=None, active=None)
STATE = State(
    agent_version="0.4.0",
    facts=facts_made.facts(),
    serving=ServedBundle(digest="ab" * 32, name="digits", version="1.0.0", release=1),
    previous=None,
    worker="running",
    runtime=LITERT,
    num_threads=2,
    delegate=NO_DELEGATE,
    source="folder",
    uptime_s=60.0,
    outbox_rows=0,
    outbox_dropped=0,
)
TOTAL = StageLatency(
    count=20, mean_ns=5e6, min_ns=4_000_000, p50_ns=5_000_000, p90_ns=5_500_000, p99_ns=6_000_000, max_ns=6_100_000
)
METRICS = Metrics(
    window_s=1.0,
    count=20,
    errors=0,
    dropped=0,
    stages={"total": TOTAL},
    labels=(LabelCount(label="three", count=15, mean_score=0.9), LabelCount(label="five", count=5, mean_score=0.7)),
    rss_bytes=1 << 20,
    temperature_c=51.0,
    low_confidence=4,
    throttled=False,
)
VIEW = BoardView(board="pi-1", seen=NOW, availability="online", state=STATE, metrics=METRICS)


def drawn(
    view: BoardView | None = VIEW,
    *,
    seen: float | None = NOW,
    listening: Listening = LISTENING,
    **more: Any,  # noqa: ANN401
) -> Tile:
    """Return a tile."""
    view = None if view is None or seen is None else dataclasses.replace(view, seen=seen)
    return tiles.tile("pi-1", {"site": "lab"}, view, seen=seen, listening=listening, **more)


def said(**changes: Any) -> BoardView:  # noqa: ANN401 - any field of Metrics
    """Return a view whose last window was another."""
    return dataclasses.replace(VIEW, metrics=dataclasses.replace(METRICS, **changes))


def is_in(state: DeploymentState) -> BoardView:
    """Return a view with a deployment."""
    deployment = DeploymentStatus(deployment="d", candidate="cd" * 32, title="digits-2.0.0", state=state)
    return dataclasses.replace(VIEW, deployment=deployment)


def test_a_healthy_board_is_told_with_its_figures_and_hurts_nothing() -> None:
    tile = drawn()

    assert ("online", "digits-1.0.0", "ai-edge-litert 2.3.0", 2) == (
        tile["status"],
        tile["model"],
        tile["runtime"],
        tile["threads"],
    )
    assert (5.0, 6.0, 20.0, 51.0, 0.2) == (
        tile["p50_ms"],
        tile["p99_ms"],
        tile["rate"],
        tile["temperature_c"],
        tile["low_confidence_share"],
    )
    assert (0.0, None) == (tile["hurt"], tile["why"])


def test_what_is_not_known_is_none_and_never_zero() -> None:
    tile = drawn(None, seen=None)

    told = {"board", "known", "labels", "status", "hurt", "why"}
    assert {None} == {value for key, value in tile.items() if key not in told}
    assert ("unknown", "nothing was heard of it yet") == (tile["status"], tile["why"])


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_is_not_known(figure: float) -> None:
    tile = drawn(said(temperature_c=figure))

    assert tile["temperature_c"] is None


def test_the_last_answer_is_shown_and_without_answers_the_commonest_label() -> None:
    answer = Prediction(item="a.jpg", time=NOW, stages_ns={}, top=(Candidate(label="five", index=5, score=0.75),))

    assert {"label": "five", "score": 0.75} == drawn(dataclasses.replace(VIEW, predictions=(answer,)))["top"]
    assert {"label": "three", "score": 0.9} == drawn()["top"]


@pytest.mark.parametrize(
    ("view", "word"),
    [
        (dataclasses.replace(VIEW, availability="offline"), "offline"),
        (is_in(DeploymentState.PROBING), "probing"),
        (is_in(DeploymentState.SUCCEEDED), "online"),
        (dataclasses.replace(VIEW, state=dataclasses.replace(STATE, worker="failing")), "failing"),
        (dataclasses.replace(VIEW, availability=None), "online"),
        (dataclasses.replace(VIEW, availability=None, metrics=None), "unknown"),
    ],
)
def test_the_status_is_what_the_board_says_of_itself(view: BoardView, word: str) -> None:
    assert word == drawn(view)["status"]


def test_a_board_that_says_nothing_any_more_is_silent() -> None:
    assert "silent" == drawn(seen=NOW - 16)["status"]
    assert "online" == drawn(seen=NOW - 14)["status"]


def test_a_board_with_long_windows_is_given_three_of_them() -> None:
    assert "online" == drawn(said(window_s=20.0), seen=NOW - 50)["status"]
    assert "silent" == drawn(said(window_s=20.0), seen=NOW - 61)["status"]


def test_a_board_without_a_model_says_its_state_every_half_minute_and_is_not_silent_in_between() -> None:
    idle = dataclasses.replace(VIEW, metrics=None, state=dataclasses.replace(STATE, worker="none", serving=None))

    assert "online" == drawn(idle, seen=NOW - 60)["status"]
    assert "silent" == drawn(idle, seen=NOW - 76)["status"]


def test_nobody_is_called_silent_for_a_time_in_which_we_did_not_listen() -> None:
    back = Listening(since=NOW - 5, now=NOW)
    deaf = Listening(since=NOW - 3600, now=NOW - 500)

    assert "online" == drawn(seen=NOW - 500, listening=back)["status"]
    assert "online" == drawn(seen=NOW - 505, listening=deaf)["status"]


def test_what_is_worst_comes_first() -> None:
    failing = dataclasses.replace(STATE, worker="failing", problem="SIGSEGV")
    boards = {
        "failing": drawn(dataclasses.replace(VIEW, state=failing)),
        "offline": drawn(dataclasses.replace(VIEW, availability="offline")),
        "silent": drawn(seen=NOW - 60),
        "throttled": drawn(said(throttled=True)),
        "errors": drawn(said(errors=2)),
        "rolled back": drawn(is_in(DeploymentState.ROLLED_BACK)),
        "slow": drawn(usual_p99_ms=2.0),
        "hot": drawn(said(temperature_c=81.0)),
        "no delegate": drawn(
            dataclasses.replace(
                VIEW, state=dataclasses.replace(STATE, delegate=DelegateReport(requested="tpu.so", active=None))
            )
        ),
        "dropping": drawn(said(dropped=3)),
        "never heard": drawn(None, seen=None),
        "healthy": drawn(),
    }

    assert list(boards) == sorted(boards, key=lambda name: -boards[name]["hurt"])
    assert {True} == {bool(tile["why"]) for name, tile in boards.items() if name != "healthy"}
    assert "its model does not run: SIGSEGV" == boards["failing"]["why"]
    assert "p99 is 3.0 times the fleet's median of this model" == boards["slow"]["why"]


def test_a_board_is_compared_with_boards_of_its_own_bundle_and_only_with_a_crowd() -> None:
    crowd = [drawn(), drawn(), drawn(said(stages={"total": dataclasses.replace(TOTAL, p99_ns=60_000_000)}))]

    assert {"ab" * 32: 6.0} == tiles.usual(crowd)
    assert {} == tiles.usual(crowd[:2])
