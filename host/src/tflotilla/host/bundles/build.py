"""Make a bundle: read the model, make goldens, write the manifest, sign it. All of it, or nothing is written.

The same request gives the same bytes, but for the time: SOURCE_DATE_EPOCH sets that too. What it does NOT do: convert,
evaluate, or send. A bundle needs a runtime on this machine that can run its model: without goldens nobody could tell
whether a board computes right, so none is made.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.bundles import archive, goldens, labels, references, signing
from tflotilla.host.bundles.archive import Bundle
from tflotilla.host.models import compatibility, samples
from tflotilla.host.models.evaluate import Answers
from tflotilla.host.models.inspect import inspect_model
from tflotilla.shared.contract import codec, digest
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import InputError, ModelError, TflotillaError, UsageError
from tflotilla.shared.contract.manifest import (
    GOLDENS,
    LABELS,
    MANIFEST,
    MODEL,
    SCHEMA,
    SIGNATURE,
    EvaluationSummary,
    FileEntry,
    GoldenPolicy,
    HealthPolicy,
    Manifest,
    Reference,
)
from tflotilla.shared.contract.processing import Postprocessing, Preprocessing
from tflotilla.shared.inference import preprocessing
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.postprocessing import Answerer
from tflotilla.shared.inference.preprocessing import Preprocessor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tflotilla.host.models.inspect import ModelInspection

_IMAGE_DIMENSIONS = 4
_DETECTION_OP = "TFLite_Detection_PostProcess"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRequest:
    """What goes into a bundle."""

    model: Path
    name: str
    version: str
    #: A file that ends in `.tflb`, or a folder.
    output: Path
    #: None: one more than the newest bundle of that name beside `output`, or 1.
    release: int | None = None
    labels: Path | None = None
    #: How images become inputs; None where boards don't feed images.
    preprocessing: Preprocessing | None = None
    #: None: what the outputs look like.
    postprocessing: Postprocessing | None = None
    #: Images or arrays to make goldens from; None is seeded noise.
    goldens: Path | None = None
    golden_count: int = 8
    #: Name of the runtime whose outputs are the goldens; None is the one the others agree with.
    reference: str | None = None
    #: None: what this machine's runtimes differ by, and one step.
    tolerance_lsb: int | None = None
    evaluation: EvaluationSummary | None = None
    #: What it answered in that evaluation: makes the reference for drift.
    answers: Answers | None = None
    #: Images or arrays like those boards will see, for the reference where no evaluation is; None: those of `goldens`.
    representative: Path | None = None
    health: HealthPolicy = field(default_factory=HealthPolicy)
    audience: Mapping[str, str] = field(default_factory=dict)
    #: The SSH key that signs; None makes a bundle that no board takes.
    key: Path | None = None


def create(
    request: BundleRequest,
    *,
    on_progress: Callable[[str], None] = lambda _text: None,
    note: Callable[[str], None] = lambda _text: None,
) -> Bundle:
    """Make a bundle and write it to `request.output`.

    Args:
        request: what goes in.
        on_progress: is told what goes on.
        note: is told what the user should know of the bundle.

    Raises:
        InputError: of the model, the labels, the data, the key: one line that names the file.
        UsageError: a name, version, or figure that can't be.

    """
    inspection = inspect_model(request.model)
    processing = request.postprocessing or default_postprocessing(inspection)
    manifest = _draft(request, inspection, processing)
    _check_output(request)
    _check_runnable(request.model, inspection)
    names = _labels(request, inspection, processing, note)
    _check_processing(request, inspection, processing, names)
    made = _goldens(request, inspection, processing, on_progress)
    on_progress("answering representative data")
    reference = _reference(request, processing, names, made, note)
    for line in _golden_notes(request, made):
        note(line)
    files = {MODEL: _unchanged(request.model, inspection), GOLDENS: made.data}
    if names:
        files[LABELS] = "".join(f"{name}\n" for name in names).encode()
    on_progress("signing" if request.key else "writing")
    members = seal(dataclasses.replace(manifest, goldens=made.policy, reference=reference), files, key=request.key)
    return Bundle.open(archive.write(request.output, members))


def seal(manifest: Manifest, files: Mapping[str, bytes], *, key: Path | None) -> dict[str, bytes]:
    """Write the files' sizes and digests into the manifest and sign it; return every member of the bundle.

    `manifest.files` is replaced, so a bundle that was taken apart can be put together again with other files.
    """
    entries = {name: FileEntry(size=len(data), sha256=digest.of_bytes(data)) for name, data in files.items()}
    data = dataclasses.replace(manifest, files=entries).to_bytes()
    signature = {} if key is None else {SIGNATURE: signing.sign(data, key)}
    return {**files, MANIFEST: data, **signature}


def default_postprocessing(inspection: ModelInspection) -> Postprocessing:
    """Return what the outputs look like: boxes of the detection op, scores of classes, or numbers of another kind."""
    if _DETECTION_OP in inspection.requirements.custom_ops:
        return Postprocessing(kind="detection")
    if any(spec.dtype == "string" for spec in inspection.outputs):
        return Postprocessing(kind="raw")
    shape = [size for size in inspection.outputs[0].shape if size not in (1, -1)] if inspection.outputs else []
    return Postprocessing(kind="classification" if len(shape) == 1 else "raw")


def parse_preprocessing(text: str, model: Path) -> Preprocessing:
    """Read `--preprocess` for a model: one that takes gray images gets gray ones. Raises UsageError, ModelError."""
    inputs = inspect_model(model).inputs
    channels = inputs[0].shape[-1] if inputs and len(inputs[0].shape) == _IMAGE_DIMENSIONS else None
    return preprocessing.parse(text, channels=channels)


def read_evaluation(path: Path, model: Path) -> tuple[EvaluationSummary, Answers | None]:
    """Read what `tflotilla evaluate --json` wrote about this model: how good it was, and what it answered.

    Raises:
        InputError: it isn't such a report, or holds nothing about the model.

    """
    try:
        document = codec.parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    reports = [entry for entry in _dictionaries(document) if {"samples", "accuracy", "runtime"} <= entry.keys()]
    if not reports:
        raise InputError(f"{path}: no report of `tflotilla evaluate --json`")
    # A manifest holds accuracy alone: of a detector's report there is nothing to take.
    entries = [entry for entry in reports if entry["accuracy"] is not None]
    if not entries:
        raise InputError(f"{path}: reports no accuracy, only {reports[0].get('metric', 'other figures')}")
    sha256 = digest.of_file(model) if model.is_file() else ""
    named = [entry for entry in entries if entry.get("sha256") == sha256]
    named = named or [entry for entry in entries if Path(str(entry.get("model", ""))).name == model.name]
    if not named and len(entries) > 1:
        raise InputError(f"{path}: reports on {len(entries)} models, none of them {model.name}")
    entry = (named or entries)[0]
    said = entry.get("answers")
    answers = None if said is None else codec.decode(Answers, said, f"{path}: answers")
    return codec.decode(EvaluationSummary, entry, str(path)), answers


def _dictionaries(document: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    if isinstance(document, dict):
        yield document
        document = list(document.values())
    if isinstance(document, list):
        for item in document:
            yield from _dictionaries(item)


def newest_release(folder: Path, name: str) -> int:
    """Return the greatest release of that name among the bundles of a folder, 0 when there is none."""
    newest = 0
    for path in folder.glob(f"*{archive.SUFFIX}"):
        try:
            manifest = Bundle.open(path).manifest
        except TflotillaError:
            continue  # not a bundle that can be read, so not one that counts
        if manifest.name == name:
            newest = max(newest, manifest.release)
    return newest


def _goldens(
    request: BundleRequest,
    inspection: ModelInspection,
    processing: Postprocessing,
    on_progress: Callable[[str], None],
) -> goldens.Goldens:
    limit = request.golden_count * goldens.CANDIDATES_PER_GOLDEN
    try:
        return goldens.make(
            request.model,
            samples.load(request.goldens, inspection.inputs, request.preprocessing, limit=limit),
            inspection.outputs,
            count=request.golden_count,
            reference=request.reference,
            tolerance_lsb=request.tolerance_lsb,
            score_threshold=processing.score_threshold if processing.kind == "detection" else None,
            on_progress=on_progress,
        )
    except ModelError as error:
        raise ModelError(f"{request.model}: {error}") from error


def _reference(
    request: BundleRequest,
    processing: Postprocessing,
    names: tuple[str, ...],
    made: goldens.Goldens,
    note: Callable[[str], None],
) -> Reference | None:
    """Return what drift will be measured from; that there is none is worth a line, not a refusal."""
    if processing.kind == "raw":
        return None
    if request.answers is not None:
        found = references.of_evaluation(request.answers, processing, names)
        if found is not None:
            return found
    data = request.representative or request.goldens
    if data is None:
        note("no --evaluation and no data: it has no reference, so nothing can tell whether boards' answers drift")
        return None
    runtime = made.agreement.reference.runtime.name
    try:
        return references.of_data(request.model, data, request.preprocessing, processing, names, runtime=runtime)
    except ModelError as error:
        note(f"it has no reference to tell drift by: {error}")
        return None


def _check_output(request: BundleRequest) -> None:
    """Refuse a place that can't be written before the long part begins."""
    parent = request.output.absolute().parent
    if not parent.is_dir():
        raise InputError(f"{parent}: there is no such folder")
    if request.output.suffix != archive.SUFFIX and request.output.is_file():
        raise InputError(f"{request.output}: a file; a bundle's name ends in {archive.SUFFIX}")
    if request.output.is_dir() and not (request.output / MANIFEST).is_file():
        raise InputError(f"{request.output}: a folder that is no bundle; name another, or a file {archive.SUFFIX}")
    if not os.access(parent, os.W_OK):
        raise InputError(f"{parent}: this folder is not yours to write in")
    if request.key is not None and not request.key.is_file():
        raise InputError(f"{request.key}: no such key; `ssh-keygen -t ed25519` makes one")
    if request.golden_count < 1:
        raise UsageError(f"--golden-count must be at least 1, not {request.golden_count}")


def _draft(request: BundleRequest, inspection: ModelInspection, processing: Postprocessing) -> Manifest:
    """Make the manifest without goldens and digests: what is wrong in it is said before goldens are made."""
    release = request.release
    if release is None:
        release = newest_release(request.output.absolute().parent, request.name) + 1
    unknown = FileEntry(size=0, sha256="0" * 64)
    try:
        return Manifest(
            schema=SCHEMA,
            name=request.name,
            version=request.version,
            release=release,
            created=_created(),
            scheme=inspection.scheme,
            files={MODEL: unknown, GOLDENS: unknown},
            requirements=inspection.requirements,
            inputs=inspection.inputs,
            outputs=inspection.outputs,
            preprocessing=request.preprocessing,
            postprocessing=processing,
            goldens=GoldenPolicy(count=request.golden_count, runtime=""),
            evaluation=request.evaluation,
            health=request.health,
            audience=dict(request.audience),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _created() -> str:
    """Return the time in RFC 3339, of SOURCE_DATE_EPOCH where it is set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"SOURCE_DATE_EPOCH={epoch!r}: expected seconds since 1970") from error


def _labels(
    request: BundleRequest, inspection: ModelInspection, processing: Postprocessing, note: Callable[[str], None]
) -> tuple[str, ...]:
    if request.labels is None:
        if processing.kind != "raw":
            note("no --labels: answers will be numbers of classes")
        return ()
    found = labels.read(request.labels)
    if processing.kind != "classification" or not inspection.outputs:
        return found
    classes = inspection.outputs[0].shape[-1] if inspection.outputs[0].shape else 1
    return found if classes < 1 else labels.fit(found, classes, where=request.labels, note=note)


def _check_processing(
    request: BundleRequest, inspection: ModelInspection, processing: Postprocessing, names: tuple[str, ...]
) -> None:
    """Build what the board will build, so that what doesn't fit is said here."""
    try:
        Answerer(processing, inspection.outputs, names)
        if request.preprocessing is not None and inspection.inputs:
            Preprocessor(request.preprocessing, inspection.inputs[0])
    except ModelError as error:
        raise ModelError(f"{request.model}: {error}") from error


def _check_runnable(model: Path, inspection: ModelInspection) -> None:
    """Say in our words, by op and version, what no runtime of this machine can run; the runtimes' words are worse."""
    offers = [RuntimeOffer(name=name, version=version) for name, version in _installed()]
    tensors = (*inspection.inputs, *inspection.outputs)
    verdicts = [compatibility.check_runtime(inspection.requirements, offer, tensors=tensors) for offer in offers]
    if not verdicts or any(verdict.ok or verdict.assumed for verdict in verdicts):
        return
    reasons = "; ".join(dict.fromkeys(map(str, verdicts)))
    raise ModelError(f"{model}: no runtime on this machine runs it, so no goldens can be made: {reasons}")


def _installed() -> list[tuple[str, str]]:
    """List the runtimes of this environment without importing them."""
    import importlib.metadata

    found = []
    for name in runtimes.ADAPTERS:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _unchanged(model: Path, inspection: ModelInspection) -> bytes:
    """Return the model's bytes; a file that was written meanwhile would get goldens of another one."""
    data = model.read_bytes()
    if digest.of_bytes(data) != inspection.sha256:
        raise InputError(f"{model}: was changed while the bundle was made; try again")
    return data


def _golden_notes(request: BundleRequest, made: goldens.Goldens) -> list[str]:
    agreement = made.agreement
    notes = [f"{variant} is not believed: {why}" for variant, why in sorted(agreement.refused.items())]
    notes += [
        f"boards that have only {runtime} will be refused by `check` and `deploy`"
        for runtime in made.policy.not_reproduced_by
    ]
    notes += [f"{name} doesn't run this model here: {why}" for name, why in made.missing.items() if _worth(why)]
    if agreement.warning:
        notes.append(agreement.warning)
    if made.policy.count < request.golden_count:
        why = "on which the runtimes agree" if made.policy.comparison == "detections" else "to make them from"
        notes.append(f"{made.policy.count} goldens, not {request.golden_count}: there are no more inputs {why}")
    if request.key is None:
        notes.append("not signed: no board will take it")
    return notes


def _worth(why: str) -> bool:
    """Whether a missing runtime is news: one that isn't installed isn't."""
    return "not installed" not in why
