"""Sketches: adding them up is adding the values up, and what is read from them is within half a per cent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tflotilla.shared import sketches, statistics
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.messages import LatencySketch

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[np.int64]

PERCENTS = (0.01, 1.0, 5.0, 50.0, 90.0, 95.0, 99.0, 99.9, 100.0)
#: Latencies in nanoseconds as boards have them, and as they hardly can.
DISTRIBUTIONS = ("a model", "two speeds", "long tail", "uniform", "equal", "tiny", "everything", "with zeros")


def drawn(name: str, count: int = 10_000, seed: int = 7) -> Values:
    random = np.random.default_rng(seed)
    values: dict[str, npt.NDArray[np.float64]] = {
        "a model": random.lognormal(math.log(4e6), 0.05, count),
        "two speeds": np.where(
            random.random(count) < 0.9, random.normal(2e6, 2e4, count), random.normal(9e7, 1e6, count)
        ),
        "long tail": 1e5 * random.pareto(1.1, count) + 1e4,
        "uniform": random.uniform(1, 1e9, count),
        "equal": np.full(count, 36_407.0),
        "tiny": random.integers(1, 40, count).astype(np.float64),
        "everything": np.exp(random.uniform(0, math.log(3.6e12), count)),
        "with zeros": np.maximum(0, random.normal(100, 100, count)),
    }
    return values[name].astype(np.int64)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_percentile_is_within_half_a_per_cent_of_the_value_of_its_rank(distribution: str) -> None:
    values = drawn(distribution)
    ordered = sorted(values.tolist())
    sketch = sketches.of(values)

    for percent in PERCENTS:
        exact = statistics.percentile(ordered, percent)
        read = sketches.percentile(sketch, percent)
        assert read is not None
        assert abs(read - exact) <= sketches.RELATIVE_ERROR * exact * (1 + 1e-9), percent


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_another_implementation_has_the_same_buckets(distribution: str) -> None:
    """The package of the paper's authors is the oracle."""
    ddsketch = pytest.importorskip("ddsketch")
    theirs, values = ddsketch.DDSketch(sketches.RELATIVE_ERROR), drawn(distribution)
    for value in values.tolist():
        theirs.add(value)
    store = theirs._store
    buckets = {store.offset + place: int(counted) for place, counted in enumerate(store.bins) if counted}
    ours = sketches.of(values)

    assert buckets == dict(zip(ours.indices, ours.counts, strict=True))
    assert int(theirs._zero_count) == ours.zeros
    for index in ours.indices:
        assert math.isclose(sketches.value(index, ours.relative_error), theirs._mapping.value(index), rel_tol=1e-9)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_adding_sketches_up_is_adding_their_values_up_in_any_order(distribution: str) -> None:
    whole = drawn(distribution)
    parts = np.split(whole, [10, 10, 777, 5000])
    expected = sketches.of(whole)

    assert expected == sketches.merged(sketches.of(part) for part in parts)
    assert expected == sketches.merged(sketches.of(part) for part in reversed(parts))
    assert expected == sketches.merged([sketches.merged(map(sketches.of, parts[:3])), *map(sketches.of, parts[3:])])
    assert sketches.count(expected) == whole.size


def test_the_order_of_values_does_not_matter() -> None:
    values = drawn("long tail")

    assert sketches.of(values) == sketches.of(values[::-1]) == sketches.of_sorted(np.sort(values))


def test_nothing_is_a_sketch_too() -> None:
    nothing = sketches.of(np.array([], dtype=np.int64))

    assert nothing == sketches.merged([]) == sketches.Sum().sketch()
    assert sketches.percentile(nothing, 50) is None
    assert sketches.of(drawn("a model")) == sketches.merged([nothing, sketches.of(drawn("a model"))])


def test_what_is_not_above_zero_counts_as_zero() -> None:
    sketch = sketches.of(np.array([-5, 0, 0, 1], dtype=np.int64))

    assert sketch == LatencySketch(relative_error=sketches.RELATIVE_ERROR, indices=(0,), counts=(1,), zeros=3)
    assert sketches.percentile(sketch, 75) == 0.0


def test_the_longest_latency_that_there_is_has_a_bucket() -> None:
    longest = np.iinfo(np.int64).max
    read = sketches.percentile(sketches.of(np.array([1, longest])), 100)

    assert read is not None
    assert abs(read - longest) <= sketches.RELATIVE_ERROR * longest


def test_a_sketch_survives_its_message() -> None:
    sketch = sketches.of(drawn("two speeds"))

    assert sketch == codec.decode(LatencySketch, codec.parse_json(codec.canonical_json(sketch), "x"), "x")


def test_a_sum_grows_as_it_is_read() -> None:
    total, seen = sketches.Sum(), np.array([], dtype=np.int64)
    for part in np.split(drawn("a model"), 4):
        total.add(sketches.of(part))
        seen = np.concatenate([seen, part])

        assert total.count == seen.size
        assert total.percentile(99) == sketches.percentile(sketches.of(seen), 99)


def test_a_sum_added_to_a_sum_is_its_sketch_added() -> None:
    parts = [sketches.of(part) for part in np.split(drawn("a model"), 4)]
    total = sketches.Sum()
    for pair in (parts[:2], parts[2:]):
        half = sketches.Sum()
        for part in pair:
            half.add(part)
        total.merge(half)
        # It is a copy: what is merged is not grown by what comes later.
        assert half.sketch() == sketches.merged(pair)

    assert sketches.merged(parts) == total.sketch()
    assert sketches.percentile(sketches.merged(parts), 99) == total.percentile(99)


def test_sketches_of_other_buckets_are_refused() -> None:
    other = LatencySketch(relative_error=0.01, indices=(5,), counts=(1,))

    with pytest.raises(ValueError, match=r"relative error 0.01 can't be added to one of 0.005"):
        sketches.Sum().merge(sketches.Sum(0.01))
    with pytest.raises(ValueError, match=r"relative error 0.01 can't be added to one of 0.005"):
        sketches.merged([sketches.of(drawn("equal")), other])


@pytest.mark.parametrize("percent", [0, -1, 100.5])
def test_there_is_no_such_percentile(percent: float) -> None:
    with pytest.raises(ValueError, match=r"no .+ percentile"):
        sketches.percentile(sketches.of(drawn("equal")), percent)


@pytest.mark.parametrize("bound", [1, 50, 1e3, 36_407, 1e6, 3e9])
def test_what_is_below_a_bound_is_counted_to_the_bucket(bound: float) -> None:
    """Whoever lies within half a per cent of the bound may be counted on either side; nobody else."""
    values = drawn("everything")
    counted = sketches.below(sketches.of(values), bound)
    width = 1 + 2 * sketches.RELATIVE_ERROR / (1 - sketches.RELATIVE_ERROR)

    assert np.count_nonzero(values <= bound / width) <= counted <= np.count_nonzero(values <= bound)
