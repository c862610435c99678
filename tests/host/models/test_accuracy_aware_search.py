"""The search for the smallest variant that loses little enough, on made-up models: no file, no TensorFlow."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tflotilla.host.models.accuracy_aware import intervals, ranking, search, splits
from tflotilla.host.models.accuracy_aware.search import Candidate, Layer, Observation, Prefer, Problem
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Callable

INT8, INT16X8 = QuantizationScheme.INT8, QuantizationScheme.INT16X8
DYNAMIC, FLOAT16 = QuantizationScheme.DYNAMIC_RANGE, QuantizationScheme.FLOAT16
BASE = 10_000


def problem(layers: int | tuple[Layer, ...], **changes: object) -> Problem:
    if isinstance(layers, int):
        layers = tuple(Layer(name=f"layer{i}", op="CONV_2D", error=1.0, extra_bytes=1000) for i in range(layers))
    return Problem(**({"max_drop": 0.01, "layers": layers} | changes))  # type: ignore[arg-type]


def searched(asked: Problem, drop_of: Callable[[frozenset[int]], float], *, whole: float = 0.5) -> search.Path:
    """Search to the end; `drop_of` says what int8 loses with those layers in float, `whole` what other schemes do."""
    path: search.Path = ()
    while (candidate := search.next_candidate(asked, path)) is not None:
        assert candidate not in dict(path)
        extra = sum(asked.layers[place].extra_bytes for place in candidate.kept)
        drop = drop_of(frozenset(candidate.kept)) if candidate.scheme is INT8 else whole
        latency_ns = 1000 * (1 + len(candidate.kept))
        path += ((candidate, Observation(drop=drop, size_bytes=BASE + extra, latency_ns=latency_ns)),)
        assert len(path) <= asked.max_steps
    return path


def taken(asked: Problem, path: search.Path) -> Candidate:
    return search.choose(asked, path, Prefer.SIZE)[0]


def test_what_int8_keeps_needs_no_layer_in_float() -> None:
    asked = problem(20)

    path = searched(asked, lambda _: 0.002)

    assert [candidate.scheme for candidate, _ in path] == [INT8, DYNAMIC, FLOAT16]
    assert taken(asked, path) == Candidate(scheme=INT8)


def test_layers_are_measured_only_once_int8_lost_too_much() -> None:
    lost = ((Candidate(scheme=INT8), Observation(drop=0.02)),)
    kept = ((Candidate(scheme=INT8), Observation(drop=0.01)),)
    refused = ((Candidate(scheme=INT8), Observation(refused="an op")),)

    assert search.needs_layers(problem(0), lost)
    assert not any(search.needs_layers(problem(0), path) for path in ((), kept, refused))


def test_the_one_layer_that_spoils_all_is_found_at_once_when_it_is_ranked_first() -> None:
    asked = problem(50)

    path = searched(asked, lambda kept: 0.0 if 0 in kept else 0.6)

    assert path[-1][0] == Candidate(scheme=INT8, kept=(0,))
    assert [candidate.kept for candidate, _ in path if candidate.kept] == [(0,)]


@pytest.mark.parametrize("culprit", [1, 2, 5, 11])
def test_the_one_layer_that_spoils_all_is_all_that_is_kept_wherever_it_is_ranked(culprit: int) -> None:
    """Layers ranked before it are given back, as many as there are tries."""
    asked = problem(16)

    path = searched(asked, lambda kept: 0.0 if culprit in kept else 0.6)

    kept = taken(asked, path).kept
    assert culprit in kept
    assert len(kept) <= max(1, culprit + 1 - search.GIVE_BACK_TRIES)


@pytest.mark.parametrize(("layers", "needed"), [(2, 1), (3, 2), (9, 8), (20, 5), (20, 13), (33, 32), (100, 17)])
def test_many_culprits_take_the_fewest_layers_where_each_one_helps(layers: int, needed: int) -> None:
    asked = problem(layers)

    path = searched(asked, lambda kept: 0.01 + 0.001 * (needed - len(kept)))

    assert taken(asked, path).kept == tuple(range(needed))
    assert len(path) < 4 + 2 * layers.bit_length() + search.GIVE_BACK_TRIES


def test_with_all_layers_it_would_be_the_float_model_and_is_not_tried() -> None:
    path = searched(problem(5), lambda kept: 0.0 if len(kept) == 5 else 0.5)

    assert max(len(candidate.kept) for candidate, _ in path) == 4


@pytest.mark.parametrize("layers", [0, 1])
def test_a_model_of_one_layer_has_no_mixture(layers: int) -> None:
    path = searched(problem(layers), lambda _: 0.5)

    assert [candidate.scheme for candidate, _ in path] == [INT8, DYNAMIC, FLOAT16, INT16X8]


def test_dear_layers_are_given_back_first() -> None:
    layers = tuple(Layer(name=str(i), op="CONV_2D", error=1.0, extra_bytes=b) for i, b in enumerate([9000, 10, 20, 10]))
    asked = problem((*layers, *problem(8).layers))

    path = searched(asked, lambda kept: 0.0 if {2, 3} <= kept else 0.5)

    given_back = [candidate.kept for candidate, _ in path if candidate.kept and candidate.kept != (0, 1, 2, 3)]
    assert (1, 2, 3) in given_back
    assert taken(asked, path).kept == (2, 3)


def test_a_layer_is_not_given_back_where_that_loses_too_much() -> None:
    asked = problem(8)

    path = searched(asked, lambda kept: 0.0 if {0, 1, 2} <= kept else 0.5)

    assert taken(asked, path).kept == (0, 1, 2)


@pytest.mark.parametrize("seed", range(40))
def test_noise_ends_in_a_variant_that_was_measured_within_the_bound(seed: int) -> None:
    """More float may measure worse; the search ends, tries nothing twice, and takes what it measured."""
    noise = random.Random(seed)  # noqa: S311 - no secret
    layers = noise.randrange(2, 60)
    drops: dict[frozenset[int], float] = {}

    def drop_of(kept: frozenset[int]) -> float:
        return drops.setdefault(kept, max(-0.01, 0.03 - 0.002 * len(kept)) + noise.gauss(0, 0.01))

    asked = problem(layers)
    path = searched(asked, drop_of)

    chosen = search.choose(asked, path, Prefer.SIZE)
    assert all(dict(path)[candidate].drop <= asked.max_drop for candidate in chosen)
    assert bool(chosen) == any(observation.drop <= asked.max_drop for _, observation in path)


def test_what_grows_worse_with_float_still_ends() -> None:
    asked = problem(30)

    path = searched(asked, lambda kept: 0.02 + 0.01 * len(kept))

    assert search.choose(asked, path, Prefer.SIZE) == ()
    assert search.closest(path)[0][0] == Candidate(scheme=INT8)


def test_where_nothing_meets_the_bound_the_closest_come_first() -> None:
    asked = problem(6, max_drop=0.0)

    path = searched(asked, lambda kept: 0.1 - 0.01 * len(kept), whole=0.2)

    assert [candidate.kept for candidate, _ in search.closest(path)[:2]] == [(0, 1, 2, 3, 4), (0, 1, 2, 3)]


def test_a_variant_that_cannot_be_made_is_one_that_loses_too_much() -> None:
    asked = problem(6)
    path: search.Path = ()
    while (candidate := search.next_candidate(asked, path)) is not None:
        refused = candidate.kept in ((0,), (0, 1))
        drop = 0.0 if len(candidate.kept) > 2 else 0.5
        seen = Observation(refused="crashed") if refused else Observation(drop=drop, size_bytes=BASE)
        path += ((candidate, seen),)

    assert len(taken(asked, path).kept) == 3


def test_without_an_int8_file_the_other_schemes_are_tried() -> None:
    path: search.Path = ()
    while (candidate := search.next_candidate(problem(6), path)) is not None:
        seen = Observation(refused="no") if candidate.scheme is INT8 else Observation(drop=0.0, size_bytes=BASE)
        path += ((candidate, seen),)

    assert [candidate.scheme for candidate, _ in path] == [INT8, DYNAMIC, FLOAT16, INT16X8]


def test_only_the_schemes_that_are_asked_for_are_tried() -> None:
    without_int8 = searched(problem(9, schemes=(FLOAT16,)), lambda _: 0.0)
    only_int8 = searched(problem(9, schemes=(INT8,)), lambda kept: 0.5 - 0.07 * len(kept))

    assert [candidate.scheme for candidate, _ in without_int8] == [FLOAT16]
    assert {candidate.scheme for candidate, _ in only_int8} == {INT8}


def test_where_integer_edges_alone_lose_too_much_int8_is_tried_again_between_float_ones() -> None:
    asked = problem(8, float_edges=True, schemes=(INT8,))
    enough = (
        (Candidate(scheme=INT8), Observation(drop=0.5)),
        (Candidate(scheme=INT8, float_edges=True), Observation(drop=0.0)),
    )

    path = searched(asked, lambda kept: 0.02 - 0.01 * len(kept))

    assert [(candidate.kept, candidate.float_edges) for candidate, _ in path] == [
        ((), False),
        ((), True),
        ((0,), True),
    ]
    assert search.next_candidate(asked, enough) is None


def test_the_number_of_steps_is_bounded() -> None:
    assert len(searched(problem(100, max_steps=7), lambda _: 0.5)) == 7


def observed(*entries: tuple[float, int, int]) -> search.Path:
    return tuple(
        (Candidate(scheme=INT8, kept=(i,)), Observation(drop=drop, size_bytes=size, latency_ns=latency))
        for i, (drop, size, latency) in enumerate(entries)
    )


@pytest.mark.parametrize(
    ("prefer", "entries", "best"),
    [
        (Prefer.SIZE, [(0.0, 2000, 100), (0.009, 1000, 900)], 1),
        (Prefer.SIZE, [(0.0, 1010, 100), (0.009, 1000, 900)], 0),
        (Prefer.SIZE, [(0.005, 1000, 100), (0.001, 1000, 103)], 1),
        (Prefer.SIZE, [(0.02, 1000, 100), (0.001, 3000, 103)], 1),
        (Prefer.LATENCY, [(0.0, 2000, 100), (0.0, 1000, 900)], 0),
        (Prefer.LATENCY, [(0.0, 2000, 100), (0.0, 1000, 104)], 1),
    ],
)
def test_among_those_that_meet_the_bound_size_or_latency_decides(
    prefer: Prefer, entries: list[tuple[float, int, int]], best: int
) -> None:
    path = observed(*entries)

    chosen = search.choose(problem(3), path, prefer)

    assert chosen[0] == path[best][0]
    assert set(chosen) == {candidate for candidate, seen in path if seen.drop <= 0.01}


def test_the_pareto_set_is_what_nothing_beats_everywhere() -> None:
    path = observed((0.0, 1000, 100), (0.0, 1000, 101), (0.1, 900, 100), (0.1, 900, 100), (0.2, 2000, 50))

    assert {candidate.kept for candidate in search.pareto(path)} == {(0,), (2,), (3,), (4,)}


def test_by_size_layers_are_ranked_by_what_they_gain_per_byte_and_by_latency_by_error_alone() -> None:
    layers = [
        Layer(name="large", op="CONV_2D", error=0.5, extra_bytes=100_000),
        Layer(name="small", op="CONV_2D", error=0.4, extra_bytes=100),
        Layer(name="idle", op="ADD", error=0.0, extra_bytes=0),
    ]

    by_size = search.ranked(layers, Prefer.SIZE, size_bytes=200_000)
    by_latency = search.ranked(layers, Prefer.LATENCY, size_bytes=200_000)

    assert [layer.name for layer in by_size] == ["small", "large", "idle"]
    assert [layer.name for layer in by_latency] == ["large", "small", "idle"]


def test_a_layers_error_is_the_power_of_what_it_adds_summed_over_the_outputs() -> None:
    expected = [(np.array([3.0, 4.0]), np.array([2.0])), (np.array([0.0, 0.0]), np.array([0.0]))]
    actual = [(np.array([3.0, 4.5]), np.array([2.0])), (np.array([0.0, 0.0]), np.array([1.0]))]

    assert ranking.noise(expected, actual) == pytest.approx(0.25 / 25 + 1 / 4)
    assert ranking.noise(expected, expected) == 0.0


def test_an_answer_that_is_no_number_is_the_worst_of_all() -> None:
    assert ranking.noise([(np.ones(2),)], [(np.array([1.0, np.nan]),)]) > 1e9
    assert ranking.noise([(np.array([np.nan, 2.0]),)], [(np.array([7.0, 2.0]),)]) == 0.0


def test_the_interval_holds_the_drop_and_narrows_with_the_samples() -> None:
    """Against the paper's formula by hand: lost 20, won 8 of 500: d* = 12/502, se = sqrt(29 - 144/502)/502."""
    found = intervals.paired(lost=20, won=8, samples=500)
    wider = intervals.paired(lost=2, won=1, samples=50)

    assert found.low == pytest.approx(0.0239044 - 1.959964 * 0.0106744, abs=1e-5)
    assert found.high == pytest.approx(0.0239044 + 1.959964 * 0.0106744, abs=1e-5)
    assert wider.high - wider.low > found.high - found.low


def test_nothing_lost_on_few_samples_is_not_proof() -> None:
    assert intervals.paired(lost=0, won=0, samples=100).high > 0.01
    assert intervals.paired(lost=0, won=0, samples=10_000).high < 0.001


@pytest.mark.parametrize(("max_drop", "samples", "lost"), [(0.01, 420, 4), (0.01, 100, 1), (0.07, 100, 7), (0, 9, 0)])
def test_a_bound_is_so_many_samples(max_drop: float, samples: int, lost: int) -> None:
    assert intervals.at_stake(max_drop, samples) == lost


def test_data_are_split_only_where_each_half_still_tells_the_bound() -> None:
    assert not intervals.is_enough_to_split(0.01, 420)
    assert not intervals.is_enough_to_split(0.0, 100_000)
    assert intervals.is_enough_to_split(0.01, 1000)


def test_every_class_goes_half_to_each_side_and_every_sample_to_one() -> None:
    labels = [0] * 10 + [1] * 7 + [2] * 3

    one, other = splits.halves(labels)

    assert sorted((*one, *other)) == list(range(20))
    assert splits.halves(labels) == (one, other)
    for label, side in itertools.product((0, 1, 2), (one, other)):
        share = sum(labels[place] == label for place in side) / labels.count(label)
        assert 0.3 < share < 0.7
