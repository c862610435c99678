"""Graphs of TensorFlow 1 whose ops TFLite doesn't have: rewritten, they compute the same on every runtime."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests import catalogue
from tests.host.models import made_graphs
from tflotilla.host.models import child
from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")

MTCNN, PICTURE = "models/detection/mtcnn.pb", "models/detection/mtcnn_test_image.jpg"
#: Case → the beginning of the only error it may give.
REFUSED = {
    "concatenated_backwards": "while/TensorArrayWrite/TensorArrayWriteV3: TensorArrayWriteV3 of an array that is conca",
    "crops_of_a_size_that_is_computed": "out: CropAndResize to a size that is computed",
}
#: Absolute; pictures hold 0 … 255.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, dict[str, str]]]:
    """Everything with one load of TensorFlow, and each runtime's answers from one child."""
    folder = tmp_path_factory.mktemp("graphs")
    real = [catalogue.ROOT / MTCNN, catalogue.ROOT / PICTURE]
    faces = [str(path) for path in real] if all(path.exists() for path in real) else None
    failed: dict[str, dict[str, str]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        module, where = "tests.host.models.made_graphs", {"folder": str(folder)}
        found = child.call(f"{module}:attempt", where | {"faces": faces})
        for runtime in made_graphs.RUNTIMES:
            try:
                failed[runtime] = child.call(f"{module}:answer", where | {"runtime": runtime})
            except BoardError:
                continue  # tflite-runtime ends at Python 3.11
    return folder, found, failed


def _answers(made: tuple[Path, Any, dict[str, dict[str, str]]], name: str) -> dict[str, list[list[NDArray[Any]]]]:
    """Return runtime → its answers to each of the case's inputs."""
    folder, _, failed = made
    assert failed, "no runtime is installed"
    assert {runtime: errors.get(name) for runtime, errors in failed.items()} == dict.fromkeys(failed)
    return {runtime: made_graphs.load(folder / f"{name}.{runtime}.npz", "out") for runtime in failed}


@pytest.mark.parametrize("name", sorted(made_graphs.CASES.keys() - REFUSED.keys()))
def test_a_rewritten_graph_computes_what_tensorflow_does(name: str, made: tuple[Path, Any, Any]) -> None:
    assert made[1][name].get("message") is None

    expected = made_graphs.load(made[0] / f"{name}.npz", "out")
    for runtime, answers in _answers(made, name).items():
        for number, (source, file) in enumerate(zip(expected, answers, strict=True)):
            for a, b in zip(source, file, strict=True):
                np.testing.assert_allclose(b, a, atol=TOLERANCE, err_msg=f"{runtime}, input {number}")


def test_a_size_that_the_input_decides_is_followed(made: tuple[Path, Any, Any]) -> None:
    rows = [len(sample[0]) for sample in made_graphs.load(made[0] / "as_many_as_asked.npz", "out")]

    assert rows == [4, 1, 0, 9]
    for answers in _answers(made, "as_many_as_asked").values():
        assert [len(sample[0]) for sample in answers] == rows


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_can_not_be_rewritten_is_refused_by_the_name_of_its_node(name: str, made: tuple[Path, Any, Any]) -> None:
    assert made[1][name].get("error") == "ConversionError"
    assert made[1][name]["message"].startswith(REFUSED[name])
    assert "\n" not in made[1][name]["message"]


def test_what_was_rewritten_is_said(made: tuple[Path, Any, Any]) -> None:
    said = made[1]["detector"]["notes"]

    assert "CropAndResize (1) is computed by gathers" in said
    assert "NonMaxSuppression (1) is computed by its version 4" in said


def test_dropout_is_left_out_and_its_inputs_with_it(made: tuple[Path, Any, Any]) -> None:
    assert made[1]["dropout"]["inputs"] == ["row"]
    assert "dropout (2) left out: it is for training" in made[1]["dropout"]["notes"]


def test_only_a_loop_that_waits_for_a_value_may_run_for_ever(made: tuple[Path, Any, Any]) -> None:
    assert made[1]["rows_found_in_each_step"]["loops"]
    assert not made[1]["recurrent"]["loops"]


def _overlaps(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return the intersection over union of every box of `a` (top, left, bottom, right) with every one of `b`."""
    begin, end = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(end - begin, 0, None), 2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], 1) for boxes in (a, b)]
    overlaps: NDArray[Any] = common / (areas[0][:, None] + areas[1][None] - common)
    return overlaps


@pytest.mark.catalogue
@pytest.mark.parametrize(("name", "least"), [("faces", 0.99), ("faces_smaller", 0.7)])
def test_the_faces_of_a_real_picture_are_found(name: str, least: float, made: tuple[Path, Any, Any]) -> None:
    catalogue.path(MTCNN)
    expected = [sample[0] for sample in made_graphs.load(made[0] / f"{name}.npz", "out")]
    assert [len(boxes) for boxes in expected] == [6, 0, 0, 0, 6]

    for runtime, answers in _answers(made, name).items():
        boxes, scores, landmarks = answers[-1]
        assert (scores.shape, landmarks.shape) == ((6,), (6, 10)), runtime
        assert _overlaps(expected[-1], boxes).max(1).min() > least, runtime


@pytest.mark.catalogue
@pytest.mark.parametrize("name", ["faces", "faces_smaller"])
def test_pictures_without_a_face_have_none_and_do_no_harm(name: str, made: tuple[Path, Any, Any]) -> None:
    catalogue.path(MTCNN)

    for answers in _answers(made, name).values():
        assert [[output.shape for output in sample] for sample in answers[1:4]] == [[(0, 4), (0,), (0, 10)]] * 3
        np.testing.assert_array_equal(answers[0][0], answers[4][0])
