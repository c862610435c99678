"""`tflotilla bundle`: make, show and verify signed releases of a model."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract.errors import ConfigError, UsageError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.shared.contract.manifest import HealthPolicy, Reference
    from tflotilla.shared.contract.processing import Postprocessing

_SHOWN_LABELS = 3
#: Tenths of a score from which on an answer is a sure one.
_SURE = 9

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Signed, content-addressed releases of a model: manifest, model, labels, goldens.",
)
_Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
_BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .tflb file or a bundle's folder.")]
_FleetOption = Annotated[
    Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET, ./fleet.toml.")
]


@app.command("create")
def create(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The .tflite file.")],
    version: Annotated[str, typer.Option(help="Version that people read: 1.0.0.")],
    name: Annotated[str | None, typer.Option(help="Name of the model; default is the file's.")] = None,
    release: Annotated[
        int | None,
        typer.Option(help="Number that must grow; default is one more than the newest bundle of that name beside OUT."),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Text file, one label a line.")] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(help="mobilenet, unit, raw, squeezenet, and KEY=VALUE: unit,resize=crop. Without: no images."),
    ] = None,
    postprocess: Annotated[
        str | None,
        typer.Option(help="classification, detection or raw, and top_k=5,softmax=true,score_threshold=0.5."),
    ] = None,
    goldens: Annotated[
        Path | None, typer.Option(help="Images, .npy or .npz to make goldens from; default is seeded noise.")
    ] = None,
    golden_count: Annotated[int, typer.Option(min=1, max=1000, help="How many goldens.")] = 8,
    reference: Annotated[
        str | None, typer.Option(help="Runtime to believe when they disagree: ai-edge-litert or tflite-runtime.")
    ] = None,
    tolerance_lsb: Annotated[
        int | None, typer.Option(min=0, help="Steps that integer outputs may differ by on a board.")
    ] = None,
    evaluation: Annotated[Path | None, typer.Option(help="What `tflotilla evaluate --json` wrote.")] = None,
    representative: Annotated[
        Path | None,
        typer.Option(help="Images or arrays like boards will see, to tell drift by; default --evaluation, --goldens."),
    ] = None,
    health: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE, repeated: max_p99_ms=20, confirm_window_s=30, max_rss_mib=none."),
    ] = None,
    audience: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE, repeated: labels that boards must have.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="SSH key that signs (.pub: from the agent); default is the fleet's signing.key.")
    ] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Don't sign; boards will refuse the bundle.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT", help="OUT.tflb or a folder; default NAME-VERSION.tflb."),
    ] = None,
    fleet: _FleetOption = None,
    as_json: _Json = False,
) -> None:
    """Make a signed bundle: goldens from every runtime of this machine, a manifest, a signature over all of it.

    Example: tflotilla bundle create digits.tflite --version 1.0.0 --labels digits.txt --preprocess unit
    --goldens photos/ --key ~/.ssh/id_ed25519

    Exit codes: 0 made, 2 usage, 3 model, labels, data or key can't be used.
    """
    from tflotilla.host.bundles import build

    chosen = name if name is not None else _name_of(model)
    summary, answers = (None, None) if evaluation is None else build.read_evaluation(evaluation, model)
    notes: list[str] = []
    with output.progress(f"bundle {chosen}-{version}") as on_progress:
        request = build.BundleRequest(
            model=model,
            name=chosen,
            version=version,
            output=out if out is not None else Path(f"{chosen}-{version}.tflb"),
            release=release,
            labels=labels,
            preprocessing=None if preprocess is None else build.parse_preprocessing(preprocess, model),
            postprocessing=None if postprocess is None else _postprocessing(postprocess),
            goldens=goldens,
            golden_count=golden_count,
            reference=reference,
            tolerance_lsb=tolerance_lsb,
            evaluation=summary,
            # Who names data to tell drift by means that.
            answers=answers if representative is None else None,
            representative=representative,
            health=_health(health or []),
            audience=_audience(audience or []),
            key=_key(key, fleet, unsigned=unsigned),
        )
        bundle = build.create(request, on_progress=on_progress, note=notes.append)
    for line in notes:
        output.note(f"note: {line}")
    if as_json:
        output.emit_json(_facts(bundle) | {"notes": notes})
    else:
        _show(bundle)


@app.command("show")
def show(bundle: _BundlePath, as_json: _Json = False) -> None:
    """Show what a bundle is, needs and promises. Nothing is verified but its shape.

    Example: tflotilla bundle show digits-1.0.0.tflb

    Exit codes: 0 shown, 3 not a bundle, 8 a file's size is not what the manifest says.
    """
    from tflotilla.host.bundles.archive import Bundle

    opened = Bundle.open(bundle)
    if as_json:
        output.emit_json(_facts(opened))
    else:
        _show(opened)


@app.command("verify")
def verify(
    bundle: _BundlePath,
    allowed_signers: Annotated[
        Path | None, typer.Option(help="File of ssh-keygen(1), ALLOWED SIGNERS; default is the fleet's.")
    ] = None,
    fleet: _FleetOption = None,
    as_json: _Json = False,
) -> None:
    """Verify every byte of a bundle and who signed it, as a board does.

    Without a file of allowed signers the signature is checked against its own key, and that is said.

    Example: tflotilla bundle verify digits-1.0.0.tflb --allowed-signers allowed_signers

    Exit codes: 0 verified, 3 not a bundle, 8 unsigned, edited after signing, or signed by a stranger.
    """
    from tflotilla.host.bundles import signing
    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.shared.inference import goldens

    opened = Bundle.open(bundle)
    if opened.signature is None:
        raise VerificationError(f"{bundle}: nobody signed it")
    signers = allowed_signers if allowed_signers is not None else _fleet_signers(fleet)
    try:
        if signers is None:
            signer = signing.check_own_key(opened.manifest_bytes, opened.signature)
        else:
            signer = signing.verify(opened.manifest_bytes, opened.signature, allowed_signers=signers)
    except VerificationError as error:
        raise VerificationError(f"{bundle}: {error}") from error
    opened.verify_files()
    vectors = goldens.load(opened.read("goldens.npz"))
    if as_json:
        document = {"bundle": str(bundle), "digest": opened.digest, "title": opened.manifest.title, "signer": signer}
        output.emit_json(document | {"allowed": signers is not None, "files": sorted(opened.manifest.files)})
        return
    files = len(opened.manifest.files)
    output.console().print(
        f"{opened.manifest.title}: {files} files and {len(vectors)} goldens are what the manifest names; "
        f"signed by {signer}",
        markup=False,
    )
    if signers is None:
        output.note("note: whether that key is allowed was not checked; --allowed-signers does")


def _name_of(model: Path) -> str:
    stem = model.stem.lower()
    if not re.fullmatch(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?", stem):
        raise UsageError(f"{model.name!r} makes no name for a bundle; give --name")
    return stem


def _key(key: Path | None, fleet: Path | None, *, unsigned: bool) -> Path | None:
    if unsigned:
        if key is not None:
            raise UsageError("--key and --unsigned contradict each other")
        return None
    if key is not None:
        return key.expanduser()
    from tflotilla.host.fleet.inventory.fleet import Fleet, locate

    if fleet is not None or locate(None).is_file():
        loaded = Fleet.load(fleet)
        if loaded.signing.key is not None:
            return loaded.resolve(loaded.signing.key)
    raise UsageError("who signs? Give --key ~/.ssh/id_ed25519, or set [signing] key in fleet.toml, or say --unsigned")


def _fleet_signers(fleet: Path | None) -> Path | None:
    from tflotilla.host.fleet.inventory.fleet import Fleet, locate

    if fleet is None and not locate(None).is_file():
        return None
    try:
        return Fleet.load(fleet).allowed_signers()
    except ConfigError:
        if fleet is not None:
            raise
        return None


def _postprocessing(text: str) -> Postprocessing:
    """Read `classification,top_k=5,softmax=true`. Raises UsageError."""
    from tflotilla.shared.contract import codec
    from tflotilla.shared.contract.errors import ContractError
    from tflotilla.shared.contract.processing import Postprocessing

    kind, *settings = (part.strip() for part in text.split(","))
    document: dict[str, Any] = {"kind": kind}
    document |= {key: _value(value) for key, value in _pairs(settings, "--postprocess").items()}
    try:
        return codec.decode(Postprocessing, document, "--postprocess", strict=True)
    except ContractError as error:
        raise UsageError(str(error)) from error


def _health(settings: Sequence[str]) -> HealthPolicy:
    from tflotilla.shared.contract import codec
    from tflotilla.shared.contract.errors import ContractError
    from tflotilla.shared.contract.manifest import HealthPolicy

    document = {key: _value(value) for key, value in _pairs(settings, "--health").items()}
    try:
        return codec.decode(HealthPolicy, document, "--health", strict=True)
    except ContractError as error:
        raise UsageError(str(error)) from error


def _value(text: str) -> float | bool | str | None:
    """Read a value of a KEY=VALUE pair: a number, true, false, none, or text."""
    words = {"true": True, "false": False, "none": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _audience(pairs: Sequence[str]) -> dict[str, str]:
    """Read labels that a board can have. Raises UsageError."""
    from tflotilla.host.fleet.selection.selectors import is_label

    found = _pairs(pairs, "--audience")
    for key, value in found.items():
        if not is_label(key, value):
            raise UsageError(f"--audience {key}={value}: no board can have this label")
    return found


def _pairs(pairs: Sequence[str], option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"{option} {pair!r}: write KEY=VALUE")
        if key in found:
            raise UsageError(f"{option} {pair!r}: {key} is given twice")
        found[key] = value
    return found


def _facts(bundle: Bundle) -> dict[str, Any]:
    return {
        "path": str(bundle.path),
        "digest": bundle.digest,
        "size_bytes": bundle.size_bytes,
        "signer": _signer(bundle),
        "manifest": dataclasses.asdict(bundle.manifest),
    }


def _signer(bundle: Bundle) -> str | None:
    from tflotilla.host.bundles import signing

    return None if bundle.signature is None else signing.signer(bundle.signature)


def _show(bundle: Bundle) -> None:
    manifest = bundle.manifest
    rows = [
        ("bundle", f"{manifest.title}, release {manifest.release}, made {manifest.created}"),
        ("digest", bundle.digest),
        ("file", f"{bundle.path}, {bundle.size_bytes:,} bytes"),
        ("signed by", _signer(bundle) or "nobody; boards will refuse it"),
        ("scheme", manifest.scheme.value),
        *(("input", _tensor(spec)) for spec in manifest.inputs),
        *(("output", _tensor(spec)) for spec in manifest.outputs),
        ("preprocessing", _values(manifest.preprocessing) if manifest.preprocessing else "none: takes no images"),
        ("postprocessing", _values(manifest.postprocessing)),
        ("ops", ", ".join(f"{op.name} {op.version}" for op in manifest.requirements.ops)),
        *(("custom ops", ", ".join(ops)) for ops in (manifest.requirements.custom_ops,) if ops),
        ("goldens", _goldens(bundle)),
        *(("not for", ", ".join(names)) for names in (manifest.goldens.not_reproduced_by,) if names),
        ("health", _values(manifest.health)),
    ]
    if manifest.evaluation:
        rows.append(("evaluation", _values(manifest.evaluation)))
    rows.append(("reference", _reference(manifest.reference)))
    if manifest.audience:
        rows.append(("audience", ", ".join(f"{key}={value}" for key, value in sorted(manifest.audience.items()))))
    output.emit_table(manifest.title, ("what", "value"), rows)


def _reference(reference: Reference | None) -> str:
    if reference is None:
        return "none: nothing to tell drift by"
    most = sorted(reference.labels.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{label} {count / reference.samples:.0%}" for label, count in most[:_SHOWN_LABELS])
    more = "" if len(most) <= _SHOWN_LABELS else f", … {len(most)} labels"
    sure = f"{sum(reference.scores[_SURE:]) / reference.samples:.0%} score {_SURE / 10:g} or more"
    return f"{reference.samples:,} answers of {reference.data} data: {shown}{more}; {sure}"


def _goldens(bundle: Bundle) -> str:
    policy = bundle.manifest.goldens
    if policy.comparison == "detections":
        return (
            f"{policy.count} from {policy.runtime}, boxes of {policy.min_score:g} or more to be found again, "
            f"scores within {policy.tolerance_absolute:g}, overlap {policy.min_iou:.0%} or more"
        )
    integers = any(spec.dtype.startswith(("int", "uint")) for spec in bundle.manifest.outputs)
    floats = f"{policy.tolerance_absolute:g} + {policy.tolerance_relative:g} of the greatest"
    tolerance = f"{policy.tolerance_lsb} LSB" if integers else floats
    return f"{policy.count} from {policy.runtime}, to be reproduced within {tolerance}"


def _tensor(spec: Any) -> str:  # noqa: ANN401 - a TensorSpec, imported by nobody here
    shape = "x".join("?" if size < 0 else str(size) for size in spec.shape)
    scale = ""
    if spec.quantization is not None and len(spec.quantization.scales) == 1:
        scale = f", scale {spec.quantization.scales[0]:.6g}, zero point {spec.quantization.zero_points[0]}"
    return f"{spec.name}: {spec.dtype} {shape}{scale}"


def _values(value: Any) -> str:  # noqa: ANN401 - any dataclass of the contract
    def one(item: Any) -> str:  # noqa: ANN401 - its fields
        return ":".join(f"{part:g}" for part in item) if isinstance(item, tuple) else str(item).lower()

    return ", ".join(f"{field.name}={one(getattr(value, field.name))}" for field in dataclasses.fields(value))
