"""Runs in the `onnx` tool's own Python: imports nothing of this project, speaks JSON on stdout's last line.

    onnx_reader.py describe MODEL            inputs with their shapes, outputs, operators of foreign domains
    onnx_reader.py translate MODEL FOLDER SHAPES    a SavedModel, and what ONNX Runtime answers on seeded inputs

What it does NOT do: judge whether the SavedModel computes the same; whoever reads `reference.npz` does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx

_SEED = 20240229
_SAMPLES = 4
_STANDARD = ("", "ai.onnx", "ai.onnx.ml")
#: onnx2tf tries its work on 20 pictures that it would fetch from the internet; ones of noise serve it as well.
_PICTURES = "calibration_image_sample_data_20x128x128x3_float32.npy"
_FAILED = 1


def describe(path: str) -> dict[str, Any]:
    """Return what is in the file. Raises whatever onnx raises of a corrupt one."""
    model = onnx.load(path)
    onnx.checker.check_model(path)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = {
        value.name: [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
        for value in graph.input
        if value.name not in constants
    }
    types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in graph.node if node.domain not in _STANDARD})
    return {
        "inputs": inputs,
        "dtypes": {name: str(onnx.helper.tensor_dtype_to_np_dtype(types[name])) for name in inputs},
        "outputs": [value.name for value in graph.output],
        "foreign": foreign,
        "nodes": len(graph.node),
    }


def translate(path: str, folder: str, shapes: dict[str, list[int]]) -> dict[str, Any]:
    """Write a SavedModel and `reference.npz` into `folder`; return the versions that did it."""
    import onnx2tf
    import onnxruntime

    facts = describe(path)
    fixed = _with_shapes(path, shapes, Path(folder) / "fixed.onnx")
    rng = np.random.default_rng(_SEED)
    session = onnxruntime.InferenceSession(fixed, providers=["CPUExecutionProvider"])
    arrays = {}
    for sample in range(_SAMPLES):
        fed = {}
        for name, shape in shapes.items():
            dtype = np.dtype(facts["dtypes"][name])
            values = rng.random(shape) * 2 - 1 if dtype.kind == "f" else rng.integers(0, 2, shape)
            fed[name] = values.astype(dtype)
            arrays[f"input/{sample}/{name}"] = fed[name]
        for name, answer in zip(facts["outputs"], session.run(facts["outputs"], fed), strict=True):
            arrays[f"output/{sample}/{name}"] = np.asarray(answer)
    np.savez(Path(folder) / "reference.npz", **arrays)
    os.chdir(folder)
    np.save(_PICTURES, rng.random((20, 128, 128, 3)).astype(np.float32))
    onnx2tf.convert(
        input_onnx_file_path=fixed,
        output_folder_path=str(Path(folder) / "saved_model"),
        output_signaturedefs=True,
        non_verbose=True,
    )
    return {"onnx2tf": onnx2tf.__version__, "onnxruntime": onnxruntime.__version__}


def _with_shapes(path: str, shapes: dict[str, list[int]], target: Path) -> str:
    """Write the model with every dimension of its inputs known."""
    model = onnx.load(path)
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    # What was said of tensors in between may name the dimensions that were unknown.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    onnx.save(onnx.shape_inference.infer_shapes(model), target)
    return str(target)


def main() -> None:
    """Serve one request; the last line of stdout is the answer, or the reason why there is none."""
    what, path, *rest = sys.argv[1:]
    answer: dict[str, Any]
    try:
        answer = describe(path) if what == "describe" else translate(path, rest[0], json.loads(rest[1]))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - onnx2tf raises anything, and exits
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        answer = {"error": type(error).__name__ if not lines or lines[0].isdecimal() else lines[0][:300]}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    # TensorFlow's threads may crash on the way out; the answer stands.
    os._exit(_FAILED if "error" in answer else 0)


if __name__ == "__main__":
    main()
