"""What calibration data do to a model: what is counted, what is judged, and one whole report of a real network."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests import catalogue
from tflotilla.host.models import samples
from tflotilla.host.models.calibration import curve, evidence, ranges, rivals, saturation, suspicion
from tflotilla.host.models.calibration.curve import CurvePoint
from tflotilla.host.models.calibration.evidence import Evidence, Fit
from tflotilla.host.models.calibration.memories import Moments
from tflotilla.shared.inference import preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.shared.contract.processing import Preprocessing

UNIT, MOBILENET, RAW = (preprocessing.PRESETS[name] for name in ("unit", "mobilenet", "raw"))


def observed(values: list[Any], op: str = "CONV_2D") -> ranges.TensorRange:
    seen = ranges.Observed(tensor="t", op=op, operator=3)
    for value in values:
        seen.add(np.asarray(value, dtype=np.float32))
    found = seen.result()
    assert found is not None
    return found


def test_ranges_are_exact_over_all_samples() -> None:
    found = observed([[[0.0, 1.0], [0.0, -3.0]], [[0.0, 5.0], [0.0, 0.0]]])

    assert (found.minimum, found.maximum, found.shape, found.operator) == (-3.0, 5.0, (2, 2), 3)
    assert (found.zero_share, found.dead_channels, found.channels, found.constant) == (5 / 8, 1, 2, False)


def test_one_far_value_rules_a_range_and_many_do_not() -> None:
    bulk = np.linspace(-1, 1, 20_000).reshape(-1, 1)
    lonely = observed([bulk, [[50.0]]])
    common = observed([bulk, np.full((2000, 1), 50.0)])

    assert lonely.ruled_by_outliers
    assert lonely.bulk_share < 0.1
    assert not common.ruled_by_outliers


def test_the_range_of_a_softmax_is_fixed_whatever_its_values() -> None:
    assert not observed([np.linspace(0, 0.01, 5000).reshape(-1, 1), [[1.0]]], op="SOFTMAX").ruled_by_outliers


def test_constant_tensors_and_empty_ones_are_told() -> None:
    nothing = ranges.Observed(tensor="t", op="ADD", operator=0)
    nothing.add(np.empty((0, 4), np.float32))

    assert observed([[[2.0, 2.0]], [[2.0, 2.0]]]).constant
    assert nothing.result() is None


def test_tensors_ruled_by_outliers_come_first_and_fixed_ranges_last() -> None:
    lonely = observed([np.linspace(-1, 1, 20_000).reshape(-1, 1), [[50.0]]])
    fixed = observed([np.linspace(0, 0.01, 5000).reshape(-1, 1), [[1.0]]], op="SOFTMAX")
    plain = observed([np.linspace(-1, 1, 100).reshape(-1, 1)])

    assert ranges.worst_first([fixed, plain, lonely]) == (lonely, plain, fixed)


def held_out(values: list[float], scale: float = 0.1, zero_point: int = -128) -> saturation.TensorSaturation:
    outside = saturation.HeldOut(
        tensor="t", op="ADD", operator=1, calibrated=saturation.limits("int8", scale, zero_point)
    )
    outside.add(np.asarray(values, dtype=np.float32))
    found = outside.result()
    assert found is not None
    return found


def test_what_an_int8_tensor_can_not_hold_is_counted_exactly() -> None:
    found = held_out([-1.0, 0.0, 25.5, 25.54, 25.6, 30.0])

    assert (found.lowest, round(found.highest, 6)) == (0.0, 25.5)
    assert found.clipped_share == 3 / 6
    assert round(found.beyond, 3) == round(4.5 / 25.5, 3)
    assert found.saturated


def test_few_values_a_little_outside_do_not_saturate_and_a_far_peak_does() -> None:
    inside = [1.0] * 5000

    assert not held_out([*inside, 26.0]).saturated
    assert held_out([*inside, 40.0]).saturated
    assert not held_out(inside).saturated


@pytest.mark.parametrize("total", [1, 2, 3, 7, 10, 64, 100])
def test_every_beginning_of_the_order_is_spread_over_the_data(total: int) -> None:
    order = curve.spread_order(total)

    assert sorted(order) == list(range(total))
    assert [place // 2 for place in sorted(order[: curve.half(total)])] == list(range(curve.half(total)))
    assert order == curve.spread_order(total)


def test_classes_that_come_in_turns_are_in_both_halves() -> None:
    order = curve.spread_order(100)

    assert 10 < sum(place % 2 for place in order[:50]) < 40


def test_the_ladder_ends_with_all_samples() -> None:
    assert [curve.ladder(total) for total in (1, 2, 7, 100)] == [
        (1,), (1, 2), (1, 2, 5, 7), (1, 2, 5, 10, 20, 50, 100),
    ]  # fmt: skip


def points(*values: tuple[int, float, float]) -> list[CurvePoint]:
    return [CurvePoint(samples=n, sqnr_db=db, agreement=share) for n, db, share in values]


def test_more_samples_change_nothing_from_where_all_later_figures_are_the_last() -> None:
    found = points((1, 12.0, 0.8), (2, 20.3, 0.98), (5, 18.0, 0.98), (10, 20.0, 0.98), (20, 20.4, 1.0))

    assert curve.enough(found, compared_on=50, labelled=0) == 10


def test_differences_above_good_are_none_and_the_last_step_may_still_count() -> None:
    good = points((1, 41.0, 1.0), (2, 55.0, 1.0))
    climbing = points((1, 10.0, 1.0), (2, 20.0, 1.0))

    assert curve.enough(good, compared_on=50, labelled=0) == 1
    assert curve.enough(climbing, compared_on=50, labelled=0) is None
    assert curve.enough(good[:1], compared_on=50, labelled=0) is None


@pytest.mark.parametrize(
    "text", ["raw", "unit,resize=crop", "mobilenet,colour=bgr", "mean=255,std=-255", "raw,draft=true"]
)
def test_what_is_spelled_is_what_is_parsed(text: str) -> None:
    chosen = preprocessing.parse(text)

    assert preprocessing.parse(rivals.spell(chosen)) == chosen
    assert rivals.spell(chosen) == text


def test_a_rival_is_computed_from_what_was_given_as_if_from_the_pixels() -> None:
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8))

    def make(chosen: Preprocessing) -> Any:  # noqa: ANN401 - an array
        return preprocessing.to_real(pixels, chosen, height=6, width=5)

    for given in rivals.rivals(UNIT):
        for rival in rivals.rivals(MOBILENET):
            assert np.allclose(rivals.transfer(make(given), given, rival), make(rival), atol=1e-3)


def test_rivals_keep_the_resizing_and_are_given_once() -> None:
    found = rivals.rivals(preprocessing.parse("mean=127,std=127.5,resize=pad"))

    assert {each.resize for each in found} == {"pad"}
    assert sum(rivals.same(each, MOBILENET) for each in found) == 1
    assert len(found) == 12


@pytest.mark.parametrize(
    ("least", "greatest", "name"),
    [(0, 255, "raw"), (0, 1, "unit"), (-1, 1, "mobilenet"), (-0.5, 0.5, "squeezenet"), (-3, 900, None)],
)
def test_the_range_of_floats_tells_their_preset(least: float, greatest: float, name: str | None) -> None:
    expected = None if name is None else preprocessing.PRESETS[name]

    assert rivals.guess(least, greatest, channels=3) == expected


def moments(mean: float, variance: float) -> Moments:
    return Moments(mean=np.full(4, mean), variance=np.full(4, variance))


def test_what_is_remembered_has_no_misfit_and_what_is_far_much() -> None:
    remembered = moments(1.0, 2.0)

    assert evidence.misfit(remembered, remembered) == 0.0
    assert evidence.misfit(remembered, moments(300.0, 2.0)) == 50.0
    assert evidence.misfit(remembered, moments(1.0, 0.0)) > 2


def test_a_memory_of_few_steps_is_read_without_its_beginning() -> None:
    left = 0.8
    remembered = moments((1 - left) * 0.3, (1 - left) * 0.05 + left)

    assert evidence.misfit(remembered, moments(0.3, 0.05)) > 0.5
    assert evidence.kindest(remembered, moments(0.3, 0.05))[0] < 0.05
    assert evidence.kindest(remembered, moments(80.0, 3000.0))[0] > 2


def test_answers_are_read_from_probabilities_logits_and_one_sigmoid() -> None:
    logits = [np.array([9.0, 0.0, 0.0]), np.array([-1.0, 8.0, -1.0])]
    shares = [np.exp(row) / np.exp(row).sum() for row in logits]
    from_logits, from_shares = (evidence.answers(rows) for rows in (logits, shares))
    sigmoid = evidence.answers([np.array([0.99]), np.array([0.02])])

    assert from_logits is not None
    assert from_shares is not None
    assert sigmoid is not None
    assert round(from_logits.margin, 3) == round(from_shares.margin, 3) == 9.0
    assert from_shares.information == pytest.approx(np.log(2), abs=0.02)
    assert sigmoid.confidence == pytest.approx(0.985)


def test_outputs_that_are_no_classes_are_no_answers() -> None:
    assert evidence.answers([np.array([3.0, 5.0]), np.array([1.0, 9.0])]) is None
    assert evidence.answers([np.array([np.nan, 1.0])]) is None
    assert evidence.answers([]) is None


def fitted(*fits: tuple[str, float], brightness: float = 120.0, samples: int = 32) -> Evidence:
    return Evidence(
        samples=samples,
        fits=tuple(Fit(preprocessing=preprocessing.parse(text), misfit=value) for text, value in fits),
        layer="bn",
        brightness=brightness,
        warmth=20.0,
        order_known=True,
    )


def test_a_range_is_doubted_only_when_another_fits_far_better() -> None:
    doubted = suspicion.judge(fitted(("unit", 0.5), ("mobilenet", 0.05)))
    unclear = suspicion.judge(fitted(("unit", 0.5), ("mobilenet", 0.4)))
    fine = suspicion.judge(fitted(("unit", 0.1), ("mobilenet", 0.01)))
    few = suspicion.judge(fitted(("unit", 0.5), ("mobilenet", 0.2), samples=5))

    assert [warning.preprocess for warning in doubted] == ["mobilenet"]
    assert (unclear, fine, few) == ((), (), ())


def test_very_bright_pictures_are_not_taken_for_shifted_ones() -> None:
    fits = (("raw", 0.4), ("mean=123.68:116.779:103.939,std=1", 0.03))

    assert suspicion.judge(fitted(*fits, brightness=216.0)) == ()
    assert len(suspicion.judge(fitted(*fits))) == 1


def test_what_no_preprocessing_explains_is_said_without_advice() -> None:
    (warning,) = suspicion.judge(fitted(("unit", 18.0), ("mobilenet", 17.0)))

    assert warning.preprocess is None
    assert "no known preprocessing explains them" in warning.message


def test_labels_decide_where_there_are_some() -> None:
    def with_accuracy(*values: float, labelled: int) -> Evidence:
        fits = [
            Fit(preprocessing=preprocessing.parse(text), misfit=0.0, accuracy=value)
            for text, value in zip(("unit", "mobilenet"), values, strict=True)
        ]
        return Evidence(samples=32, fits=tuple(fits), layer="bn", labelled=labelled)

    (warning,) = suspicion.judge(with_accuracy(0.4, 0.9, labelled=200))

    assert "40% are right with unit, 90% with mobilenet" in warning.message
    assert suspicion.judge(with_accuracy(0.89, 0.9, labelled=200)) == ()
    assert suspicion.judge(with_accuracy(0.5, 0.8, labelled=4)) == ()


def test_equal_and_empty_samples_are_warned_of() -> None:
    assert suspicion.about_samples(30, 30, 0) == ()
    assert "all 5 calibration samples are equal" in suspicion.about_samples(1, 5, 0)[0].message
    assert "only 2 of 6 calibration samples differ" in suspicion.about_samples(2, 6, 0)[0].message
    assert "3 of 6 calibration samples are one and the same number" in suspicion.about_samples(6, 6, 3)[0].message


def test_a_limit_takes_pictures_of_every_class_folder(tmp_path: Path) -> None:
    paths = [tmp_path / "many" / f"{i:03}.png" for i in range(200)]
    paths += [tmp_path / "nested" / "few" / f"{i}.png" for i in range(2)] + [tmp_path / "zebra" / "0.png"]
    chosen = samples.spread(paths, 10)

    assert len(set(chosen)) == 10
    assert {path.parent.name for path in chosen} == {"many", "few", "zebra"}
    assert samples.spread(paths, 500) == tuple(paths)


def calibrate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tflotilla.host", "calibrate", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One whole report: a real network, photos of another kind, and the wrong range."""
    folder = tmp_path_factory.mktemp("calibrated")
    done = calibrate(
        catalogue.path("models/mlperf_tiny/resnet8_cifar10/pretrainedResnet.h5"),
        *("--calibration", catalogue.path("data/flower_photos_subset"), "--preprocess", "unit"),
        *("--samples", 20, "--plot", folder / "curve.svg", "--json"),
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return folder, found


def test_a_real_report_doubts_the_range_of_the_pictures(report: tuple[Path, dict[str, Any]]) -> None:
    (warning,) = report[1]["warnings"]

    assert (warning["kind"], warning["preprocess"]) == ("range", "raw")


def test_a_real_report_names_every_tensor_and_its_operator(report: tuple[Path, dict[str, Any]]) -> None:
    _, found = report

    assert {entry["op"] for entry in found["ranges"]} == {
        *("INPUT", "CONV_2D", "ADD", "AVERAGE_POOL_2D", "FULLY_CONNECTED", "SOFTMAX")
    }
    assert all(entry["minimum"] <= entry["low"] <= entry["high"] <= entry["maximum"] for entry in found["ranges"])
    # Every convolution has a scale of its own in the int8 file, found by name.
    assert sum(entry["op"] == "CONV_2D" for entry in found["saturation"]) == 9
    assert (found["calibrated_with"], found["held_out"]) == (10, 10)


def test_a_real_report_follows_the_number_of_samples(report: tuple[Path, dict[str, Any]]) -> None:
    _, found = report

    assert [point["samples"] for point in found["curve"]] == [1, 2, 5, 10, 20]
    assert all(point["sqnr_db"] is not None and 0 <= point["agreement"] <= 1 for point in found["curve"])
    assert (found["compared_on"], found["compared_on_held_out"]) == (50, True)


def test_a_real_report_is_plotted(report: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = report

    assert all("<svg" in (folder / name).read_text()[:2000] for name in ("curve.svg", "curve-ranges.svg"))


def test_data_that_can_not_be_used_are_refused_in_one_line_before_any_work(tmp_path: Path) -> None:
    model = catalogue.path("models/mnist/mnist_model.keras")
    np.save(tmp_path / "none.npy", np.zeros((0, 28, 28, 1), np.float32))
    (tmp_path / "hollow").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").touch()
    done = [
        calibrate(model, "--calibration", tmp_path / name, "--preprocess", "unit")
        for name in ("none.npy", "hollow", "broken", "absent")
    ]

    assert [each.returncode for each in done] == [3, 3, 3, 3]
    said = [each.stderr.splitlines()[-1] for each in done]
    expected = ("none.npy: holds no samples", "hollow holds no image", "a.png is empty", "there is no such folder")
    assert all(words in line for words, line in zip(expected, said, strict=True))
    assert not any("loading TensorFlow" in each.stderr or "Traceback" in each.stderr for each in done)
