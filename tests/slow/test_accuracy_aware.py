"""Accuracy-aware quantization: models with a spoiled place, on a real runtime; and what is handed over, or said.

One child makes and searches all that needs TensorFlow; the rest is decided on findings that are made up here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from tests import models_made
from tests.host.models import made_poison
from tflotilla.host.models import child, flatbuffer, inspect
from tflotilla.host.models.accuracy_aware import half_weights, operators, quantization
from tflotilla.host.models.accuracy_aware.edges import Edges, with_edges
from tflotilla.host.models.accuracy_aware.quantization import NothingMeetsError, QuantizationRequest, quantize
from tflotilla.host.models.accuracy_aware.steps import Findings, Job, Proof, Step
from tflotilla.host.models.metrics import Metric
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import ConversionError, DatasetError, InputError, ModelError, UsageError
from tflotilla.shared.contract.tensors import QuantizationScheme
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.preprocessing import from_real
from tflotilla.shared.inference.quantization import dequantize

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

INT8, FLOAT16 = QuantizationScheme.INT8, QuantizationScheme.FLOAT16


class Made(NamedTuple):
    """What one child found."""

    folder: Path
    findings: dict[str, Findings]

    def taken(self, name: str) -> Step:
        return next(step for step in self.findings[name].steps if step.taken)

    def file(self, name: str) -> Path:
        return self.folder / name / str(self.taken(name).file)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("poison")
    found = child.call("tests.host.models.made_poison:make", {"folder": str(folder)}, timeout_s=500)
    return Made(folder, {name: codec.decode(Findings, entry, name) for name, entry in found.items()})


def layers_of(step: Step) -> set[str]:
    """Name the layers that were kept as Keras does."""
    return {layer for name in step.kept for layer in made_poison.LAYERS if layer in name.split(";")[0]}


@pytest.fixture(scope="module", autouse=True)
def _child_finds_the_tests() -> Any:  # noqa: ANN401 - a generator fixture
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        yield


@pytest.mark.tensorflow
def test_exactly_the_layer_that_int8_spoils_stays_float(made: Made) -> None:
    found, taken = made.findings["weights"], made.taken("weights")

    whole = found.steps[0]
    assert (whole.scheme, whole.kept, whole.meets) == (INT8, (), False)
    assert whole.drop is not None
    assert whole.drop > 0.2
    assert (taken.scheme, layers_of(taken), len(taken.kept)) == (INT8, {"poison"}, 1)
    assert taken.drop is not None
    assert taken.drop <= 0.02


@pytest.mark.tensorflow
def test_the_file_is_smaller_than_float_and_hardly_larger_than_int8(made: Made) -> None:
    found, size = made.findings["weights"], made.file("weights").stat().st_size

    assert size == made.taken("weights").size_bytes
    assert size < 0.6 * found.float_size_bytes
    assert size < 1.1 * (found.steps[0].size_bytes or 0)


@pytest.mark.tensorflow
def test_a_spoiled_tensor_takes_both_layers_around_it(made: Made) -> None:
    taken = made.taken("activations")

    assert layers_of(taken) == {"second", "poison"}
    assert taken.drop is not None
    assert taken.drop <= 0.02


@pytest.mark.tensorflow
def test_the_worst_layer_is_ranked_first_with_what_it_adds(made: Made) -> None:
    layers = made.findings["weights"].layers

    assert "poison" in layers[0].name
    assert len(layers) >= len(made_poison.LAYERS)
    assert layers[0].error > 10 * max(layer.error for layer in layers[1:])
    assert layers[0].extra_bytes == 24 * 32


@pytest.mark.tensorflow
@pytest.mark.parametrize(("name", "dtype"), [("weights", "uint8"), ("activations", "int8")])
def test_inputs_and_outputs_are_integers_though_layers_inside_are_float(made: Made, name: str, dtype: str) -> None:
    found = inspect.inspect_model(made.file(name))

    assert [spec.dtype for spec in (*found.inputs, *found.outputs)] == [dtype, dtype]
    assert dict(found.float_ops)


@pytest.mark.tensorflow
def test_every_variant_is_timed_beside_float(made: Made) -> None:
    found = made.findings["weights"]

    assert found.float_p50_ns
    assert all(step.p50_ns and (step.runs or 0) >= 11 for step in found.steps)


@pytest.mark.tensorflow
def test_where_nothing_meets_the_bound_nothing_is_taken(made: Made) -> None:
    found = made.findings["nothing"]

    assert [step.taken for step in found.steps] == [False, False]
    assert "nothing loses at most 1e-09: the best was int8" in quantization.nothing_meets(1e-9, found)


@pytest.mark.tensorflow
def test_the_search_goes_on_behind_a_variant_that_crashed(made: Made) -> None:
    found = made.findings["resumed"]

    assert [(step.scheme, step.refused) for step in found.steps] == [(INT8, "it died"), (FLOAT16, None)]
    assert made.taken("resumed").scheme is FLOAT16


@pytest.mark.tensorflow
def test_where_there_are_enough_samples_one_half_proves_what_the_other_found(made: Made) -> None:
    found = made.findings["resumed"]

    assert [proof.meets for proof in found.proofs] == [True]
    assert found.samples + found.proofs[0].samples == made_poison.SAMPLES
    assert found.interval is not None
    assert found.interval.samples == found.proofs[0].samples
    assert found.interval.low <= found.proofs[0].drop <= found.interval.high


def run(data: bytes, samples: NDArray[np.float32], folder: Path) -> NDArray[Any]:
    """Return the real-valued answers of a file, sample by sample."""
    path = folder / "run.tflite"
    path.write_bytes(data)
    loaded = runtimes.find(made_poison.RUNTIME).load(path, runtimes.LoadOptions())
    answers = []
    for sample in samples:
        loaded.set_inputs((from_real(sample[np.newaxis], loaded.inputs[0]),))
        loaded.invoke()
        answers.append(dequantize(loaded.get_outputs()[0], loaded.outputs[0]))
    return np.concatenate(answers)


@pytest.mark.tensorflow
@pytest.mark.parametrize("edges", [Edges.UINT8, Edges.INT8])
@pytest.mark.parametrize("kept", ["", "first", "head", "first head"])
def test_integer_edges_compute_the_same_wherever_float_begins_and_ends(
    made: Made, edges: Edges, kept: str, tmp_path: Path
) -> None:
    """The first layer in float takes its input through a DEQUANTIZE, the last one gives through a QUANTIZE."""
    int8 = (made.folder / "plain" / "int8.tflite").read_bytes()
    data = (made.folder / "plain" / f"{kept.replace(' ', '-') or 'int8'}.tflite").read_bytes()
    samples = np.load(made.folder / "x.npy")[:20]

    changed = with_edges(data, edges, int8)

    (tmp_path / "changed.tflite").write_bytes(changed)
    found = inspect.inspect_model(tmp_path / "changed.tflite")
    before = inspect.inspect_model(made.folder / "plain" / "int8.tflite")
    assert [spec.dtype for spec in (*found.inputs, *found.outputs)] == [edges.value, edges.value]
    assert [spec.name for spec in (*found.inputs, *found.outputs)] == [
        spec.name for spec in (*before.inputs, *before.outputs)
    ]
    expected = run(data, samples, tmp_path)
    assert np.abs(run(changed, samples, tmp_path) - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.tensorflow
def test_float_weights_in_two_bytes_give_the_same_answers(made: Made, tmp_path: Path) -> None:
    data = (made.folder / "plain" / "first-head.tflite").read_bytes()
    samples = np.load(made.folder / "x.npy")[:20]

    halved = half_weights.halve(data)

    weights = sum(o.weights for o in operators.of(flatbuffer.read(data)))
    assert weights > 1000
    assert len(data) - len(halved) > weights
    expected = run(data, samples, tmp_path)
    assert np.abs(run(halved, samples, tmp_path) - expected).max() < 0.02 * np.abs(expected).max()


def operator(name: str, *inputs: str, weights: int = 0, op: str = "RELU") -> operators.Operator:
    return operators.Operator(name=name, op=op, inputs=inputs, outputs=(name,), weights=weights)


def test_what_lies_between_kept_layers_is_kept_along() -> None:
    graph = (
        operator("conv", "image", weights=9),
        operator("relu", "conv"),
        operator("pool", "relu"),
        operator("conv2", "pool", weights=9),
        operator("softmax", "conv2"),
    )

    assert operators.with_neighbours(graph, ["conv"]) == {"conv"}
    assert operators.with_neighbours(graph, ["conv2"]) == {"conv2", "softmax"}
    assert operators.with_neighbours(graph[:3], ["conv", "pool"]) == {"conv", "relu", "pool"}


def test_what_only_moves_numbers_is_never_chosen() -> None:
    assert not operator("flat", "x", op="RESHAPE").is_chosen
    assert operator("add", "x", "y", op="ADD").is_chosen


@pytest.fixture
def request_of(tmp_path: Path) -> QuantizationRequest:
    """Return a request whose files are all there."""
    source, data = tmp_path / "model.tflite", tmp_path / "x.npy"
    source.write_bytes(models_made.read("tiny_classifier_float"))
    np.save(data, np.zeros((3, 4), dtype=np.float32))
    return QuantizationRequest(
        source=source, output=tmp_path / "out" / "small.tflite", max_drop=0.01, calibration=data, runtime="litert"
    )


def findings(*steps: Step, **changes: object) -> Findings:
    """Return what a search might have found."""
    found: dict[str, Any] = {
        "metric": Metric.ACCURACY,
        "samples": 420,
        "float_value": 0.9,
        "float_size_bytes": 4000,
        "float_p50_ns": 1000,
        "float_runs": 100,
        "runtime": "ai-edge-litert==2.3.0",
        "steps": steps,
        "layers": (),
        "interval": None,
        "proofs": (),
        "notes": (),
        "preprocessing": None,
    }
    return Findings(**(found | changes))


def step(scheme: QuantizationScheme, drop: float | None, **changes: object) -> Step:
    made: dict[str, Any] = {"scheme": scheme, "drop": drop, "size_bytes": 2000, "value": 0.9, "file": "step.tflite"}
    return Step(**(made | changes))


def searching(found: Findings, data: bytes = b"") -> Callable[[Job, Path, Callable[[str], None]], Findings]:
    """Return a search that leaves one file and answers what is given."""

    def search(job: Job, folder: Path, say: Callable[[str], None]) -> Findings:
        del job, say
        (folder / "step.tflite").write_bytes(data)
        return found

    return search


def test_what_is_handed_over_is_what_was_judged(request_of: QuantizationRequest) -> None:
    data = models_made.read("tiny_classifier")
    found = findings(step(FLOAT16, 0.0, file="other.tflite"), step(INT8, 0.004, meets=True, taken=True))

    report = quantize(request_of, searching=searching(found, data))

    assert report.output.read_bytes() == data
    assert report.taken == found.steps[1]
    assert [path.name for path in report.output.parent.iterdir()] == ["small.tflite"]


def test_where_nothing_loses_so_little_the_best_of_each_scheme_is_told_and_no_file_written(
    request_of: QuantizationRequest,
) -> None:
    found = findings(
        step(INT8, 0.3), step(FLOAT16, 0.021), step(INT8, 0.05, kept=("a",)), step(INT8, 0.017, kept=("a", "b"))
    )

    with pytest.raises(NothingMeetsError) as caught:
        quantize(request_of, searching=searching(found))

    assert caught.value.exit_code == 12
    assert caught.value.findings == found
    assert str(caught.value) == (
        f"{request_of.source}: nothing loses at most 0.01: the best was int8 with 2 layers in float: 0.017; "
        "float16: 0.021"
    )
    assert not request_of.output.exists()


def test_what_the_samples_held_back_disprove_is_not_handed_over(request_of: QuantizationRequest) -> None:
    proof = Proof(samples=5000, float_value=0.9, value=0.88, drop=0.02, meets=False)
    found = findings(step(INT8, 0.004, meets=True), proofs=(proof,))

    with pytest.raises(ConversionError, match=r"loses 0\.02 on the 5,000 held back"):
        quantize(request_of, searching=searching(found))


def test_where_nothing_could_be_made_the_reasons_are_told(request_of: QuantizationRequest) -> None:
    found = findings(step(INT8, None, refused="FLEX can't be quantized"), step(FLOAT16, None, refused="no"))

    with pytest.raises(ConversionError, match="no variant could be made and run: int8: FLEX can't be quantized; float"):
        quantize(request_of, searching=searching(found))


@pytest.mark.parametrize(("samples", "said"), [(420, "is 4: too few to tell"), (10_000, "is 100")])
def test_the_bound_is_told_in_samples(request_of: QuantizationRequest, samples: int, said: str) -> None:
    found = findings(step(INT8, 0.0, meets=True, taken=True), samples=samples)

    report = quantize(request_of, searching=searching(found, models_made.read("tiny_classifier")))

    assert any(said in note for note in report.notes)
    assert any("flatters the variant" in note for note in report.notes)


@pytest.mark.parametrize("max_drop", [-0.01, 1.0, 7.0, float("nan"), float("inf"), -float("inf")])
def test_a_bound_that_makes_no_sense_is_a_mistake_of_the_command_line(
    request_of: QuantizationRequest, max_drop: float
) -> None:
    with pytest.raises(UsageError, match=r"--max-drop .*expected a number from 0 to below 1"):
        quantize(replace(request_of, max_drop=max_drop))


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"output": Path("folder")}, UsageError, "end its name in .tflite"),
        ({"calibration": None}, UsageError, "give --calibration"),
        ({"metric": Metric.ACCURACY}, UsageError, "needs labelled --data"),
        ({"schemes": (QuantizationScheme.FLOAT32,)}, UsageError, "--scheme float32: the search knows int8"),
        ({"runtime": "onnx"}, UsageError, "--runtime 'onnx': known runtimes are"),
        ({"preprocess": "sideways"}, UsageError, "sideways"),
        ({"source": Path("nowhere.keras")}, ModelError, "nowhere.keras"),
        ({"calibration": Path("nowhere")}, DatasetError, "nowhere: there is no such folder or file"),
        ({"output": Path(__file__) / "out.tflite"}, InputError, "can't be written"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(
    request_of: QuantizationRequest, changes: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        quantize(replace(request_of, **changes))

    assert "\n" not in str(caught.value)
