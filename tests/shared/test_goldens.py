"""Golden vectors travel unchanged, and only what is close enough passes."""

from __future__ import annotations

import io
import random
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests import models_made
from tflotilla.shared.contract.errors import ContractError
from tflotilla.shared.contract.manifest import GoldenPolicy
from tflotilla.shared.contract.tensors import DType, Quantization, TensorSpec
from tflotilla.shared.inference import runtime as port
from tflotilla.shared.inference.goldens import GoldenVectors, compare, load, reproduce, save
from tflotilla.shared.inference.runtime import LoadedModel, LoadOptions

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

POLICY = GoldenPolicy(count=1, runtime="any", tolerance_lsb=1, tolerance_absolute=0.01, tolerance_relative=0.1)


def _spec(dtype: DType, *, quantized: bool = True) -> TensorSpec:
    quantization = Quantization(scales=(0.1,), zero_points=(0,)) if quantized else None
    return TensorSpec(name="y", shape=(1, -1), dtype=dtype, quantization=quantization)


def _array(values: list[Any], dtype: str) -> NDArray[Any]:
    return np.array([values], dtype)


def _random_tensor(rng: random.Random) -> NDArray[Any]:
    shape = tuple(rng.randint(1, 4) for _ in range(rng.randint(0, 4)))
    dtype = rng.choice(["float32", "float16", "uint8", "int8", "int16", "int64", "bool", "S5"])
    numbers = np.random.default_rng(rng.getrandbits(32)).integers(0, 100, shape)
    return np.asarray(numbers).astype(dtype)


def _equal(one: GoldenVectors, other: GoldenVectors) -> bool:
    def flat(vectors: GoldenVectors) -> list[tuple[int, str, tuple[int, ...], bytes]]:
        rows = [*vectors.inputs, *vectors.outputs]
        return [(i, t.dtype.str, t.shape, t.tobytes()) for i, row in enumerate(rows) for t in row]

    return flat(one) == flat(other)


@pytest.mark.parametrize("seed", range(40))
def test_vectors_survive_the_way_into_a_file_and_back(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)  # noqa: S311 - a test wants the same vectors each time
    rows = rng.randint(1, 5)
    vectors = GoldenVectors(
        inputs=tuple(tuple(_random_tensor(rng) for _ in range(rng.randint(1, 3))) for _ in range(rows)),
        outputs=tuple(tuple(_random_tensor(rng) for _ in range(rng.randint(1, 3))) for _ in range(rows)),
    )
    data = save(vectors)
    file = tmp_path / "goldens.npz"
    file.write_bytes(data)

    assert _equal(load(data), vectors)
    assert _equal(load(file), vectors)
    assert save(load(data)) == data


def test_a_tensor_that_is_no_contiguous_block_is_saved_as_if_it_were() -> None:
    strided = np.arange(12, dtype=np.int8).reshape(3, 4)[:, ::-2]
    straight = np.ascontiguousarray(strided)

    assert save(GoldenVectors(inputs=((strided,),), outputs=((strided,),))) == save(
        GoldenVectors(inputs=((straight,),), outputs=((straight,),))
    )


def test_numpy_reads_the_file_too() -> None:
    data = save(GoldenVectors(inputs=((_array([1, 2], "uint8"),),), outputs=((_array([3], "int8"),),)))
    with np.load(io.BytesIO(data)) as archive:
        found = {name: archive[name].tolist() for name in archive.files}

    assert found == {"input.00000.000": [[1, 2]], "output.00000.000": [[3]]}


def test_texts_that_runtimes_give_as_objects_are_saved_as_bytes() -> None:
    texts = np.array([b"a", b"bcd"], dtype=object)
    loaded = load(save(GoldenVectors(inputs=((texts,),), outputs=((texts,),))))

    assert loaded.inputs[0][0].tolist() == [b"a", b"bcd"]
    assert compare(loaded.outputs[0], (texts,), (_spec("string", quantized=False),), POLICY).ok


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return target.getvalue()


def _npy(array: NDArray[Any]) -> bytes:
    target = io.BytesIO()
    np.save(target, array, allow_pickle=True)
    return target.getvalue()


def _claiming(shape: str) -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"123"


GOOD = _npy(np.zeros(3, np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a zip",
        _zip({"input.00000.000.npy": GOOD, "output.00000.000.npy": GOOD})[:-40],
        _zip({"model.tflite": b"x"}),
        _zip({"../input.00000.000.npy": GOOD}),
        _zip({"input.00000.000.npy": GOOD}),
        _zip({"input.00001.000.npy": GOOD, "output.00001.000.npy": GOOD}),
        _zip({"input.00000.000.npy": GOOD, "output.00000.000.npy": b"\x93NUMPY"}),
        _zip({"input.00000.000.npy": GOOD, "output.00000.000.npy": _npy(np.array([{}], dtype=object))}),
        _zip({"input.00000.000.npy": GOOD, "output.00000.000.npy": _claiming("(1000000000000,)")}),
        _zip({"input.00000.000.npy": GOOD, "output.00000.000.npy": _claiming("(-3,)")}),
        _zip({"input.00000.000.npy": GOOD, "output.00000.000.npy": _claiming("(2,)")}),
        _zip({"input.00000.000.npy": GOOD, "output.00000.000.npy": GOOD}, zipfile.ZIP_DEFLATED),
    ],
    ids=[
        "empty",
        "no zip",
        "cut",
        "foreign member",
        "a path",
        "no outputs",
        "a gap",
        "half a header",
        "a pickle",
        "terabytes",
        "negative",
        "too long",
        "compressed",
    ],
)
def test_what_save_did_not_write_is_refused(data: bytes) -> None:
    with pytest.raises(ContractError) as caught:
        load(data)

    assert str(caught.value).startswith("goldens.npz")
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_tensor_is_noticed() -> None:
    data = bytearray(save(GoldenVectors(inputs=((_array([1] * 64, "uint8"),),), outputs=((_array([1], "int8"),),))))
    data[data.index(b"\x01" * 60) + 5] ^= 4

    with pytest.raises(ContractError, match="can't be read"):
        load(bytes(data))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"absent\.npz can't be read"):
        load(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("expected", "actual", "spec", "ok", "lsb", "absolute"),
    [
        (_array([0, 255], "uint8"), _array([1, 254], "uint8"), _spec("uint8"), True, 1, None),
        (_array([0, 255], "uint8"), _array([2, 255], "uint8"), _spec("uint8"), False, 2, None),
        (_array([-128], "int8"), _array([127], "int8"), _spec("int8"), False, 255, None),
        (_array([-32768], "int16"), _array([32767], "int16"), _spec("int16"), False, 65535, None),
        (_array([3], "uint8"), _array([4], "uint8"), _spec("uint8", quantized=False), True, 1, None),
        (_array([3], "int64"), _array([3], "int64"), _spec("int64", quantized=False), True, None, None),
        (_array([3], "int64"), _array([4], "int64"), _spec("int64", quantized=False), False, None, None),
        (_array([True], "bool"), _array([False], "bool"), _spec("bool", quantized=False), False, None, None),
        (_array([1.0, 0.0], "float32"), _array([1.0, 0.125], "float32"), _spec("float32"), False, None, 0.125),
        (_array([2.0, 0.0], "float32"), _array([2.0, 0.125], "float32"), _spec("float32"), True, None, 0.125),
        (_array([np.nan], "float32"), _array([np.nan], "float32"), _spec("float32"), False, None, None),
        (_array([1.0], "float32"), _array([np.nan], "float32"), _spec("float32"), False, None, None),
        (_array([np.inf], "float32"), _array([np.inf], "float32"), _spec("float32"), True, None, 0.0),
        (_array([np.inf], "float32"), _array([-np.inf], "float32"), _spec("float32"), False, None, None),
        (_array([np.inf, 0.0], "float32"), _array([np.inf, 5.0], "float32"), _spec("float32"), False, None, 5.0),
        (_array([3.0], "float32"), _array([np.inf], "float32"), _spec("float32"), False, None, None),
        (_array([1], "uint8"), _array([1], "int8"), _spec("uint8"), False, None, None),
        (_array([1], "uint8"), _array([1, 1], "uint8"), _spec("uint8"), False, None, None),
    ],
)
def test_closeness_is_judged_by_the_kind_of_output(
    expected: NDArray[Any], actual: NDArray[Any], spec: TensorSpec, lsb: int | None, absolute: float | None, *, ok: bool
) -> None:
    verdict = compare((expected,), (actual,), (spec,), POLICY)

    assert (verdict.ok, verdict.worst_lsb, verdict.worst_absolute) == (ok, lsb, absolute)
    assert (verdict.reason is None) == ok


def test_the_worst_of_several_outputs_is_told_with_the_name_of_the_first_that_missed() -> None:
    expected = (_array([5], "uint8"), _array([5], "uint8"), _array([1.0], "float32"))
    actual = (_array([6], "uint8"), _array([9], "uint8"), _array([1.05], "float32"))
    specs = (_spec("uint8"), _spec("uint8"), _spec("float32"))
    verdict = compare(expected, actual, specs, POLICY)

    assert (verdict.ok, verdict.worst_lsb) == (False, 4)
    assert verdict.worst_absolute == pytest.approx(0.05)
    assert verdict.reason == "output 'y' differs by 4 LSB, at most 1 allowed"


def test_another_number_of_outputs_is_a_miss() -> None:
    verdict = compare((_array([5], "uint8"),), (), (_spec("uint8"),), POLICY)

    assert verdict.reason == "0 outputs, 1 expected by the goldens, 1 by the model"


@pytest.fixture(params=sorted(port.ADAPTERS))
def runtime(request: pytest.FixtureRequest) -> port.Runtime:
    found = [runtime for runtime in port.present() if runtime.offer.name == request.param]
    if not found:
        pytest.skip(f"{request.param} is not installed here")
    return found[0]


def _vectors(loaded: LoadedModel) -> GoldenVectors:
    inputs, outputs = [], []
    for label in range(4):
        image = models_made.noisy(label, seed=label).reshape(1, 8, 8, 1)
        loaded.set_inputs((image,))
        loaded.invoke()
        inputs.append((image,))
        outputs.append(loaded.get_outputs())
    return GoldenVectors(inputs=tuple(inputs), outputs=tuple(outputs))


def test_a_model_reproduces_its_own_goldens(runtime: port.Runtime) -> None:
    model = models_made.read("tiny_classifier")
    vectors = load(save(_vectors(runtime.load(model, LoadOptions()))))
    verdict = reproduce(runtime.load(model, LoadOptions()), vectors, GoldenPolicy(count=4, runtime="this"))

    assert (verdict.ok, verdict.worst_lsb, verdict.reason) == (True, 0, None)


def test_another_model_does_not_reproduce_them_and_the_first_vector_is_named(runtime: port.Runtime) -> None:
    vectors = _vectors(runtime.load(models_made.read("tiny_classifier"), LoadOptions()))
    other = runtime.load(models_made.read("tiny_classifier_shifted"), LoadOptions())
    verdict = reproduce(other, vectors, GoldenPolicy(count=4, runtime="this"))

    assert not verdict.ok
    assert verdict.worst_lsb is not None
    assert verdict.worst_lsb > 200
    assert verdict.reason is not None
    assert verdict.reason.startswith("golden vector 0: output 'scores' differs by ")


def test_vectors_of_another_input_are_a_miss_and_no_crash(runtime: port.Runtime) -> None:
    vectors = _vectors(runtime.load(models_made.read("tiny_classifier"), LoadOptions()))
    floats = runtime.load(models_made.read("tiny_classifier_float"), LoadOptions())
    verdict = reproduce(floats, vectors, GoldenPolicy(count=4, runtime="this"))

    assert not verdict.ok
    assert verdict.reason is not None
    assert verdict.reason.startswith("golden vector 0: ")


@pytest.mark.parametrize("promised", [0, 5])
def test_fewer_vectors_than_promised_are_a_miss(runtime: port.Runtime, promised: int) -> None:
    loaded = runtime.load(models_made.read("tiny_classifier"), LoadOptions())
    vectors = _vectors(loaded) if promised else GoldenVectors(inputs=(), outputs=())
    verdict = reproduce(loaded, vectors, GoldenPolicy(count=promised, runtime="this"))

    assert verdict.reason == f"{len(vectors)} golden vectors, the manifest promises {promised}"


def test_inputs_without_outputs_are_no_vectors() -> None:
    with pytest.raises(ValueError, match="1 inputs but 0 outputs"):
        GoldenVectors(inputs=((),), outputs=())
