"""Which cell of a result belongs to which of another, and what keeps the two from being compared. Pure.

A cell is found again by its board, its model's name and its configuration as it was asked for. What is under test may
differ (runtime, kernel, agent) and is told; what would compare two things that nobody meant may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.host.benchmarks.rendering import words
from tflotilla.host.benchmarks.results import BoardRun
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.benchmark import BenchmarkCell, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tflotilla.host.benchmarks.figures import Limits
    from tflotilla.host.benchmarks.results import Run
    from tflotilla.shared.contract.benchmark import Identity, Method

#: Of a method, what decides which figure is measured, not how well.
_SAME_METHOD = (
    "scenario",
    "run_delay_seconds",
    "rate_hz",
    "inputs",
    "input_count",
    "samples",
    "samples_per_query",
    "qps",
    "latency_bound_ms",
)
_SAME_MACHINE = ("model", "arch", "cores")


@dataclass(frozen=True, slots=True, kw_only=True)
class Couple:
    """One cell of each result. With `incomparable`, one of them may be missing."""

    board: str
    model: str
    configuration: str
    scenario: Scenario
    batch: int
    base: BenchmarkCell | None
    new: BenchmarkCell | None
    incomparable: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A cell and where it was measured."""

    part: BoardRun
    cell: BenchmarkCell

    def key(self, limits: Limits) -> tuple[str, str, bytes]:
        board = "" if limits.across_boards else self.part.board
        model = "" if limits.across_models else _name(self.part.model)
        return board, model, codec.canonical_json(self.cell.configuration)


def couples(base: Run, new: Run, limits: Limits) -> Iterator[Couple]:
    """Yield every cell of both results once, in the order of BASE, then what only NEW has."""
    first, second = _places(base, limits), _places(new, limits)
    for key in [*first, *(key for key in second if key not in first)]:
        befores, afters = first.get(key, []), second.get(key, [])
        if len(befores) == len(afters) == 1:
            yield _couple(befores[0], afters[0], limits)
        else:
            reason = _several(befores, afters)
            yield from (_alone(place, reason, is_base=True) for place in befores)
            # Both sides of an ambiguity are listed once: those of BASE say it already.
            yield from (_alone(place, reason, is_base=False) for place in afters if not befores)
    yield from _silent(base, "BASE", new)
    yield from _silent(new, "NEW", base)


def _places(run: Run, limits: Limits) -> dict[tuple[str, str, bytes], list[_Place]]:
    found: dict[tuple[str, str, bytes], list[_Place]] = {}
    for part in run.boards:
        for cell in part.cells:
            place = _Place(part=part, cell=cell)
            found.setdefault(place.key(limits), []).append(place)
    return found


def _name(model: str) -> str:
    """Return a model's name without its version: a new release of a model is still that model.

    `birds-1.2.0` is `birds`; what ends in no version stays as it is.
    """
    name, dash, version = model.rpartition("-")
    return name if dash and version[:1].isdigit() else model


def _several(befores: list[_Place], afters: list[_Place]) -> str:
    if not befores:
        return "only in NEW"
    if not afters:
        return "only in BASE"
    return f"not told apart: {len(befores)} such cells in BASE, {len(afters)} in NEW"


def _alone(place: _Place, reason: str, *, is_base: bool) -> Couple:
    return _described(place, base=place.cell if is_base else None, new=None if is_base else place.cell, reason=reason)


def _silent(run: Run, side: str, other: Run) -> Iterator[Couple]:
    """Yield boards that gave no cell at all, where the other result has some of theirs."""
    wanted = {part.board for part in other.boards if part.cells}
    for part in run.boards:
        if not part.cells and part.board in wanted:
            yield Couple(
                board=words.name(part.board),
                model=words.name(part.model),
                configuration="",
                scenario=part.request.method.scenario,
                batch=1,
                base=None,
                new=None,
                incomparable=f"{side} has nothing of it: {words.sentence(part.error or 'no cell was measured')}",
            )


def _couple(before: _Place, after: _Place, limits: Limits) -> Couple:
    differing, notes = _differences(before, after, limits)
    return _described(
        after, base=before.cell, new=after.cell, reason="; ".join(differing) or None, notes=tuple(notes), other=before
    )


def _described(
    place: _Place,
    *,
    base: BenchmarkCell | None,
    new: BenchmarkCell | None,
    reason: str | None,
    notes: tuple[str, ...] = (),
    other: _Place | None = None,
) -> Couple:
    boards = [words.name(each.part.board) for each in (other, place) if each is not None]
    models = [words.name(each.part.model) for each in (other, place) if each is not None]
    return Couple(
        board=" → ".join(dict.fromkeys(boards)),
        model=" → ".join(dict.fromkeys(models)),
        # Without the runtime's version, so that a cell keeps its name when that changes; the notes tell it.
        configuration=words.configuration(place.cell, short=True),
        scenario=place.part.request.method.scenario,
        batch=place.cell.configuration.batch,
        base=base,
        new=new,
        incomparable=reason,
        notes=notes,
    )


def _differences(before: _Place, after: _Place, limits: Limits) -> tuple[list[str], list[str]]:
    """Return what forbids the comparison, and what only has to be told."""
    first, second = before.part.identity, after.part.identity
    methods = _unlike_methods(before.part.request.method, after.part.request.method)
    if first is None or second is None:
        return [*methods, "nobody knows which model and board it was"], []
    forbidding = methods
    notes: list[str] = []
    if first.model_sha256 != second.model_sha256:
        said = f"another model: {first.model_sha256[:12]} → {second.model_sha256[:12]}"
        (notes if limits.across_models else forbidding).append(
            said if limits.across_models else f"{said}; --across-models compares them all the same"
        )
    machines = [
        f"{name} {_fact(first, name)} → {_fact(second, name)}" for name in _SAME_MACHINE if _other(first, second, name)
    ]
    if machines:
        said = f"another machine: {', '.join(machines)}"
        (notes if limits.across_boards else forbidding).append(
            said if limits.across_boards else f"{said}; --across-boards compares them all the same"
        )
    return forbidding, [*notes, *_changes(before, after, first, second)]


def _unlike_methods(first: Method, second: Method) -> list[str]:
    found = [
        f"{name} {_shown(getattr(first, name))} → {_shown(getattr(second, name))}"
        for name in _SAME_METHOD
        if getattr(first, name) != getattr(second, name)
    ]
    if first.inputs == second.inputs == "random" and first.seed != second.seed:
        found.append(f"seed of the random inputs {first.seed} → {second.seed}")
    return [f"another method: {', '.join(found)}"] if found else []


def _other(first: Identity, second: Identity, name: str) -> bool:
    return bool(getattr(first.facts, name) != getattr(second.facts, name))


def _fact(identity: Identity, name: str) -> str:
    value = getattr(identity.facts, name)
    return "unknown" if value is None else words.name(str(value))


def _changes(before: _Place, after: _Place, first: Identity, second: Identity) -> Iterator[str]:
    """Yield what changed of the things that a benchmark is there to try."""
    for label, old, new in (
        ("runtime", before.cell.runtime, after.cell.runtime),
        ("delegate", before.cell.delegate_active, after.cell.delegate_active),
        ("nodes delegated", before.cell.nodes_delegated, after.cell.nodes_delegated),
        ("kernel", first.facts.kernel, second.facts.kernel),
        ("Python", first.facts.python, second.facts.python),
        ("numpy", first.numpy, second.numpy),
        ("agent", first.agent_version, second.agent_version),
    ):
        if old != new:
            yield f"{label} {_shown(old)} → {_shown(new)}"


def _shown(value: object) -> str:
    return "none" if value is None else words.name(str(value))
