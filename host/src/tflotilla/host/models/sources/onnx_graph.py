"""`.onnx`: translated to a SavedModel by onnx2tf, in an environment of its own, and held against ONNX Runtime.

ONNX lays images out channels first, TFLite channels last: inputs change their shape, and a note says so. What the
translation computes is compared with ONNX Runtime's answers before anything is converted; a translation that computes
something else is refused. What it does NOT do: install the tool; `tflotilla tools install onnx` does.
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models.child import report_progress
from tflotilla.host.models.sources import SourceOptions, shapes
from tflotilla.host.packages import tools
from tflotilla.shared.contract.errors import ConversionError, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tflotilla.host.models.sources import SourceModel
    from tflotilla.shared.contract.tensors import TensorSpec

_SUFFIX = ".onnx"
#: A ModelProto begins with field 1, the version of the format, a small number.
_IR_VERSION_FIELD, _NEWEST_IR = 0x08, 0x20
_TIMEOUT_S = 1200
#: A translation is the same float arithmetic in another order.
_LEAST_DB = 40.0
_BEST_DB = 200.0
_LEAST_RANK_MOVED = 3


def recognizes(path: Path, head: bytes) -> bool:
    """Whether it is named so, or begins as ONNX files do."""
    looks = len(head) > 1 and head[0] == _IR_VERSION_FIELD and 0 < head[1] < _NEWEST_IR
    return path.is_file() and (path.suffix.lower() == _SUFFIX or looks) and looks


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Translate and load. Raises ModelError, ConversionError, UsageError."""
    python = tools.python(tools.TOOLS["onnx"])
    if python is None:
        tool = tools.TOOLS["onnx"]
        raise ModelError(
            f"{path}: ONNX is read by a tool in an environment of its own, which is not installed; "
            f"`tflotilla tools install onnx` does it (about {tool.size_gib:g} GiB)"
        )
    report_progress("reading ONNX")
    facts = _ask(python, path, "describe")
    if facts["foreign"]:
        raise ConversionError(f"{path}: operators that ONNX does not define: {', '.join(facts['foreign'])}")
    names = list(facts["inputs"])
    shapes.check_names(options.input_shapes, names)
    fixed = {
        name: shapes.fix_shape(name, dimensions, options.input_shapes, names)
        for name, dimensions in facts["inputs"].items()
    }
    folder = Path(tempfile.mkdtemp(prefix="onnx-"))
    report_progress("translating ONNX to TensorFlow (onnx2tf)")
    versions = _ask(python, path, "translate", str(folder), json.dumps(fixed))
    return _Translated(path, folder, facts["outputs"], versions)


def _ask(python: Path, path: Path, what: str, *arguments: str) -> dict[str, Any]:
    script = Path(__file__).with_name("onnx_reader.py")
    try:
        done = subprocess.run(
            [str(python), "-I", str(script), what, str(path.absolute()), *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"{path}: the onnx tool does not run: {error}; install it again") from error
    lines = done.stdout.strip().splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path}: the onnx tool died (exit {done.returncode}) at `{what}`") from error
    if "error" in answer:
        if what == "describe":
            raise ModelError(f"{path}: not an ONNX model that can be read: {answer['error']}")
        raise ConversionError(f"{path}: onnx2tf can't translate it: {answer['error']}")
    return answer


class _Translated:
    """The SavedModel that onnx2tf wrote, with the names of the ONNX file."""

    def __init__(self, path: Path, folder: Path, outputs: Sequence[str], versions: Mapping[str, str]) -> None:
        from tflotilla.host.models.sources import saved_model

        self._model = saved_model.load(folder / "saved_model", SourceOptions())
        with np.load(folder / "reference.npz") as archive:
            reference = {name: archive[name] for name in archive.files}
        moved = self._moved(reference)
        found = {name: self._follows(reference, name) for name in outputs}
        worst = min(found, key=lambda name: found[name][1])
        if found[worst][1] < _LEAST_DB:
            raise ConversionError(
                f"{path}: what onnx2tf makes of it does not compute what ONNX Runtime does: output {worst!r} follows "
                f"at {found[worst][1]:.1f} dB, at least {_LEAST_DB:g} are asked"
            )
        order = {position: name for name, (position, _) in found.items()}
        self.output_names = tuple(order.get(i, name) for i, name in enumerate(self._model.output_names))
        self.notes = (
            f"translated by onnx2tf {versions['onnx2tf']}; follows ONNX Runtime {versions['onnxruntime']} at "
            f"{found[worst][1]:.0f} dB",
            *moved,
        )

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs, channels last."""
        return self._model.inputs

    @property
    def loops(self) -> bool:
        """Whether it loops until a value says so."""
        return self._model.loops

    def converter(self) -> Any:  # noqa: ANN401 - TensorFlow has no types
        """Return a fresh converter."""
        return self._model.converter()

    def run(self, inputs: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
        """Compute in TensorFlow. Raises ModelError."""
        return self._model.run(inputs)

    def _moved(self, reference: Mapping[str, NDArray[Any]]) -> list[str]:
        texts = []
        for spec in self._model.inputs:
            there = reference[f"input/0/{spec.name}"].shape if f"input/0/{spec.name}" in reference else spec.shape
            if tuple(there) != tuple(spec.shape):
                texts.append(
                    f"input {spec.name!r} takes {','.join(map(str, spec.shape))}, channels last; the ONNX file has "
                    f"{','.join(map(str, there))}"
                )
        return texts

    def _follows(self, reference: Mapping[str, NDArray[Any]], output: str) -> tuple[int, float]:
        """Find the output that follows ONNX Runtime's best: its position and its worst SQNR in dB."""
        samples = sum(1 for name in reference if name.startswith("output/") and name.split("/", 2)[2] == output)
        best = (0, -math.inf)
        runs = [
            self._model.run(tuple(_fed(reference, sample, spec) for spec in self._model.inputs))
            for sample in range(samples)
        ]
        for position in range(len(runs[0])):
            worst = min(_sqnr_db(reference[f"output/{n}/{output}"], runs[n][position]) for n in range(samples))
            best = max(best, (position, worst), key=lambda pair: pair[1])
        return best


def _fed(reference: Mapping[str, NDArray[Any]], sample: int, spec: TensorSpec) -> NDArray[Any]:
    """Return what ONNX Runtime was fed, laid out as TensorFlow takes it."""
    keys = [name for name in reference if name.startswith(f"input/{sample}/")]
    # TensorFlow spells names in its own way; a model of one input needs no name.
    key = next((k for k in keys if _plain(k.split("/", 2)[2]) == _plain(spec.name)), keys[0])
    values = reference[key]
    if values.shape != spec.shape and values.ndim >= _LEAST_RANK_MOVED:
        values = np.moveaxis(values, 1, -1)
    return values.astype(spec.dtype)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name).strip("_").lower()


def _sqnr_db(expected: NDArray[Any], actual: NDArray[Any]) -> float:
    layouts = [expected]
    if expected.ndim >= _LEAST_RANK_MOVED:
        layouts.append(np.moveaxis(expected, 1, -1))
    fitting = [one.astype(np.float64) for one in layouts if one.shape == actual.shape]
    return max((_ratio_db(one, actual.astype(np.float64)) for one in fitting), default=-math.inf)


def _ratio_db(expected: NDArray[np.float64], actual: NDArray[np.float64]) -> float:
    noise = float(np.mean((expected - actual) ** 2))
    signal = float(np.mean(expected**2))
    if noise == 0.0:
        return _BEST_DB
    return -math.inf if signal == 0.0 else min(_BEST_DB, 10 * math.log10(signal / noise))
