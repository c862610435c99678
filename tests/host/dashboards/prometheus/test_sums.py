"""Windows add up to counters that never go back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.host.dashboards.prometheus import said
from tests.host.telemetry import fake_board
from tflotilla.host.dashboards.exposition.sums import BOUNDS_S, OTHER_LABELS, Sums
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus

DIGITS = ("digits", "1.0.0")


def message(body: Any, *, board: str = "pi-1", bundle: str | None = said.DIGEST) -> messages.Message[Any]:  # noqa: ANN401
    return messages.Message(board=board, boot="b", seq=1, time=0.0, bundle=bundle, body=body)


def summed(*bodies: Any, **options: Any) -> Sums:  # noqa: ANN401 - any bodies
    sums = Sums(**options)
    for body in (fake_board.state(), *bodies):
        sums.add(message(body))
    return sums


def counted_at_most(counts: list[int], bound_s: float) -> int:
    return sum(counts[: BOUNDS_S.index(bound_s) + 1])


def test_windows_of_a_bundle_add_up() -> None:
    sums = summed(said.window([1_000_000] * 3, errors=1), said.window([2_000_000] * 4, dropped=2, unreadable=5))

    of_bundle = sums.bundles["pi-1"][DIGITS]
    figures = (of_bundle.inferences, of_bundle.errors, of_bundle.dropped, of_bundle.unreadable)
    assert (7, 1, 2, 5) == figures


def test_each_latency_is_counted_between_the_right_bounds_to_the_bucket_of_the_sketch() -> None:
    values = np.random.default_rng(1).lognormal(15, 1, 10_000).astype(np.int64)

    total = summed(said.window(values.tolist())).bundles["pi-1"][DIGITS].stages["total"]

    assert 10_000 == sum(total.counts)
    for bound in BOUNDS_S:
        least, most = (int((values <= bound * 1e9 * off).sum()) for off in (0.99, 1.0))
        assert least <= counted_at_most(total.counts, bound) <= most


def test_the_sum_of_latencies_is_exact() -> None:
    total = summed(said.window([1_000_000, 3_000_000])).bundles["pi-1"][DIGITS].stages["total"]

    assert pytest.approx(0.004, rel=1e-12) == total.total


def test_latencies_beyond_all_bounds_are_in_the_last_bucket() -> None:
    total = summed(said.window([60_000_000_000])).bundles["pi-1"][DIGITS].stages["total"]

    assert 1 == total.counts[-1]


def test_a_latency_of_nothing_is_in_the_first_bucket() -> None:
    total = summed(said.window([0, 0])).bundles["pi-1"][DIGITS].stages["total"]

    assert 2 == total.counts[0]


def test_only_the_stages_that_were_asked_for_are_added_up() -> None:
    sums = summed(said.window(), stages={"total"})

    assert ["total"] == list(sums.bundles["pi-1"][DIGITS].stages)


def test_agents_without_sketches_count_without_latencies() -> None:
    of_bundle = summed(fake_board.metrics(count=10)).bundles["pi-1"][DIGITS]

    assert (10, {}, None) == (of_bundle.inferences, of_bundle.stages, of_bundle.low_confidence)


def test_a_window_of_the_bundle_before_the_switch_is_that_bundle_s() -> None:
    before = messages.ServedBundle(digest="cd" * 32, name="digits", version="0.9.0", release=0)
    sums = summed(fake_board.state(previous=before))

    sums.add(message(said.window(), bundle="cd" * 32))

    assert [("digits", "0.9.0")] == list(sums.bundles["pi-1"])


def test_a_bundle_that_nobody_named_goes_by_its_digest() -> None:
    sums = Sums()

    sums.add(message(said.window()))

    assert [("", "abababababab")] == list(sums.bundles["pi-1"])


def test_a_board_keeps_the_sums_of_three_bundles() -> None:
    sums = Sums()
    for number in range(5):
        sums.add(message(said.window(), bundle=f"{number:064}"[::-1]))

    assert (["2", "3", "4"], 3) == ([version[0] for _, version in sums.bundles["pi-1"]], len(sums.models))


def test_labels_beyond_the_most_are_counted_together_and_no_counter_goes_back() -> None:
    def labels(*names: str) -> tuple[messages.LabelCount, ...]:
        return tuple(messages.LabelCount(label=name, count=1, mean_score=0.5) for name in names)

    sums = summed(said.window(labels=labels("a", "b", "c")), said.window(labels=labels("c", "d", "a")), most_labels=2)

    assert {"a": 2, "b": 1, OTHER_LABELS: 3} == sums.models[DIGITS].labels


def test_deployments_are_counted_when_they_end() -> None:
    def status(state: DeploymentState) -> DeploymentStatus:
        return DeploymentStatus(deployment="d", candidate="c", title="t", state=state)

    sums = summed(status(DeploymentState.PROBING), status(DeploymentState.ROLLED_BACK))

    assert {"succeeded": 0, "rolled_back": 1, "failed": 0, "rejected": 0} == sums.deployments["pi-1"]


def test_boards_that_went_are_forgotten_with_what_only_they_served() -> None:
    sums = summed(said.window())
    sums.add(message(said.window(), board="pi-2", bundle="cd" * 32))

    sums.keep({"pi-2"})

    assert (["pi-2"], [("", "cdcdcdcdcdcd")]) == (list(sums.bundles), list(sums.models))


_SKETCH = messages.LatencySketch(relative_error=0.005, indices=(1450,), counts=(10,))
_LATENCY = dataclasses.replace(said.latency([5]), sketch=_SKETCH)


def wild_latency(**changes: Any) -> messages.Metrics:  # noqa: ANN401 - any field of a latency
    return said.window(stages={"total": dataclasses.replace(_LATENCY, **changes)})


@pytest.mark.parametrize(
    "window",
    [
        said.window(errors=-1),
        said.window(dropped=10**400),
        said.window(low_confidence=-5),
        said.window(scores=(-1,) * 10),
        said.window(labels=(messages.LabelCount(label="seven", count=-3, mean_score=0.5),)),
        said.window(labels=(messages.LabelCount(label="seven", count=3, mean_score=1e300),)),
        wild_latency(mean_ns=-1.0),
        wild_latency(mean_ns=1e300),
        wild_latency(sketch=dataclasses.replace(_SKETCH, counts=(10**30,))),
    ],
)
def test_figures_that_can_t_be_are_counted_and_not_added_up(window: messages.Metrics) -> None:
    sums = summed(window)

    assert (1, {}, {}) == (sums.implausible, sums.bundles, sums.models)


def test_sketches_of_different_precision_add_up_between_the_bounds() -> None:
    coarse = messages.LatencySketch(relative_error=0.01, indices=(725,), counts=(3,))

    sums = summed(wild_latency(), wild_latency(sketch=coarse))

    counts = sums.bundles["pi-1"][DIGITS].stages["total"].counts
    assert {0.002: 13} == {bound: count for bound, count in zip(BOUNDS_S, counts, strict=False) if count}
