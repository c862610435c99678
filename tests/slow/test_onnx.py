"""ONNX with the real tool: onnx2tf and ONNX Runtime, installed from their lock (2.4 GiB, once)."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tflotilla.host.packages import tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
#: Runs in the tool's own Python, where `onnx` is.
MAKE = """
import numpy as np, onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh
rng = np.random.default_rng(0)
weights = lambda name, *shape: nh.from_array((rng.normal(size=shape) * .3).astype(np.float32), name)
value = lambda name, shape: h.make_tensor_value_info(name, T.FLOAT, shape)
def save(path, nodes, inputs, outputs, constants=(), opsets=(("", 17),)):
    graph = h.make_graph(nodes, "g", inputs, outputs, list(constants))
    model = h.make_model(graph, opset_imports=[h.make_opsetid(*each) for each in opsets])
    model.ir_version = 8
    onnx.save(model, path)
net = [h.make_node("Conv", ["image", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
       h.make_node("Relu", ["c1"], ["r1"]),
       h.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], strides=[2, 2]),
       h.make_node("GlobalAveragePool", ["c2"], ["p"]), h.make_node("Flatten", ["p"], ["f"]),
       h.make_node("Gemm", ["f", "w3", "b3"], ["logits"]), h.make_node("Softmax", ["logits"], ["scores"], axis=1)]
held = [weights("w1", 8, 3, 3, 3), weights("b1", 8), weights("w2", 16, 8, 3, 3), weights("b2", 16),
        weights("w3", 16, 10), weights("b3", 10)]
save("net.onnx", net, [value("image", ["N", 3, 32, 32])], [value("scores", ["N", 10])], held)
save("two.onnx", [h.make_node("MatMul", ["b", "w"], ["p"]), h.make_node("Add", ["p", "a"], ["big"]),
                  h.make_node("Tanh", ["a"], ["small"])],
     [value("a", [1, 3]), value("b", [1, 4])], [value("big", [1, 3]), value("small", [1, 3])], [weights("w", 4, 3)])
save("unknown.onnx", [h.make_node("Relu", ["x"], ["y"])], [value("x", ["N", 3, "H", "W"])],
     [value("y", ["N", 3, "H", "W"])])
save("foreign.onnx", [h.make_node("MyOp", ["x"], ["y"], domain="acme")], [value("x", [1, 4])], [value("y", [1, 4])],
     opsets=(("", 17), ("acme", 1)))
save("det.onnx", [h.make_node("Det", ["x"], ["y"])], [value("x", [2, 3, 3])], [value("y", [2])])
open("cut.onnx", "wb").write(open("net.onnx", "rb").read()[:900])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("onnx")
    python = tools.install(tools.TOOLS["onnx"])
    subprocess.run([python, "-I", "-c", MAKE], cwd=place, check=True, capture_output=True)
    np.save(place / "x.npy", np.random.default_rng(1).random((20, 32, 32, 3), dtype=np.float32) * 2 - 1)
    return place


def convert(folder: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tflotilla.host", "convert", *arguments, "-o", "made", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    words = done.stderr.strip().splitlines()[-1] if done.returncode else ""
    return done.returncode, words, json.loads(done.stdout) if done.returncode == 0 else {}


def test_a_network_becomes_every_scheme_and_follows_onnx_runtime(folder: Path) -> None:
    code, words, document = convert(folder, "net.onnx", "--scheme", "all", "--calibration", "x.npy")

    assert (0, "") == (code, words)
    assert {} == document["failures"]
    assert 7 == len(document["files"])
    assert [[1, 32, 32, 3]] == [spec["shape"] for spec in document["inputs"]]
    assert any("follows ONNX Runtime" in note for note in document["notes"])
    assert any("channels last; the ONNX file has 1,3,32,32" in note for note in document["notes"])


def test_names_of_several_inputs_and_outputs_are_kept(folder: Path) -> None:
    code, words, document = convert(folder, "two.onnx")

    assert (0, "") == (code, words)
    assert {"a", "b"} == {spec["name"] for spec in document["inputs"]}
    assert {"big", "small"} == set(document["outputs"])


def test_unknown_dimensions_are_the_users_to_fix(folder: Path) -> None:
    code, words, _ = convert(folder, "unknown.onnx")
    assert (2, "tflotilla: input 'x' is ?,3,?,?; fix what is unknown: --input-shapes x=N,3,N,N") == (code, words)

    code, words, document = convert(folder, "unknown.onnx", "--input-shapes", "1,3,20,24")
    assert (0, "") == (code, words)
    assert [[1, 20, 24, 3]] == [spec["shape"] for spec in document["inputs"]]


@pytest.mark.parametrize(
    ("file", "code", "words"),
    [
        ("foreign.onnx", 12, "operators that ONNX does not define: acme.MyOp"),
        ("det.onnx", 12, "TFLite has no operator for MatrixDeterminant"),
        ("cut.onnx", 3, "not an ONNX model that can be read"),
    ],
)
def test_what_can_not_be_converted_is_one_line(folder: Path, file: str, code: int, words: str) -> None:
    found, said, _ = convert(folder, file)

    assert code == found
    assert words in said
