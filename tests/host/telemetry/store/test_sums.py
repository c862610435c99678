"""Sums of windows: packed, added up, read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.host.telemetry.store import made
from tflotilla.host.telemetry.store.sums import Sums, Window, window
from tflotilla.shared import sketches


def read(*latencies_ns: int, label: str = "cat", score: float = 0.75) -> Window:
    found = window(made.arrival(1, body=made.metrics(latencies_ns, label=label, score=score)).payload)
    assert found is not None
    return found


def summed(*windows: Window) -> Sums:
    sums = Sums()
    sums.add(*windows)
    return sums


def test_packing_changes_nothing() -> None:
    sums = summed(read(1_000, 5_000), read(9_000, label="dog"))

    assert sums.pack() == Sums.unpack(sums.pack()).pack()


def test_the_grouping_does_not_matter() -> None:
    windows = [read(*(1000 * n + k for k in range(5)), label="cat" if n % 2 else "dog") for n in range(1, 8)]
    parts = Sums()
    for group in (windows[3:], windows[:1], windows[1:3]):
        parts.merge_packed(summed(*group).pack())
    whole = summed(*windows)

    assert whole.stages == parts.stages
    assert whole.scores == parts.scores
    assert (whole.scalars.windows, whole.scalars.count) == (parts.scalars.windows, parts.scalars.count)
    assert {k: v[0] for k, v in whole.labels.items()} == {k: v[0] for k, v in parts.labels.items()}


def test_a_percentile_of_many_windows_is_that_of_all_samples() -> None:
    """An average of the windows' percentiles would be far off: one window in ten is slow."""
    chance = np.random.default_rng(3)
    samples = [chance.lognormal(17 if n % 10 else 19, 0.1, 50).astype(np.int64) for n in range(100)]
    sums = summed(*(read(*map(int, values)) for values in samples))

    expected = float(np.sort(np.concatenate(samples))[int(0.99 * 5000) - 1])
    assert pytest.approx(expected, rel=0.005) == sums.percentile("total", 99)


def test_it_is_what_the_shared_sketches_say() -> None:
    first, second = np.array([5, 7, 900]), np.array([0, 7, 100_000])
    sums = summed(read(5, 7, 900), read(0, 7, 100_000))

    assert sketches.merged([sketches.of(first), sketches.of(second)]) == sums.stages["total"]


def test_labels_keep_mean_and_deviation_over_windows() -> None:
    sums = summed(read(1, 2, 3, score=0.9), read(1, score=0.5))
    count, total, squares = sums.labels["cat"]

    assert 4 == count
    assert pytest.approx(3.2) == total
    # 0.1 within each window, and what lies between them.
    assert pytest.approx(0.01 + np.var([0.9, 0.9, 0.9, 0.5])) == squares / count - (total / count) ** 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("count", 1 << 41),
        ("rss_bytes", -1),
        ("window_s", 1e300),
        ("labels", [{"label": "a", "count": 1 << 62, "mean_score": 0.5}]),
        ("stages", {"total": {"sketch": {"relative_error": 0.005, "indices": [1, 2], "counts": [1]}}}),
        ("stages", {"total": {"sketch": {"relative_error": 0.005, "indices": [1 << 30], "counts": [1]}}}),
    ],
)
def test_figures_beyond_reason_are_not_added_up(key: str, value: object) -> None:
    document = json.loads(made.arrival(1).payload)

    assert None is window(json.dumps({**document, key: value}).encode())


@pytest.mark.parametrize("payload", [b"", b"null", b"\xff\xfe", b"[" * 100_000, b'{"count": 1}'])
def test_garbage_is_not_added_up(payload: bytes) -> None:
    assert None is window(payload)


def test_a_board_that_invents_labels_fills_no_memory() -> None:
    sums = summed(*(read(1, label=f"label {n}") for n in range(1500)))

    assert 1001 == len(sums.labels)
    assert 1500 == sum(count for count, _, _ in sums.labels.values())


def test_windows_of_older_agents_count_without_latencies() -> None:
    document = json.loads(made.arrival(1).payload)
    for key in ("scores", "low_confidence", "throttled", "temperature_c"):
        del document[key]
    del document["stages"]["total"]["sketch"]
    found = window(json.dumps(document).encode())
    assert found is not None
    sums = summed(found)

    assert (1, {}, None) == (sums.scalars.count, sums.stages, sums.percentile("total", 50))
