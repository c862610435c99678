"""What is shown of a fleet: what is known, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.host.dashboards.prometheus import said
from tests.host.telemetry import fake_board
from tflotilla.host.dashboards.exposition import catalogue
from tflotilla.host.dashboards.exposition.rendering import Scene, families
from tflotilla.host.dashboards.exposition.sums import Sums
from tflotilla.host.telemetry.fleet_view import BoardView
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.manifest import EvaluationSummary
from tflotilla.shared.contract.tensors import QuantizationScheme


def scene(**changes: Any) -> Scene:  # noqa: ANN401 - any field
    values: dict[str, Any] = {
        "fleet": "barn",
        "now": 1000.0,
        "since": 900.0,
        "connected": True,
        "enrolled": {"pi-1": {}},
        "boards": {"pi-1": board()},
        "windows": {"pi-1": 999.0},
    }
    return Scene(**{**values, **changes})


def board(**changes: Any) -> BoardView:  # noqa: ANN401 - any field
    values: dict[str, Any] = {
        "board": "pi-1",
        "seen": 999.0,
        "availability": "online",
        "state": fake_board.state(),
        "metrics": said.window(),
        "messages": 7,
    }
    return BoardView(**{**values, **changes})


def figures(metric: catalogue.Metric, shown: Scene, sums: Sums | None = None) -> dict[tuple[str, ...], float]:
    (family,) = [family for family in families(shown, sums or Sums()) if family.metric == metric]
    return {figure.labels: figure.value for figure in family.figures}


def test_every_metric_of_the_catalogue_is_there_in_its_order() -> None:
    shown = [family.metric for family in families(scene(boards={}), Sums())]

    assert list(catalogue.CATALOGUE) == shown


@pytest.mark.parametrize("availability", ["online", "offline"])
def test_a_board_is_online_as_it_or_its_last_will_said(availability: str) -> None:
    shown = figures(catalogue.ONLINE, scene(boards={"pi-1": board(availability=availability)}))

    assert {("pi-1",): float(availability == "online")} == shown


def test_a_board_that_never_spoke_is_enrolled_and_neither_online_nor_offline() -> None:
    silent = scene(boards={}, windows={})

    assert ({("pi-1",): 1.0}, {}) == (figures(catalogue.ENROLLED, silent), figures(catalogue.ONLINE, silent))


_OF_THE_PRESENT = (
    catalogue.TEMPERATURE,
    catalogue.THROTTLED,
    catalogue.MEMORY,
    catalogue.FAILING,
    catalogue.OUTBOX,
    catalogue.SERVING,
)


@pytest.mark.parametrize("metric", _OF_THE_PRESENT, ids=lambda metric: metric.name)
def test_the_present_is_shown_while_it_is_known(metric: catalogue.Metric) -> None:
    assert 1 == len(figures(metric, scene()))


@pytest.mark.parametrize("metric", _OF_THE_PRESENT, ids=lambda metric: metric.name)
def test_nothing_is_said_of_the_present_of_a_board_that_is_off(metric: catalogue.Metric) -> None:
    assert {} == figures(metric, scene(boards={"pi-1": board(availability="offline")}))


@pytest.mark.parametrize("metric", [*_OF_THE_PRESENT, catalogue.ONLINE], ids=lambda metric: metric.name)
def test_nothing_is_said_of_the_present_without_a_broker(metric: catalogue.Metric) -> None:
    assert {} == figures(metric, scene(connected=False))


@pytest.mark.parametrize(
    ("age_s", "window_s", "shown"), [(59, 1.0, 1), (61, 1.0, 0), (61, 60.0, 1), (299, 60.0, 1), (301, 60.0, 0)]
)
def test_a_temperature_is_shown_as_long_as_windows_come(age_s: float, window_s: float, shown: int) -> None:
    old = scene(
        now=1000.0, windows={"pi-1": 1000.0 - age_s}, boards={"pi-1": board(metrics=said.window(window_s=window_s))}
    )

    assert shown == len(figures(catalogue.TEMPERATURE, old))


def test_what_a_board_can_t_tell_is_left_out() -> None:
    mute = scene(boards={"pi-1": board(metrics=said.window(temperature_c=None, throttled=None))})

    assert ({}, {}) == (figures(catalogue.TEMPERATURE, mute), figures(catalogue.THROTTLED, mute))


@pytest.mark.parametrize(
    ("requested", "active", "shown"),
    [(None, None, {}), ("libedgetpu.so", "libedgetpu.so", {("pi-1",): 0.0}), ("libedgetpu.so", None, {("pi-1",): 1.0})],
)
def test_a_delegate_that_was_asked_for_and_does_not_run_is_a_fallback(
    requested: str | None, active: str | None, shown: dict[tuple[str, ...], float]
) -> None:
    state = fake_board.state(delegate=messages.DelegateReport(requested=requested, active=active))

    assert shown == figures(catalogue.FALLBACK, scene(boards={"pi-1": board(state=state)}))


def test_labels_of_the_fleet_file_have_names_that_prometheus_allows() -> None:
    labelled = scene(enrolled={"pi-1": {"room": "kitchen", "made-by": "us", "made.by": "them"}})

    (family,) = [family for family in families(labelled, Sums()) if family.metric == catalogue.LABELS]

    assert [(("label_made_by", "us"), ("label_room", "kitchen"))] == [figure.more for figure in family.figures]


def card(**changes: Any) -> messages.ModelCard:  # noqa: ANN401 - any field
    values: dict[str, Any] = {
        "digest": "ab" * 32,
        "name": "digits",
        "version": "1.0.0",
        "release": 1,
        "scheme": QuantizationScheme.INT8,
        "size_bytes": 1,
        "evaluation": EvaluationSummary(samples=100, accuracy=0.97, runtime="r"),
    }
    return messages.ModelCard(**{**values, **changes})


def test_what_serves_and_its_accuracy_is_shown_once_however_many_boards_serve_it() -> None:
    many = scene(boards={name: board(board=name, model=card()) for name in ("pi-1", "pi-2")})

    assert {("digits", "1.0.0"): 0.97} == figures(catalogue.ACCURACY, many)
    assert {("digits", "1.0.0", "1", "int8"): 1.0} == figures(catalogue.MODEL, many)


def test_a_card_of_what_served_before_is_not_shown() -> None:
    assert {} == figures(catalogue.MODEL, scene(boards={"pi-1": board(model=card(digest="cd" * 32))}))


def test_numbers_beyond_all_numbers_are_left_out() -> None:
    assert {} == figures(catalogue.OUTBOX, scene(boards={"pi-1": board(state=fake_board.state(outbox_rows=10**400))}))
