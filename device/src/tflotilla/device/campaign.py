"""A benchmark as the board sees it: which cells there are, and what follows from each event. Pure.

    begin ──▶ measuring 1 ──ended──▶ measuring 2 ──▶ … ──▶ over
                  │ restarted: that cell is `interrupted`, the next goes on
                  │ cancelled: that cell is `interrupted`, the benchmark is over

Rules it keeps: cells go in the order of the request; each is told exactly once, and its end is noted before it is told;
that a cell begins is noted before it begins, so a board that dies of it does not try it again.
There is no arrow from over: a finished campaign only tells its story again.
What it does NOT do: measure, write, wait or know a clock (`benchmarking` does).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.shared.contract.benchmark import (
    BenchmarkCell,
    BenchmarkReport,
    BenchmarkRequest,
    CellError,
    Configuration,
    Identity,
    Method,
)
from tflotilla.shared.contract.board import RuntimeOffer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from tflotilla.shared.contract.agent_config import InferenceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One cell to measure, its runtime decided; `refusal` is why it is not tried."""

    configuration: Configuration
    runtime: RuntimeOffer | None
    refusal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured; it does not change any more."""

    request: BenchmarkRequest
    identity: Identity
    cells: tuple[Planned, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """How far a plan is."""

    plan: Plan
    done: tuple[BenchmarkCell, ...] = ()
    #: Whether cell number `len(done)` is under way, and in which boot of the board's kernel it began.
    measuring: bool = False
    boot: str = ""
    #: Why it is over before its last cell.
    cancelled: str | None = None

    @property
    def over(self) -> bool:
        """Whether nothing follows."""
        return self.cancelled is not None or len(self.done) >= len(self.plan.cells)


# What can happen


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The cell under way is done, one way or the other."""

    cell: BenchmarkCell


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """Somebody wants it to end."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """The agent has begun anew and found this campaign on its disk."""

    boot: str


Event = Ended | Cancelled | Restarted


# What follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the journal, after its first, which is the plan; it says one thing."""

    #: The number of the cell that begins, and the kernel's boot.
    began: int | None = None
    boot: str = ""
    cell: BenchmarkCell | None = None
    cancelled: str | None = None
    #: What was found is on its way to whoever collects reports. One that begins another cell says so, too.
    told: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Write this into the journal; a disk that can't is no reason not to go on."""

    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Report this."""

    report: BenchmarkReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """Measure this cell; its outcome is the next event."""

    planned: Planned


Action = Note | Tell | Measure


def plan_cells(
    request: BenchmarkRequest,
    *,
    serving: InferenceConfig,
    offers: tuple[RuntimeOffer, ...],
    processors: Collection[int],
) -> tuple[Planned, ...]:
    """Return the cells of a request in its order.

    Args:
        request: A request without configurations means the one that serves.
        serving: How the bundle runs, or would run, on this board, with a concrete runtime.
        offers: The runtimes that are installed.
        processors: The processors this agent may run on, by the kernel's numbers.

    """
    configurations = request.configurations or (Configuration(inference=serving),)
    return tuple(_planned(wish, serving, offers, processors) for wish in configurations)


def _planned(
    wish: Configuration, serving: InferenceConfig, offers: tuple[RuntimeOffer, ...], processors: Collection[int]
) -> Planned:
    inference = wish.inference
    if inference.runtime == "auto":
        inference = dataclasses.replace(inference, runtime=serving.runtime)
    runtime = next((offer for offer in offers if offer.name == inference.runtime), None)
    return Planned(
        configuration=dataclasses.replace(wish, inference=inference),
        runtime=runtime,
        refusal=_refusal(inference, runtime, processors),
    )


def _refusal(inference: InferenceConfig, runtime: RuntimeOffer | None, processors: Collection[int]) -> str | None:
    if runtime is None:
        if inference.runtime == "auto":
            return "no runtime is installed on this board; bootstrap it again"
        return f"{inference.runtime} is not installed on this board"
    threads, cores = inference.num_threads, len(processors)
    if threads > cores:
        # A cliff, not a slope: tflite-runtime takes 100 times as long with more threads than cores.
        return f"{threads} threads, and this board has {cores} {'core' if cores == 1 else 'cores'}"
    strange = sorted(set(inference.affinity) - set(processors))
    if strange:
        have = ", ".join(str(number) for number in sorted(processors))
        return f"processor {strange[0]} can't be used on this board; it has {have}"
    if inference.affinity and threads > len(inference.affinity):
        return f"{threads} threads would share {len(inference.affinity)} of this board's processors"
    return None


def begin(plan: Plan, boot: str) -> tuple[Campaign, tuple[Action, ...]]:
    """Start a campaign."""
    return _advance(Campaign(plan=plan, boot=boot), ())


def step(campaign: Campaign, event: Event) -> tuple[Campaign, tuple[Action, ...]]:
    """Return what follows from an event. What happens to a campaign that is over changes nothing."""
    if campaign.over:
        return campaign, ()
    if isinstance(event, Ended):
        return _advance(*_finish(campaign, event.cell))
    if isinstance(event, Restarted):
        after, actions = campaign, tuple[Action, ...]()
        if campaign.measuring:
            how = "the board was restarted" if event.boot != campaign.boot else "the board's agent was restarted"
            after, actions = _finish(campaign, _interrupted(campaign, f"{how} while this was measured"))
        return _advance(dataclasses.replace(after, boot=event.boot), actions)
    actions = ()
    if campaign.measuring:
        campaign, actions = _finish(campaign, _interrupted(campaign, event.reason))
    if campaign.over:
        return campaign, actions
    over = dataclasses.replace(campaign, cancelled=event.reason)
    return over, (*actions, Note(entry=Entry(cancelled=event.reason)), Tell(report=_farewell(over)))


def _advance(campaign: Campaign, actions: tuple[Action, ...]) -> tuple[Campaign, tuple[Action, ...]]:
    """Go on to the next cell that is to be measured, answering for those that are refused."""
    while not campaign.over:
        planned = campaign.plan.cells[len(campaign.done)]
        if planned.refusal is None:
            entry = Entry(began=len(campaign.done), boot=campaign.boot)
            measuring = dataclasses.replace(campaign, measuring=True)
            return measuring, (*actions, Note(entry=entry), Measure(planned=planned))
        refused = failed(planned, CellError(kind="refused", message=planned.refusal))
        campaign, more = _finish(campaign, refused)
        actions += more
    return campaign, actions


def _finish(campaign: Campaign, cell: BenchmarkCell) -> tuple[Campaign, tuple[Action, ...]]:
    after = dataclasses.replace(campaign, done=(*campaign.done, cell), measuring=False)
    return after, (Note(entry=Entry(cell=cell)), Tell(report=_report(after, len(after.done))))


def _interrupted(campaign: Campaign, reason: str) -> BenchmarkCell:
    planned = campaign.plan.cells[len(campaign.done)]
    return failed(planned, CellError(kind="interrupted", message=reason))


def failed(planned: Planned, error: CellError) -> BenchmarkCell:
    """Return a cell that has no figures."""
    return BenchmarkCell(configuration=planned.configuration, runtime=planned.runtime, error=error)


def replay(plan: Plan, entries: Iterable[Entry]) -> Campaign:
    """Return the campaign that a journal tells of. Entries that make no sense together end the story there."""
    campaign = Campaign(plan=plan)
    for entry in entries:
        if campaign.over:
            break
        if entry.told:
            continue
        if entry.cell is not None:
            campaign = dataclasses.replace(campaign, done=(*campaign.done, entry.cell), measuring=False)
        elif entry.cancelled is not None:
            campaign = dataclasses.replace(campaign, cancelled=entry.cancelled)
        elif entry.began == len(campaign.done):
            campaign = dataclasses.replace(campaign, measuring=True, boot=entry.boot)
        else:
            break
    return campaign


def owes(entries: Sequence[Entry]) -> bool:
    """Whether the last report may have been lost by a kill between the journal's line and the outbox's."""
    return bool(entries) and (entries[-1].cell is not None or entries[-1].cancelled is not None)


def story(campaign: Campaign) -> tuple[BenchmarkReport, ...]:
    """Return every report that was told so far, in order."""
    told = tuple(_report(campaign, position) for position in range(1, len(campaign.done) + 1))
    return told if campaign.cancelled is None else (*told, _farewell(campaign))


def refuse(request: BenchmarkRequest, error: str) -> BenchmarkReport:
    """Answer a request that is not carried out."""
    return BenchmarkReport(
        request=request.request, method=request.method, total=len(request.configurations), error=error
    )


def refuse_nonsense(request: str, error: str) -> BenchmarkReport:
    """Answer what is no request, but has an id that somebody waits for."""
    return BenchmarkReport(request=request, method=Method(), total=0, error=error)


def _report(campaign: Campaign, position: int) -> BenchmarkReport:
    plan = campaign.plan
    return BenchmarkReport(
        request=plan.request.request,
        method=plan.request.method,
        total=len(plan.cells),
        position=position,
        identity=plan.identity,
        cell=campaign.done[position - 1],
    )


def _farewell(campaign: Campaign) -> BenchmarkReport:
    plan = campaign.plan
    return BenchmarkReport(
        request=plan.request.request,
        method=plan.request.method,
        total=len(plan.cells),
        position=len(campaign.done),
        identity=plan.identity,
        error=campaign.cancelled,
    )
