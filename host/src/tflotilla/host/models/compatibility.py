"""Whether a board can run a model: what the model needs against what the board said of itself. Pure.

One runtime that fits is enough; everything else (memory, disk, Python, audience) must fit too. Op versions decide, not
`min_runtime_version`: they are what a runtime's loader checks. The versions that each runtime accepts were measured
(`op_table`) and lie beside this module; for a version never measured, the nearest lower one of the same runtime is
assumed, and the verdict says so.

What it does NOT do: talk to boards, or promise that the model computes right there. Versions lie, so goldens are
reproduced on every board; this check only saves the bytes of a bundle that can't work.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tflotilla.shared.contract.board import RuntimeOffer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from tflotilla.shared.contract.board import BoardFacts
    from tflotilla.shared.contract.manifest import Manifest, ModelRequirements
    from tflotilla.shared.contract.tensors import TensorSpec

OLDEST_PYTHON = (3, 10)
#: What `board bootstrap` has runtimes for.
ARCHITECTURES = ("x86_64", "aarch64", "armv7l")
#: Supervisor and worker without the model: the ceiling that `make bench` holds.
AGENT_BYTES = 90 << 20
#: What must stay free on the disk: the outbox's reserve and the journal must never meet a full one.
DISK_RESERVE_BYTES = 16 << 20
_EDGE_TPU_OP = "edgetpu-custom-op"
_SHOWN_REASONS = 3
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OpTable:
    """The ops that one version of a runtime accepts, op → (lowest, highest version), both included."""

    name: str
    version: str
    ops: Mapping[str, tuple[int, int]]
    custom_ops: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeVerdict:
    """Whether one runtime can load the model; `reasons` is empty when it can."""

    runtime: RuntimeOffer
    reasons: tuple[str, ...] = ()
    #: The version whose table was used because this one was never measured.
    assumed: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons

    def __str__(self) -> str:
        """The reasons in one line: `FULLY_CONNECTED version 12; tflite-runtime 2.14.0 accepts 1..10`."""
        return _joined(self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a board can run the model: one runtime that fits, and no reason of the board's own."""

    runtimes: tuple[RuntimeVerdict, ...]
    #: What speaks against the board itself, whatever the runtime.
    reasons: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the bundle may be sent."""
        return not self.reasons and any(verdict.ok for verdict in self.runtimes)

    @property
    def runtime(self) -> RuntimeOffer | None:
        """The first runtime that fits."""
        return next((verdict.runtime for verdict in self.runtimes if verdict.ok), None)

    def __str__(self) -> str:
        """The whole verdict in one line; `can run it` when it is good."""
        if self.ok:
            return "can run it"
        refused = () if self.runtime else tuple(str(verdict) for verdict in self.runtimes)
        return "; ".join((*self.reasons, *refused))


def check(
    requirements: ModelRequirements,
    facts: BoardFacts,
    *,
    tensors: Sequence[TensorSpec] = (),
    model_bytes: int = 0,
    bytes_needed: int = 0,
    audience: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    runtime: str = "auto",
    delegate: bool = False,
    not_reproduced_by: Collection[str] = (),
) -> Verdict:
    """Judge one model and one board.

    Args:
        requirements: what the model needs.
        facts: what the board is; without runtimes it isn't bootstrapped.
        tensors: inputs and outputs; texts can't be fed by the agent.
        model_bytes: size of the model, for the memory it takes.
        bytes_needed: what is to be written to the board's disk.
        audience: labels that the board must have.
        labels: labels that it has.
        runtime: the one runtime that the board's configuration allows, or `auto`.
        delegate: whether the board has an external delegate; it may bring custom ops that no table knows.
        not_reproduced_by: runtimes (`name==version`) that are known to compute something else.

    """
    reasons = [
        *_platform_reasons(facts),
        *_memory_reasons(requirements, facts, model_bytes),
        *_disk_reasons(facts, bytes_needed),
        *_audience_reasons(audience or {}, labels or {}),
    ]
    offers = [offer for offer in facts.runtimes if runtime in ("auto", offer.name)]
    if not facts.runtimes:
        reasons.insert(0, "not bootstrapped: no runtime is installed; `tflotilla board bootstrap` installs one")
    elif not offers:
        present = ", ".join(map(str, facts.runtimes))
        reasons.append(f"configured for {runtime}, which is not installed; it has {present}")
    verdicts = tuple(
        _with_goldens(
            check_runtime(requirements, offer, tensors=tensors, delegate=delegate), not_reproduced_by=not_reproduced_by
        )
        for offer in offers
    )
    return Verdict(runtimes=verdicts, reasons=tuple(reasons))


def check_bundle(
    manifest: Manifest,
    facts: BoardFacts,
    *,
    labels: Mapping[str, str] | None = None,
    runtime: str = "auto",
    delegate: bool = False,
    bytes_needed: int | None = None,
) -> Verdict:
    """Judge one bundle and one board; all its files count as needed unless `bytes_needed` says what is missing."""
    total = sum(entry.size for entry in manifest.files.values())
    return check(
        manifest.requirements,
        facts,
        tensors=(*manifest.inputs, *manifest.outputs),
        model_bytes=manifest.files["model.tflite"].size,
        bytes_needed=total if bytes_needed is None else bytes_needed,
        audience=manifest.audience,
        labels=labels,
        runtime=runtime,
        delegate=delegate,
        not_reproduced_by=manifest.goldens.not_reproduced_by,
    )


def check_runtime(
    requirements: ModelRequirements,
    offer: RuntimeOffer,
    *,
    tensors: Sequence[TensorSpec] = (),
    delegate: bool = False,
    tables: Sequence[OpTable] | None = None,
) -> RuntimeVerdict:
    """Judge one model and one runtime by the table of ops that it accepts."""
    table = nearest_table(offer, known_tables() if tables is None else tables)
    if table is None:
        reason = f"which ops {offer.name} {offer.version} accepts was never measured, nor those of a version before it"
        return RuntimeVerdict(runtime=offer, reasons=(reason,))
    assumed = table.version if version_key(table.version) != version_key(offer.version) else None
    reasons = [
        *_op_reasons(requirements, offer, table, assumed),
        *_custom_reasons(requirements, offer, table, delegate=delegate),
        *(
            f"tensor {spec.name!r} holds text; the agent feeds and reads numbers only"
            for spec in tensors
            if spec.dtype == "string"
        ),
    ]
    return RuntimeVerdict(runtime=offer, reasons=tuple(reasons), assumed=assumed)


def nearest_table(offer: RuntimeOffer, tables: Iterable[OpTable]) -> OpTable | None:
    """Return the table of that version, or of the nearest lower one; None when none is low enough.

    Newer runtimes accept what older ones did, so a lower table may refuse too much but never too little.
    """
    wanted = version_key(offer.version)
    fitting = [table for table in tables if table.name == offer.name and version_key(table.version) <= wanted]
    return max(fitting, key=lambda table: version_key(table.version), default=None)


def version_key(version: str) -> tuple[int, ...]:
    """Order versions by their numbers: 2.9 comes before 2.14; `2.1.0rc1` and `2.1` count as 2.1.0."""
    numbers = [int(number) for number in re.findall(r"\d+", re.split(r"[a-z+-]", version)[0])]
    return tuple((*numbers, 0, 0, 0)[: max(3, len(numbers))])


@functools.cache
def known_tables() -> tuple[OpTable, ...]:
    """Read the measured tables from `op_versions.json`."""
    text = importlib.resources.files(__package__).joinpath("op_versions.json").read_text()
    documents: list[dict[str, Any]] = json.loads(text)
    return tuple(
        OpTable(
            name=document["name"],
            version=document["version"],
            ops={op: (lowest, highest) for op, (lowest, highest) in document["ops"].items()},
            custom_ops=frozenset(document["custom_ops"]),
        )
        for document in documents
    )


def _with_goldens(verdict: RuntimeVerdict, *, not_reproduced_by: Collection[str]) -> RuntimeVerdict:
    if str(verdict.runtime) not in not_reproduced_by:
        return verdict
    runtime = f"{verdict.runtime.name} {verdict.runtime.version}"
    reason = f"{runtime} computes something else; that was found when the goldens were made"
    return dataclasses.replace(verdict, reasons=(*verdict.reasons, reason))


def newest_tables() -> tuple[OpTable, ...]:
    """Return the newest measured table of each runtime: what a board gets when it is bootstrapped today."""
    newest = {table.name: table for table in sorted(known_tables(), key=lambda table: version_key(table.version))}
    return tuple(newest[name] for name in sorted(newest))


def _op_reasons(
    requirements: ModelRequirements, offer: RuntimeOffer, table: OpTable, assumed: str | None
) -> Iterable[str]:
    source = f" (taken from {assumed})" if assumed else ""
    for op in requirements.ops:
        accepted = table.ops.get(op.name)
        if accepted is None:
            yield f"{op.name} version {op.version}; {offer.name} {offer.version} has no such op{source}"
        elif not accepted[0] <= op.version <= accepted[1]:
            lowest, highest = accepted
            yield f"{op.name} version {op.version}; {offer.name} {offer.version} accepts {lowest}..{highest}{source}"


def _custom_reasons(
    requirements: ModelRequirements, offer: RuntimeOffer, table: OpTable, *, delegate: bool
) -> Iterable[str]:
    if requirements.flex_ops:
        flex = ", ".join(requirements.flex_ops)
        yield f"TensorFlow ops {flex} need the Flex delegate, which {offer.name} doesn't have; convert without them"
    if delegate:
        # A delegate may claim custom ops; whether it does, only the probe on the board can tell.
        return
    for op in requirements.custom_ops:
        if op == _EDGE_TPU_OP:
            yield "the model is compiled for an Edge TPU; give the board its delegate, or deploy the uncompiled model"
        elif op not in table.custom_ops:
            yield f"custom op {op!r}; {offer.name} {offer.version} doesn't have it"


def _platform_reasons(facts: BoardFacts) -> Iterable[str]:
    if version_key(facts.python)[:2] < OLDEST_PYTHON:
        yield f"its Python {facts.python} is too old; the agent needs {'.'.join(map(str, OLDEST_PYTHON))} or newer"
    if facts.arch not in ARCHITECTURES:
        yield f"no runtime is built for its processor, {facts.arch}; known are {', '.join(ARCHITECTURES)}"


def _memory_reasons(requirements: ModelRequirements, facts: BoardFacts, model_bytes: int) -> Iterable[str]:
    arena = requirements.arena_bytes or 0
    needed = AGENT_BYTES + model_bytes + arena
    if needed > facts.ram_bytes:
        yield (
            f"needs about {_mib(needed)} of memory (model {_mib(model_bytes)}, activations {_mib(arena)}, "
            f"agent {_mib(AGENT_BYTES)}); it has {_mib(facts.ram_bytes)}"
        )


def _disk_reasons(facts: BoardFacts, bytes_needed: int) -> Iterable[str]:
    needed = bytes_needed + DISK_RESERVE_BYTES
    if bytes_needed and needed > facts.disk_free_bytes:
        yield (
            f"needs {_mib(needed)} of disk ({_mib(DISK_RESERVE_BYTES)} of it stay free); "
            f"{_mib(facts.disk_free_bytes)} are free"
        )


def _audience_reasons(audience: Mapping[str, str], labels: Mapping[str, str]) -> Iterable[str]:
    for key, value in sorted(audience.items()):
        if labels.get(key) != value:
            has = f"{key}={labels[key]}" if key in labels else f"no label {key}"
            yield f"the bundle is meant for boards with {key}={value}; this one has {has}"


def _joined(reasons: Sequence[str]) -> str:
    shown = ", ".join(reasons[:_SHOWN_REASONS])
    return shown if len(reasons) <= _SHOWN_REASONS else f"{shown} and {len(reasons) - _SHOWN_REASONS} more"


def _mib(size: int) -> str:
    return f"{size / _MIB:.1f} MiB"
