"""From a trained model to TFLite files: every scheme in one load of TensorFlow, each file run before it is handed over.

    detect the format → (child) load, calibrate, convert every scheme → inspect → (child) run and compare → rename

Rules it keeps:
- foreign files and TensorFlow live in a child process without keys; a crash there costs one scheme, not the others;
- a file appears under its final name only when it is whole, computes what its source computes, and, with a target
  runtime, when that runtime's table of op versions accepts it and (where it is installed) it computes right there;
- the same source, data and options give the same bytes.

What it does NOT do: measure accuracy (`evaluate`), decide per board (`compatibility`).
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import child, compatibility, delivery, fidelity, quantize, sources
from tflotilla.host.models.inspect import ModelInspection, inspect_model
from tflotilla.host.models.sources import SourceOptions
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import BoardError, ConversionError, ModelError, UsageError
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import QuantizationScheme, TensorSpec
from tflotilla.shared.inference import preprocessing as preprocessings
from tflotilla.shared.inference import runtime as runtimes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

DEFAULT_SAMPLES = 100
#: The runtimes a file is tried on when no target is named, best first: newer kernels know older files.
_TRIED = ("ai-edge-litert", "tflite-runtime")
#: TFLite's quantizer leaves smaller weights in float where activations are not quantized (`min_elements_for_weights`).
_LEAST_QUANTIZED = 1024

_SHORT_NAMES = {"litert": "ai-edge-litert"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionRequest:
    """What to convert, to what, and how."""

    source: Path
    #: A folder for `STEM-SCHEME.tflite`, or one file ending in `.tflite`.
    output: Path
    schemes: tuple[QuantizationScheme, ...]
    calibration: Path | None = None
    #: As behind `--preprocess`, or the value itself.
    preprocess: str | Preprocessing | None = None
    target: RuntimeOffer | None = None
    samples: int = DEFAULT_SAMPLES
    #: One scale per output channel of a weight (int8 weights of any scheme), else one per weight.
    per_channel: bool = True
    options: SourceOptions = field(default_factory=SourceOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedFile:
    """One file that was made."""

    scheme: QuantizationScheme
    path: Path
    #: With zlib at level 9: about what a download takes.
    compressed_bytes: int
    inspection: ModelInspection
    fidelity: fidelity.Fidelity
    #: Other runtimes that are here and can't run it right: name → why.
    fails_on: Mapping[str, str] = field(default_factory=dict)

    @property
    def weight_scales(self) -> str | None:
        """How the 8-bit weights are scaled, as the file itself says: "per channel", "per tensor", None without any."""
        counts = {
            len(tensor.quantization.scales)
            for tensor in self.inspection.tensors
            if tensor.quantization is not None and tensor.constant_bytes and tensor.dtype == "int8"
        }
        return None if not counts else "per channel" if max(counts) > 1 else "per tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What the runtimes here make of one file."""

    fidelity: fidelity.Fidelity
    fails_on: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionReport:
    """What was made, and why the rest was not."""

    source: Path
    format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    files: tuple[ConvertedFile, ...]
    #: Scheme → the reason, naming the op where there is one.
    failures: Mapping[QuantizationScheme, str]
    notes: tuple[str, ...]
    preprocessing: Preprocessing | None


def parse_target(text: str) -> RuntimeOffer:
    """Parse `--target-runtime`, like `tflite-runtime==2.14.0`. Raises UsageError."""
    name, separator, version = text.partition("==")
    name = _SHORT_NAMES.get(name.strip(), name.strip())
    if not separator or name not in runtimes.ADAPTERS or not version.strip()[:1].isdigit():
        known = " or ".join(f"{name}==VERSION" for name in runtimes.ADAPTERS)
        raise UsageError(f"--target-runtime {text!r}: expected {known}, like tflite-runtime==2.14.0")
    return RuntimeOffer(name=name, version=version.strip())


def parse_schemes(texts: Iterable[str]) -> tuple[QuantizationScheme, ...]:
    """Parse `--scheme` values; `all` is every scheme. Order is kept, repetition dropped. Raises UsageError."""
    found: list[QuantizationScheme] = []
    for text in texts:
        if text == "all":
            found += list(QuantizationScheme)
            continue
        try:
            found.append(QuantizationScheme(text.replace("-", "_")))
        except ValueError:
            known = ", ".join(scheme.value for scheme in QuantizationScheme)
            raise UsageError(f"--scheme {text!r}: expected one of {known}, all") from None
    return tuple(dict.fromkeys(found))


def convert(request: ConversionRequest, on_progress: Callable[[str], None] | None = None) -> ConversionReport:
    """Convert a model.

    Raises:
        UsageError: options that contradict each other or the model.
        ModelError: the source can't be read, or carries code that nobody allowed.
        DatasetError: the calibration data can't be used.
        ConversionError: no scheme could be made; the reason is the first one's.
        InputError: the output can't be written.

    """
    _check(request)
    name = sources.detect(request.source)
    say = on_progress or _say_nothing
    with tempfile.TemporaryDirectory(prefix="tflotilla-convert-") as folder:
        made = _run(request, name, Path(folder), say)
        failures = {QuantizationScheme(scheme): reason for scheme, reason in made["failures"].items()}
        files = {s: path for s in request.schemes if (path := Path(folder) / f"{s.value}.tflite").exists()}
        say("running the files")
        notes = list(made["notes"])
        reference = Path(folder) / quantize.REFERENCE
        limit_s = fidelity.LOOPING_TIMEOUT_S if made["loops"] else fidelity.TIMEOUT_S
        found = _follow(request, files, reference, notes, limit_s)
        for scheme, followed in found.items():
            if followed.fidelity.reason is not None:
                failures[scheme] = _spell(followed.fidelity.runtime, followed.fidelity.reason)
                del files[scheme]
        if not files:
            scheme, reason = next((s, failures[s]) for s in request.schemes if s in failures)
            raise ConversionError(f"{request.source}: {scheme.value}: {reason}")
        delivered = tuple(_deliver(request, scheme, path, found[scheme]) for scheme, path in files.items())
        notes += _float_in_disguise(delivered)
    return ConversionReport(
        source=request.source,
        format=name,
        inputs=tuple(codec.decode(TensorSpec, entry, "inputs") for entry in made["inputs"]),
        outputs=tuple(made["outputs"]),
        files=delivered,
        failures={scheme: failures[scheme] for scheme in request.schemes if scheme in failures},
        notes=tuple(notes),
        preprocessing=None
        if made["preprocessing"] is None
        else codec.decode(Preprocessing, made["preprocessing"], "preprocessing"),
    )


def _check(request: ConversionRequest) -> None:
    if not request.schemes:
        raise UsageError("no scheme; give --scheme float32, int8, all, …")
    if request.samples < 1:
        raise UsageError(f"--samples must be at least 1, not {request.samples}")
    if isinstance(request.preprocess, str):
        preprocessings.parse(request.preprocess)
    uncalibrated = [scheme.value for scheme in request.schemes if scheme.needs_calibration]
    if uncalibrated and request.calibration is None:
        raise UsageError(
            f"{', '.join(uncalibrated)}: activations are quantized, so representative data are needed; "
            "give --calibration (a folder of images, a .npy or a .npz)"
        )
    if request.output.suffix == ".tflite":
        if len(request.schemes) > 1:
            raise UsageError(
                f"{request.output} is one file and {len(request.schemes)} schemes are asked; give a folder"
            )
        if request.output.is_dir():
            raise UsageError(f"{request.output} is a folder; give a file, or a folder not ending in .tflite")
        if request.output.resolve() == request.source.resolve():
            raise UsageError(f"{request.output} is the source itself; give another name")
    elif request.output.exists() and not request.output.is_dir():
        raise UsageError(f"{request.output} exists and is not a folder; end it in .tflite to name the file itself")
    delivery.check_writable(request.output)


def _say_nothing(text: str) -> None:
    del text


def _run(request: ConversionRequest, name: str, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Convert in a child; after a crash, go on behind what crashed it: the comparison, or one scheme."""
    pending = list(request.schemes)
    crashed: dict[str, str] = {}
    notes: list[str] = []
    compare = True
    while True:
        (folder / quantize.CURRENT).unlink(missing_ok=True)
        try:
            made: dict[str, Any] = child.call(
                "tflotilla.host.models.quantize:run",
                _arguments(request, name, pending, folder) | {"compare": compare},
                doing=f"converting {request.source}",
                on_progress=say,
            )
        except ModelError as error:
            if not (folder / quantize.CURRENT).exists():
                raise
            guilty = (folder / quantize.CURRENT).read_text()
            compare = False  # done by now, or what crashed
            if guilty == quantize.COMPARING:
                notes.append(f"the files were not compared with the source: {error}")
                continue
            risk = folder / quantize.RISK
            cause = f"its quantizer can't do {risk.read_text()}; " if risk.exists() else ""
            crashed[guilty] = f"TensorFlow's converter died: {cause}{error}"
            pending = pending[[scheme.value for scheme in pending].index(guilty) + 1 :]
            if not pending and not any(folder.glob("*.tflite")):
                raise ConversionError(str(error)) from error
        else:
            # What was refused before a crash is told by files: its answer died with the child.
            refused = {path.stem: path.read_text() for path in folder.glob(f"*{quantize.REFUSED}")}
            made["failures"] = crashed | refused
            made["notes"] += notes
            return made


def _arguments(
    request: ConversionRequest, name: str, schemes: Sequence[QuantizationScheme], folder: Path
) -> dict[str, Any]:
    return {
        "source": str(request.source.absolute()),
        "format": name,
        "options": request.options,
        "schemes": [scheme.value for scheme in schemes],
        "calibration": None if request.calibration is None else str(request.calibration.absolute()),
        "preprocess": request.preprocess,
        "target": request.target,
        "samples": request.samples,
        "per_channel": request.per_channel,
        "folder": str(folder),
    }


def _follow(
    request: ConversionRequest,
    files: Mapping[QuantizationScheme, Path],
    reference: Path,
    notes: list[str],
    limit_s: float,
) -> dict[QuantizationScheme, Followed]:
    """Run the files on the target runtime, without one on all that are here; nothing compared is said, never an error.

    Without a target one runtime that computes a file right is enough; what the others make of it is said.
    """
    unknown = {scheme: Followed(fidelity=fidelity.Fidelity(runtime=None, sqnr_db=None)) for scheme in files}
    if not files or not reference.exists():
        return unknown
    wanted = [request.target.name] if request.target is not None else []
    tried: dict[str, Mapping[QuantizationScheme, fidelity.Fidelity]] = {}
    for name in dict.fromkeys([*wanted, *_TRIED]):
        try:
            tried[name] = fidelity.measure(files, reference, name, timeout_s=limit_s)
        except BoardError as error:
            if name in wanted:
                notes.append(f"not tried on {request.target}: {error}")
            continue
        if request.target is not None:
            offers = {entry.runtime for entry in tried[name].values() if entry.runtime is not None}
            if request.target.name == name and request.target not in offers:
                notes.append(f"tried on {', '.join(map(str, offers))}; {request.target} is not installed here")
            break
    if not tried:
        notes.append("not run: no runtime is installed here")
    return unknown | {
        scheme: _best({name: entries[scheme] for name, entries in tried.items()}) for scheme in files if tried
    }


def _float_in_disguise(files: Iterable[ConvertedFile]) -> list[str]:
    """Say where dynamic range left every weight as it was: such a file is the float model under another name."""
    return [
        f"{made.scheme.value}: no weight was quantized, the file is float32 still: TFLite leaves weights of fewer than "
        f"{_LEAST_QUANTIZED:,} values alone, and ops that take no int8 weights"
        for made in files
        if made.scheme is QuantizationScheme.DYNAMIC_RANGE and made.weight_scales is None
    ]


def _spell(offer: RuntimeOffer | None, reason: str) -> str:
    return reason if offer is None or str(offer) in reason else f"on {offer}: {reason}"


def _best(found: Mapping[str, fidelity.Fidelity]) -> Followed:
    """Return what the first runtime that computes a file right found, else the first one's complaint. Pure."""
    good = next((entry for entry in found.values() if entry.reason is None), None)
    if good is None:
        return Followed(fidelity=next(iter(found.values())))
    return Followed(fidelity=good, fails_on={name: entry.reason for name, entry in found.items() if entry.reason})


def _deliver(request: ConversionRequest, scheme: QuantizationScheme, made: Path, found: Followed) -> ConvertedFile:
    target = request.output
    if target.suffix != ".tflite":
        stem = request.source.stem if request.source.is_file() else request.source.name
        target = target / f"{stem}-{scheme.value}.tflite"
    delivery.deliver(made, target)
    return ConvertedFile(
        scheme=scheme,
        path=target,
        compressed_bytes=len(zlib.compress(target.read_bytes(), 9)),
        inspection=inspect_model(target),
        fidelity=found.fidelity,
        fails_on=found.fails_on,
    )


def accepting(inspection: ModelInspection, *, without: Collection[str] = ()) -> str:
    """Name the oldest version of each runtime from which on every measured one accepts the ops; "" when none does.

    Runtimes named in `without` accept the ops and still fail.
    """
    oldest: dict[str, str] = {}
    for table in sorted(compatibility.known_tables(), key=lambda table: compatibility.version_key(table.version)):
        offer = RuntimeOffer(name=table.name, version=table.version)
        if compatibility.check_runtime(inspection.requirements, offer).ok:
            oldest.setdefault(table.name, table.version)
        else:
            oldest.pop(table.name, None)
    return ", ".join(f"{name} ≥ {version}" for name, version in sorted(oldest.items()) if name not in without)
