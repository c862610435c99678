"""Many samples are answered in batches by every core, with the very answers of one at a time. Nothing is timed here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests import catalogue, models_made
from tests.host.bundles import making
from tflotilla.host.models import flatbuffer
from tflotilla.host.models.evaluate import EvaluationRequest, evaluate
from tflotilla.host.models.evaluation import answering, batching
from tflotilla.host.models.evaluation.feeding import Feeder, Samples
from tflotilla.host.models.inspect import inspect_model
from tflotilla.shared.contract.errors import DatasetError, UsageError
from tflotilla.shared.contract.processing import Postprocessing
from tflotilla.shared.contract.tensors import TensorSpec
from tflotilla.shared.inference import preprocessing, runtime
from tflotilla.shared.inference.postprocessing import Answerer
from tflotilla.shared.inference.runtime import LoadOptions
from tflotilla.shared.statistics import minimum_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tflotilla.shared.inference.runtime import LoadedModel

LITERT = "ai-edge-litert"
UNIT = preprocessing.parse("unit", channels=1)
COUNT = 3000
MODELS = ("tiny_classifier_float", "tiny_classifier", "tiny_classifier_float_dynamic")


def images(count: int = COUNT) -> NDArray[np.uint8]:
    """Return patterns that are half noise: the models get many of them wrong."""
    random = np.random.default_rng(3)
    noise = random.integers(0, 256, (count, models_made.SIDE, models_made.SIDE))
    clean = np.stack([models_made.pattern(number % models_made.CLASSES) for number in range(count)])
    return np.where(random.random(noise.shape) < 0.7, noise, clean).astype(np.uint8)


def one_by_one(file: Path, pixels: NDArray[np.uint8]) -> NDArray[Any]:
    """Return the scores of the published loop: one image, one invoke, one argmax at a time."""
    loaded = runtime.find(LITERT).load(file, LoadOptions())
    prepare = preprocessing.Preprocessor(UNIT, loaded.inputs[0]).prepare_pixels
    scores = []
    for image in pixels:
        loaded.set_inputs((prepare(image[np.newaxis, :, :, np.newaxis]),))
        loaded.invoke()
        scores.append(loaded.get_outputs()[0])
    return np.stack(scores)


class Collecting:
    """A judge that keeps everything."""

    def __init__(self) -> None:
        self.seen: dict[int, NDArray[Any]] = {}
        self.chunks = 0

    def look(self, rows: NDArray[np.int64], outputs: Sequence[Any]) -> dict[int, NDArray[Any]]:
        return {int(row): np.array(scores) for row, scores in zip(rows, outputs[0][0], strict=True)}

    def add(self, seen: dict[int, NDArray[Any]]) -> None:
        assert not self.seen.keys() & seen.keys(), "a sample was answered twice"
        self.seen |= seen
        self.chunks += 1


class Watched:
    """A runtime that counts how it is used; in batches it gives other bits when told to."""

    def __init__(self, *, dishonest: bool = False) -> None:
        self._engine = runtime.find(LITERT)
        self._dishonest = dishonest
        self.offer = self._engine.offer
        self.batches = 0

    def load(self, model: Path | bytes, options: LoadOptions) -> LoadedModel:
        loaded = self._engine.load(model, options)
        return _Batched(self, loaded, dishonest=self._dishonest) if isinstance(model, bytes) else loaded


class _Batched:
    def __init__(self, watched: Watched, loaded: LoadedModel, *, dishonest: bool) -> None:
        self._watched = watched
        self._dishonest = dishonest
        self.inputs, self.outputs, self.delegated_nodes = loaded.inputs, loaded.outputs, loaded.delegated_nodes
        self.set_inputs = loaded.set_inputs
        self._loaded = loaded

    def invoke(self) -> None:
        self._watched.batches += 1
        self._loaded.invoke()

    def get_outputs(self) -> tuple[NDArray[Any], ...]:
        outputs = self._loaded.get_outputs()
        if self._dishonest:
            outputs[0][0, 0] += 1
        return outputs


def answered(
    file: Path, pixels: NDArray[np.uint8], *, variable: bool = False, engine: Watched | None = None
) -> tuple[Collecting, int]:
    """Answer everything, and return how many runs were timed."""
    samples = Samples(path=Path("x.npz"), arrays=(pixels,))
    inspection = inspect_model(file)
    if variable:
        remembering = dataclasses.replace(inspection.tensors[0], variable=True)
        inspection = dataclasses.replace(inspection, tensors=(remembering, *inspection.tensors[1:]))
    engine = engine or Watched()
    loaded = engine.load(file, LoadOptions())
    judge = Collecting()
    stages = answering.run(
        engine,
        [answering.Competitor(file=file, inspection=inspection, feeder=Feeder(samples, inspection.inputs, UNIT))],
        samples,
        judge,
        loaded=loaded,
        answerer=Answerer(Postprocessing(), loaded.outputs, ()),
        num_threads=1,
    )
    return judge, len(stages["invoke"])


@pytest.mark.parametrize("name", MODELS)
def test_every_answer_has_the_bits_of_the_loop(tmp_path: Path, name: str) -> None:
    file, pixels = making.model(tmp_path, name), images()

    engine = Watched()

    judge, timed = answered(file, pixels, engine=engine)

    expected = one_by_one(file, pixels)
    assert timed == minimum_runs(99)
    assert judge.chunks > 2
    assert 0 < engine.batches < (COUNT - timed) / 10
    assert np.array_equal(np.stack([judge.seen[row] for row in range(COUNT)]), expected)


def test_where_a_batch_gives_other_bits_everything_is_run_singly(tmp_path: Path) -> None:
    file, pixels = making.model(tmp_path, "tiny_classifier"), images()
    engine = Watched(dishonest=True)

    judge, _ = answered(file, pixels, engine=engine)

    assert engine.batches == 1, "a batch is tried once"
    assert np.array_equal(np.stack([judge.seen[row] for row in range(COUNT)]), one_by_one(file, pixels))


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_gives_the_bits_of_one_at_a_time(tmp_path: Path, name: str) -> None:
    file, pixels = making.model(tmp_path, name), images(batching.size(inspect_model(making.model(tmp_path, name))))

    data = batching.rebatched(file.read_bytes(), len(pixels))

    assert data is not None
    together = runtime.find(LITERT).load(data, LoadOptions())
    together.set_inputs(
        (preprocessing.Preprocessor(UNIT, inspect_model(file).inputs[0]).prepare_pixels(pixels[..., np.newaxis]),)
    )
    together.invoke()
    assert np.array_equal(together.get_outputs()[0], one_by_one(file, pixels)[:, 0])


def test_the_accuracy_is_that_of_the_loop(tmp_path: Path) -> None:
    files = tuple(making.model(tmp_path, name) for name in MODELS)
    pixels, labels = images(), np.arange(COUNT) % models_made.CLASSES
    np.savez(tmp_path / "x.npz", x=pixels, y=labels)

    report = evaluate(EvaluationRequest(models=files, data=tmp_path / "x.npz", preprocess="unit", runtimes=(LITERT,)))

    for score, file in zip(report.scores, files, strict=True):
        expected = float((one_by_one(file, pixels).reshape(COUNT, -1).argmax(axis=1) == labels).mean())
        assert 0.2 < expected < 0.99
        assert (score.accuracy, score.samples) == (expected, COUNT)
        assert score.stages["invoke"].count == minimum_runs(99)
        assert score.enough_for_p99


def test_a_model_that_remembers_is_run_in_order_and_alone(tmp_path: Path) -> None:
    judge, timed = answered(making.model(tmp_path, "tiny_classifier"), images(800), variable=True)

    assert (timed, judge.chunks) == (800, 1)


def edited(name: str, edit: Any) -> bytes:  # noqa: ANN401 - a function of generated code's objects
    model = flatbuffer.read(models_made.read(name))
    edit(model)
    return flatbuffer.write(model)


def _reshaped(model: Any, wanted: list[int]) -> None:  # noqa: ANN401 - generated code
    """Put a RESHAPE to a constant shape before the first operator, as converters do for Flatten."""
    graph, schema = model.subgraphs[0], flatbuffer.SCHEMA
    shape, flat = schema.TensorT(), schema.TensorT()
    shape.name, flat.name, flat.shape = b"shape", b"flat", np.array([1, 64], np.int32)
    graph.tensors += [shape, flat]
    flatbuffer.set_constant(model, shape, np.array(wanted, np.int32))
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    code.version = 1
    model.operatorCodes.append(code)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = [graph.inputs[0], len(graph.tensors) - 2], [len(graph.tensors) - 1]
    graph.operators[0].inputs = [len(graph.tensors) - 1, *graph.operators[0].inputs[1:]]
    graph.operators.insert(0, operator)


def _batch_of_two(model: Any) -> None:  # noqa: ANN401 - generated code
    model.subgraphs[0].tensors[0].shape = np.array([2, 8, 8, 1], np.int32)


def test_a_reshape_to_one_row_becomes_one_to_many(tmp_path: Path) -> None:
    data = edited("tiny_classifier_float", lambda model: _reshaped(model, [1, 64]))
    (tmp_path / "m.tflite").write_bytes(data)
    pixels = images(8)

    wide = batching.rebatched(data, 8)

    assert wide is not None
    loaded = runtime.find(LITERT).load(wide, LoadOptions())
    loaded.set_inputs(((pixels[..., np.newaxis] / 255).astype(np.float32),))
    loaded.invoke()
    assert np.array_equal(loaded.get_outputs()[0], one_by_one(tmp_path / "m.tflite", pixels)[:, 0])


@pytest.mark.parametrize(
    "data",
    [
        models_made.read("custom_op"),
        edited("tiny_classifier_float", lambda model: _reshaped(model, [64, 1])),
        edited("tiny_classifier_float", _batch_of_two),
        edited("tiny_classifier_float", lambda model: model.subgraphs.append(model.subgraphs[0])),
    ],
    ids=["an unknown op", "a reshape of the batch", "a batch of two already", "control flow"],
)
def test_graphs_that_may_mix_samples_are_left_alone(data: bytes) -> None:
    assert batching.rebatched(data, 8) is None


def feeding(array: NDArray[Any], shape: tuple[int, ...], dtype: Any = "float32", preprocess: Any = UNIT) -> Any:  # noqa: ANN401
    spec = TensorSpec(name="x", shape=shape, dtype=dtype)
    return Feeder(Samples(path=Path("x.npz"), arrays=(array,)), (spec,), preprocess).many(slice(0, len(array)))[0]


def test_arrays_feed_flattened_and_channels_first_inputs_by_their_shape() -> None:
    pixels = images(3)
    expected = (pixels / 255).astype(np.float32)

    for shape in ((1, 8, 8, 1), (-1, 8, 8), (1, 64), (1, 1, 8, 8)):
        fed = feeding(pixels, shape)
        assert fed.shape == (3, *(abs(size) for size in shape))
        assert np.array_equal(fed.reshape(3, 8, 8), expected)
    assert np.array_equal(feeding(pixels.reshape(3, 64), (1, 8, 8, 1)).reshape(3, 8, 8), expected)


def test_other_shapes_are_refused_with_what_to_do() -> None:
    colours = np.zeros((2, 8, 4, 3), np.uint8)
    rgb = preprocessing.parse("unit")

    with pytest.raises(DatasetError, match=r"shape \(8, 4, 3\), the model takes \(1, 3, 8, 4\); .* transpose"):
        feeding(colours, (1, 3, 8, 4), preprocess=rgb)
    with pytest.raises(UsageError, match="treats the channels differently"):
        feeding(colours.transpose(0, 3, 1, 2), (1, 3, 8, 4), preprocess=preprocessing.parse("unit,mean=1:2:3"))
    with pytest.raises(DatasetError, match=r"shape \(9,\), the model takes \(1, 8, 8, 1\)"):
        feeding(np.zeros((2, 9)), (1, 8, 8, 1))
    with pytest.raises(DatasetError, match="sample 1 holds NaN or infinity"):
        feeding(np.array([[0.0], [np.nan]]), (1, 1))


@pytest.mark.catalogue
def test_mnists_own_files_are_labelled_data(tmp_path: Path) -> None:
    folder = catalogue.path("data/mnist")
    # Any model of ten classes will do: (28, 28) must not fit this one's (8, 8).
    model = making.model(tmp_path, "tiny_classifier")

    with pytest.raises(DatasetError, match=r"a sample has shape \(28, 28\), the model takes \(1, 8, 8, 1\)"):
        evaluate(EvaluationRequest(models=(model,), data=folder, preprocess="unit", runtimes=(LITERT,)))
