"""Make the table of op versions that a runtime accepts, by asking the runtime itself: `op_versions.json`.

A flatbuffer with one operator code and no operator is given to the runtime: its resolver refuses an unknown pair of
op and version while the interpreter is built. Custom ops are resolved later, so theirs has one node, and only the word
"unresolved" means that the runtime lacks it.

`python -m tflotilla.host.models.op_table` measures the runtimes of this environment and rewrites their tables; those
of other runtimes and versions stay. Each measurement runs in a child process: a runtime may crash on crafted files.

What it does NOT do: decide anything (`compatibility` does), or say that an op computes right; goldens do that.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import child
from tflotilla.host.models.compatibility import version_key
from tflotilla.shared.contract.errors import BoardError, ModelError
from tflotilla.shared.inference import runtime as runtimes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tflotilla.shared.inference.runtime import Runtime

TABLE_PATH = Path(__file__).parent / "op_versions.json"
#: Custom ops that some build of a runtime registers by itself.
CUSTOM_OPS = ("AudioSpectrogram", "Irfft2D", "Mfcc", "NumericVerify", "RFFT2D", "TFLite_Detection_PostProcess")
#: BuiltinOperator is a byte's worth of codes today; versions never passed 14.
_LAST_CODE = 255
_LAST_VERSION = 24
_PLACEHOLDER_FOR_GREATER_CODES = 127
_CUSTOM_CODE = 32
_TABLE_TIMEOUT_S = 120
#: Not `__name__`: run as a program, this module has another one.
_SELF = "tflotilla.host.models.op_table"


def measure(name: str) -> dict[str, Any]:
    """Measure one runtime in a child process.

    Returns:
        A table: `name`, `version`, `ops` (op → [lowest, highest version]), `custom_ops`.

    Raises:
        BoardError: the runtime isn't installed here.

    """
    table: dict[str, Any] = _child(f"{_SELF}:measure_here", {"name": name}, doing=f"probing the ops of {name}")
    return table | {"custom_ops": [op for op in CUSTOM_OPS if registers(name, op)]}


def accepts(name: str, pairs: Sequence[tuple[str, int]]) -> tuple[bool, ...]:
    """Ask the runtime about ops at versions, in a child process; one answer per pair."""
    arguments = {"name": name, "pairs": [list(pair) for pair in pairs]}
    return tuple(_child(f"{_SELF}:accepts_here", arguments, doing=f"probing ops of {name}"))


def registers(name: str, custom_op: str) -> bool:
    """Ask the runtime whether it has a custom op, in a child process: one that crashes on empty options has it."""
    try:
        return bool(_child(f"{_SELF}:registers_here", {"name": name, "op": custom_op}, doing=custom_op))
    except ModelError:
        return True


def measure_here(name: str) -> dict[str, Any]:
    """Measure the built-in ops in this process; `measure` calls it in a child."""
    runtime = runtimes.find(name)
    ops = {}
    for code, op in sorted(_names().items(), key=lambda item: item[1]):
        accepted = [version for version in range(1, _LAST_VERSION + 1) if _loads(runtime, _crafted(code, version))]
        if accepted:
            ops[op] = [accepted[0], accepted[-1]]
    return {"name": runtime.offer.name, "version": runtime.offer.version, "ops": ops}


def accepts_here(name: str, pairs: list[tuple[str, int]]) -> list[bool]:
    """Ask in this process; `accepts` calls it in a child."""
    runtime = runtimes.find(name)
    codes = {text: code for code, text in _names().items()}
    return [_loads(runtime, _crafted(codes[op], version)) for op, version in pairs]


def registers_here(name: str, op: str) -> bool:
    """Ask in this process; `registers` calls it in a child."""
    try:
        runtimes.find(name).load(_crafted(_CUSTOM_CODE, 1, custom=op), runtimes.LoadOptions(xnnpack=False))
    except ModelError as error:
        return not re.search("unresolved|not supported by this interpreter", str(error))
    return True


def serialize(tables: Iterable[Mapping[str, Any]]) -> str:
    """Write tables sorted by runtime and version, one op a line."""
    blocks = []
    for table in sorted(tables, key=lambda table: (table["name"], version_key(table["version"]))):
        ops = ",\n".join(f"    {json.dumps(op)}: {json.dumps(table['ops'][op])}" for op in sorted(table["ops"]))
        head = ", ".join(f"{json.dumps(key)}: {json.dumps(table[key])}" for key in ("name", "version", "custom_ops"))
        blocks.append(f'  {{{head}, "ops": {{\n{ops}\n  }}}}')
    return "[\n" + ",\n".join(blocks) + "\n]\n"


def _child(function: str, arguments: Mapping[str, Any], *, doing: str) -> Any:  # noqa: ANN401 - JSON
    return child.call(function, arguments, doing=doing, timeout_s=_TABLE_TIMEOUT_S)


def _names() -> dict[int, str]:
    """Every code up to the last: schema names, and `BUILTIN_209` for those younger than the schema package."""
    import tflite

    known = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}
    skipped = {
        known_code for known_code, name in known.items() if name in ("CUSTOM", "PLACEHOLDER_FOR_GREATER_OP_CODES")
    }
    return {code: known.get(code, f"BUILTIN_{code}") for code in range(_LAST_CODE + 1) if code not in skipped}


def _loads(runtime: Runtime, model: bytes) -> bool:
    try:
        runtime.load(model, runtimes.LoadOptions(xnnpack=False))
    except ModelError:
        return False
    return True


def _crafted(code: int, version: int, *, custom: str | None = None) -> bytes:
    """Build a model with one operator code; the node that a custom op needs has empty options and makes no sense."""
    import flatbuffers
    import tflite

    b = flatbuffers.Builder(512)
    custom_code = b.CreateString(custom) if custom else None
    subgraphs = _offsets(b, tflite.ModelStartSubgraphsVector, _graph(b, with_node=custom is not None))
    tflite.OperatorCodeStart(b)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(b, min(code, _PLACEHOLDER_FOR_GREATER_CODES))
    tflite.OperatorCodeAddBuiltinCode(b, code)
    tflite.OperatorCodeAddVersion(b, version)
    if custom_code is not None:
        tflite.OperatorCodeAddCustomCode(b, custom_code)
    codes = _offsets(b, tflite.ModelStartOperatorCodesVector, tflite.OperatorCodeEnd(b))
    tflite.BufferStart(b)
    buffers = _offsets(b, tflite.ModelStartBuffersVector, tflite.BufferEnd(b))
    tflite.ModelStart(b)
    tflite.ModelAddVersion(b, 3)
    tflite.ModelAddOperatorCodes(b, codes)
    tflite.ModelAddSubgraphs(b, subgraphs)
    tflite.ModelAddBuffers(b, buffers)
    b.Finish(tflite.ModelEnd(b), b"TFL3")
    return bytes(b.Output())


def _graph(b: Any, *, with_node: bool) -> int:  # noqa: ANN401 - flatbuffers is untyped
    """Add a graph of one tensor that is input and output of everything."""
    import tflite
    from flatbuffers import flexbuffers

    name = b.CreateString("tensor")
    shape = _numbers(b, tflite.TensorStartShapeVector, 1)
    tflite.TensorStart(b)
    tflite.TensorAddShape(b, shape)
    tflite.TensorAddName(b, name)
    tensors = _offsets(b, tflite.SubGraphStartTensorsVector, tflite.TensorEnd(b))
    inputs = _numbers(b, tflite.SubGraphStartInputsVector, 0)
    outputs = _numbers(b, tflite.SubGraphStartOutputsVector, 0)
    nodes = None
    if with_node:
        # Kernels of custom ops read a flexbuffer map without asking whether there is one.
        options = b.CreateByteVector(bytes(flexbuffers.Dumps({})))
        node_inputs = _numbers(b, tflite.OperatorStartInputsVector, 0)
        node_outputs = _numbers(b, tflite.OperatorStartOutputsVector, 0)
        tflite.OperatorStart(b)
        tflite.OperatorAddInputs(b, node_inputs)
        tflite.OperatorAddOutputs(b, node_outputs)
        tflite.OperatorAddCustomOptions(b, options)
        nodes = _offsets(b, tflite.SubGraphStartOperatorsVector, tflite.OperatorEnd(b))
    tflite.SubGraphStart(b)
    tflite.SubGraphAddTensors(b, tensors)
    tflite.SubGraphAddInputs(b, inputs)
    tflite.SubGraphAddOutputs(b, outputs)
    if nodes is not None:
        tflite.SubGraphAddOperators(b, nodes)
    return int(tflite.SubGraphEnd(b))


def _offsets(b: Any, start: Any, item: int) -> int:  # noqa: ANN401 - flatbuffers is untyped
    start(b, 1)
    b.PrependUOffsetTRelative(item)
    return int(b.EndVector())


def _numbers(b: Any, start: Any, item: int) -> int:  # noqa: ANN401 - flatbuffers is untyped
    start(b, 1)
    b.PrependInt32(item)
    return int(b.EndVector())


def main() -> None:
    """Measure what is here and rewrite the file."""
    tables = {(table["name"], table["version"]): table for table in json.loads(TABLE_PATH.read_text() or "[]")}
    for name in runtimes.ADAPTERS:
        try:
            table = measure(name)
        except BoardError as error:
            sys.stderr.write(f"{name}: not measured: {error}\n")
            continue
        tables[table["name"], table["version"]] = table
        sys.stderr.write(f"{name} {table['version']}: {len(table['ops'])} ops, {len(table['custom_ops'])} custom ops\n")
    TABLE_PATH.write_text(serialize(tables.values()))


if __name__ == "__main__":
    main()
