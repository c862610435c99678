"""Tune a fleet: one board of each type is searched, the others of its type get what was found.

Rules it keeps: boards are of one type where machine, architecture, cores, kernel and runtimes are the same; the next of
a type is tried when one can't be reached; what failed on one type never stops the others.
What it does NOT do: search (`tuning`), ask (`measuring`), deploy, or print.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.host.benchmarks import tuning
from tflotilla.host.benchmarks.matrix import Axes
from tflotilla.host.benchmarks.tuning import Found, Search, Wish
from tflotilla.host.fleet import tuned
from tflotilla.host.fleet.tuned import BoardType, Record
from tflotilla.shared.contract.benchmark import Identity, Method
from tflotilla.shared.contract.board import BoardFacts, RuntimeOffer
from tflotilla.shared.contract.errors import BoardError, BrokerError, TflotillaError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tflotilla.host.benchmarks.results import BoardRun
    from tflotilla.shared.contract.benchmark import BenchmarkCell, Configuration

#: Measure configurations on a board; errors are in what it returns.
Ask = Callable[[str, tuple["Configuration", ...], "Method"], "BoardRun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Boards that run a model alike, as far as anybody can know: the first stands for the others."""

    board_type: BoardType
    kernel: str
    runtimes: tuple[RuntimeOffer, ...]
    boards: tuple[str, ...]
    #: The bundle that they serve, where that is what is tuned.
    serves: str | None = None
    #: Of the first.
    facts: BoardFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be found on each kind of board."""

    axes: Axes
    wish: Wish
    #: How a whole benchmark would measure each configuration.
    method: Method
    #: Whether threads are also bound to processors of their own.
    bind: bool
    #: Whether to measure longer where starting a process takes long.
    stretch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KindTuned:
    """What came of one kind of board."""

    kind: Kind
    #: The board that was searched, when one was.
    board: str | None = None
    identity: Identity | None = None
    search: Search | None = None
    found: Found | None = None
    #: To be kept: the best of each runtime, the pick among them.
    records: tuple[Record, ...] = ()
    seconds: float = 0.0
    error: TflotillaError | None = None


def kinds(facts: Mapping[str, BoardFacts], serving: Mapping[str, str | None] | None = None) -> tuple[Kind, ...]:
    """Sort boards by kind, and by what they serve where that is given, in the order in which their first is named."""
    found: dict[tuple[object, ...], Kind] = {}
    for board, each in facts.items():
        board_type, runtimes = tuned.type_of(each), tuple(sorted(each.runtimes))
        serves = None if serving is None else serving.get(board)
        key = (board_type, each.kernel, runtimes, serves)
        if key in found:
            found[key] = dataclasses.replace(found[key], boards=(*found[key].boards, board))
        else:
            found[key] = Kind(
                board_type=board_type, kernel=each.kernel, runtimes=runtimes, boards=(board,), serves=serves, facts=each
            )
    return tuple(found.values())


def tune(
    kind: Kind,
    job: Job,
    ask: Ask,
    *,
    tell: Callable[[str], None] = lambda _text: None,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
) -> KindTuned:
    """Search one kind of board; on the next of it where one can't be reached, or lacks what is to be measured."""
    error: TflotillaError | None = None
    for board in kind.boards:
        began = clock()
        talk = _Talk(board, ask)
        try:
            # Boards are called what the fleet calls them.
            facts = dataclasses.replace(kind.facts, hostname=board)
            cells = tuning.cells(job.axes, facts, job.wish, bind=job.bind)
            search = tuning.run(
                tuning.begin(cells, job.method, job.wish, stretch=job.stretch),
                talk.measure,
                on_rung=lambda search, board=board: tell(f"{board}: {progress(search)}"),  # type: ignore[misc]
            )
        except (UnreachableError, BrokerError) as caught:
            error = error or caught
            if board != kind.boards[-1]:
                tell(f"{caught}; going to the next of its kind")
            continue
        except TflotillaError as caught:
            return KindTuned(kind=kind, board=board, identity=talk.identity, error=caught)
        found = tuning.conclude(search)
        return KindTuned(
            kind=kind,
            board=board,
            identity=talk.identity,
            search=search,
            found=found,
            records=tuple(_records(board, talk.identity, search, found, now())),
            seconds=clock() - began,
            error=None if found.best is not None else BoardError(_nothing(board, found)),
        )
    return KindTuned(kind=kind, error=error or BoardError("no board to tune on"))


def known(records: Sequence[Record], kind: Kind, *, model_sha256: str | None, objective: str) -> Record | None:
    """Return a record that still counts on a kind of board, of this model or of the bundle that it serves."""
    for record in records:
        same = record.bundle == kind.serves if model_sha256 is None else record.model_sha256 == model_sha256
        fits = record.pick and record.objective == objective and record.board_type == kind.board_type
        if same and fits and tuned.stale(record, kind.facts) is None:
            return record
    return None


def progress(search: Search) -> str:
    """Say what is measured next, and how long that takes at least."""
    cells, method = search.due()
    seconds = len(cells) * method.min_seconds
    return (
        f"round {search.at + 1} of {len(search.rungs)}: {len(cells)} configuration{'' if len(cells) == 1 else 's'}, "
        f"{seconds:.0f} s of measuring at least"
    )


class _Talk:
    """One board, asked again and again; it must stay what it is."""

    def __init__(self, board: str, ask: Ask) -> None:
        self._board = board
        self._ask = ask
        self.identity: Identity | None = None

    def measure(self, configurations: tuple[Configuration, ...], method: Method) -> tuple[BenchmarkCell, ...]:
        cells = list(self._measure(configurations, method))
        # That the board was restarted meanwhile says nothing of a configuration: once more.
        again = [n for n, cell in enumerate(cells) if cell.error is not None and cell.error.kind == "interrupted"]
        if again:
            found = self._measure(tuple(configurations[n] for n in again), method)
            for n, cell in zip(again, found, strict=False):
                cells[n] = cell
        return tuple(cells)

    def _measure(self, configurations: tuple[Configuration, ...], method: Method) -> tuple[BenchmarkCell, ...]:
        run = self._ask(self._board, configurations, method)
        if run.error is not None:
            raise run.failure or BoardError(run.error)
        before, now = self.identity, run.identity
        if before is not None and now is not None and _subject(before) != _subject(now):
            message = f"{self._board}: model, runtime or kernel changed while it was tuned; tune again"
            raise BoardError(message)
        self.identity = now or before
        return run.cells


def _subject(identity: Identity) -> tuple[object, ...]:
    return identity.model_sha256, identity.facts.kernel, tuple(sorted(identity.facts.runtimes))


def _records(board: str, identity: Identity | None, search: Search, found: Found, created: float) -> Iterable[Record]:
    if identity is None or found.served is None:
        return
    for entry in found.by_runtime:
        measured = entry.cell.measurement if entry.cell is not None else None
        offer = entry.cell.runtime if entry.cell is not None else None
        figure = None if measured is None else tuning.value(measured, found.statistic)
        if measured is None or offer is None or figure is None:
            continue
        yield tuned.Record(
            model_sha256=identity.model_sha256,
            bundle=identity.bundle,
            title=identity.title,
            board_type=tuned.type_of(identity.facts),
            runtime=offer,
            kernel=identity.facts.kernel,
            configuration=entry.configuration,
            objective=search.wish.objective,
            value_ns=figure,
            pick=entry is found.served,
            runs=measured.runs,
            valid=measured.verdict.valid,
            tried=len(search.entries),
            board=board,
            seed=search.wish.seed,
            created=created,
        )


def _nothing(board: str, found: Found) -> str:
    said = [line for line in found.explanation if "not shown" in line]
    if said:
        return f"{board}: {said[0]}"
    # The same limit is broken by other figures each time: what comes before the first of them is the reason.
    reasons = [entry.out for entry in found.ranking if entry.out]
    kinds = [reason.split(" ", 1)[0] for reason in reasons]
    commonest = max(dict.fromkeys(kinds), key=kinds.count, default="")
    example = next((reason for reason, kind in zip(reasons, kinds, strict=True) if kind == commonest), "not measured")
    return (
        f"{board}: none of {len(found.ranking)} configurations can be served so; most often, like the best: {example}"
    )
