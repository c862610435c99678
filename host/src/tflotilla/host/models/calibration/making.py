"""Makes what calibration is reported on, in TensorFlow: the float file, and int8 files of more and more samples.

Runs in a child process, see `measurement`. Samples come in `curve.spread_order`, so the first few are spread over all;
ranges are widened sample by sample, never measured twice. What it does NOT do: run the files, or judge.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import datasets, sources
from tflotilla.host.models.calibration import curve, probe
from tflotilla.host.models.child import report_progress
from tflotilla.host.models.quantize import Maker, parse_preprocessing
from tflotilla.host.models.sources import SourceOptions
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import ConversionError
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tflotilla.host.models.sources import SourceModel

    Inputs = tuple[NDArray[Any], ...]

FLOAT = "float32.tflite"
SAMPLES = "samples.npz"
#: How many samples int8 files are compared with the float one on; such that calibration doesn't take, if there are.
COMPARED = 50


def int8_name(samples: int) -> str:
    """Return the name of the int8 file that was calibrated with the first `samples` samples."""
    return f"int8-{samples:06d}.tflite"


def run(
    *,
    source: str,
    format: str,  # noqa: A002 - the word of the field
    options: Mapping[str, Any],
    calibration: str,
    preprocess: str | Mapping[str, Any] | None,
    samples: int,
    folder: str,
) -> dict[str, Any]:
    """Write the files into `folder`; return what is known without running them.

    Raises:
        ModelError, UsageError, DatasetError: the source or the data can't be used.
        ConversionError: there is not even a float file.

    """
    choices = codec.decode(SourceOptions, options, "options")
    data = datasets.Calibration.open(Path(calibration))
    report_progress("loading TensorFlow")
    model = sources.load(Path(source), format, choices)
    chosen = parse_preprocessing(preprocess, model.inputs)
    loaded = data.load(model.inputs, chosen, limit=samples + COMPARED)
    ordered = [loaded[place] for place in curve.spread_order(len(loaded))]
    _save(ordered, Path(folder) / SAMPLES)
    inputs = ordered[:samples]
    report_progress("looking whether the samples suit the model")
    known = probe.Data(
        samples=inputs, preprocessing=chosen, pixels=data.holds_pixels(model.inputs), files=data.holds_files
    )
    evidence, alike = probe.look_closely(model, known)
    counts, problem = _quantize(model, inputs, Path(folder))
    return {
        "inputs": codec.encode(model.inputs),
        "outputs": list(model.output_names),
        "preprocessing": codec.encode(chosen),
        "samples": len(inputs),
        "loaded": len(ordered),
        "distinct": probe.alike(inputs)[0],
        "counts": counts,
        "problem": problem,
        "notes": list(model.notes),
        "evidence": codec.encode(evidence),
        "alike": codec.encode(alike),
    }


def _quantize(model: SourceModel, inputs: Sequence[Inputs], folder: Path) -> tuple[list[int], str | None]:
    """Write the float file and the int8 ones; return the numbers of samples, and why there is no int8 file."""
    from tflotilla.host.models.integer_quantizer import Calibrated

    report_progress("converting to float32")
    (folder / FLOAT).write_bytes(Maker(model, None, None, per_channel=True).make(QuantizationScheme.FLOAT32))
    counts: list[int] = []
    try:
        report_progress("measuring ranges")
        maker = Maker(model, inputs[:1], None, per_channel=True)
        maker.make(QuantizationScheme.INT8)
        # What the converter quantizes: operators named as in the int8 files.
        base = maker.calibrated()
        (folder / FLOAT).write_bytes(base)
        growing = Calibrated(base, inputs[:1])
        known = 1
        for count in sorted({*curve.ladder(len(inputs)), curve.half(len(inputs))}):
            report_progress(f"quantizing with {count} of {len(inputs)} samples")
            if count > known:
                growing.extend(inputs[known:count])
                known = count
            (folder / int8_name(count)).write_bytes(growing.quantize())
            counts.append(count)
    except ConversionError as error:
        return counts, str(error)
    except Exception as error:  # noqa: BLE001 - the quantizer raises whatever its passes raise
        return counts, " ".join(str(error).split())[:240]
    return counts, None


def _save(inputs: Sequence[Inputs], path: Path) -> None:
    tensors = {f"input{i}": np.stack([sample[i] for sample in inputs]) for i in range(len(inputs[0]))}
    np.savez(path, **tensors)
