"""One bundle going to this board, as a state machine: `step(journal, event) -> (journal, actions)`.

    verifying ──Verified──▶ probing ──Probed──▶ switching ──Serves──▶ confirming ──Behaved──▶ succeeded
        │ Refused              │ Refused            │ Refused              │ Misbehaved
        ▼                      ▼                    ▼                      ▼
     rejected               rejected            rolled_back            rolled_back
    (Broke: failed from verifying and probing; from switching on it is undone first, so rolled_back)

Where the deployment asks for it, a good probe is followed by a shadow of the champion, still in probing: Shadowed leads
to switching, whatever the shadow saw. Who compares boards decides about it; a board alone would stop what is meant to
answer otherwise.

A rollback that a person asks for takes the same way without probing and confirming: that bundle has served before.

Rules it keeps: the journal is saved before its actions are done, so `recover` finds at every moment what was meant;
every action may be done twice; `previous` is moved before `current`, so `current` alone says what serves.
What it does NOT do: any I/O, any waiting, reading a clock. `installer` does the actions and brings the events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from tflotilla.device.choice import Choice, described
from tflotilla.shared import pace
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.deployment import DeploymentState, ShadowReport
from tflotilla.shared.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tflotilla.shared.contract.manifest import HealthPolicy

SCHEMA = 1
#: How often a deployment may begin anew after the agent was killed in the middle of it.
MAX_ATTEMPTS = 3
#: A difference smaller than that is the board's scheduler, whatever the ratio: tiny models take microseconds.
LATENCY_SLACK_NS = 2_000_000
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What `journal.json` holds: one deployment, and what to go back to."""

    schema: int = SCHEMA
    kind: Literal["deploy", "rollback"]
    deployment: str
    #: Digest and title of the bundle that is to serve.
    candidate: str
    title: str
    #: What `current` and `previous` were when it began.
    champion: str | None
    previous: str | None
    state: DeploymentState = DeploymentState.VERIFYING
    attempts: int = 1
    #: How the candidate is to run, as tuning found out; None is what agent.toml says.
    asked: InferenceConfig | None = None
    #: What the probe found good, and why that is not what was asked.
    choice: Choice | None = None
    note: str = ""
    #: How the candidate was served when it began, where it serves already and is only to be served otherwise.
    before: Choice | None = None
    detail: str = ""
    error: str | None = None
    #: On how many inputs the candidate is tried beside the champion before the switch; 0 is not at all.
    shadow: int = 0
    #: What came of that.
    shadowed: ShadowReport | None = None

    @property
    def reconfigures(self) -> bool:
        """Whether the bundle stays, and only the way it is served changes."""
        return self.candidate == self.champion


# Events: what happened.


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Signature, release, sizes and digests hold; the bundle lies in `bundles/`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A child process loaded the candidate and reproduced its goldens this way.

    `note` says why it is not the way that was asked for.
    """

    choice: Choice
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowed:
    """The candidate ran beside the champion, or the report says why it could not."""

    report: ShadowReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Serves:
    """The worker runs what `current` points to, and its first inference is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaved:
    """The confirm window is over and the candidate kept to its health policy."""

    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaved:
    """The candidate broke its health policy in the confirm window."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The candidate is to blame: `error` is the name of the error's class."""

    error: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Broke:
    """Something else is to blame: the disk, the supervisor, a missing program."""

    error: str
    detail: str


Event = Verified | Probed | Shadowed | Serves | Behaved | Misbehaved | Refused | Broke


# Actions: what is to be done, in order.


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Write the journal durably."""

    journal: Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Tell whoever listens: the state, with detail and error."""

    state: DeploymentState
    detail: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Check the candidate and admit it. Brings Verified, Refused or Broke."""

    candidate: str
    kind: Literal["deploy", "rollback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Try the candidate in a child process, first as it is asked. Brings Probed, Refused or Broke."""

    candidate: str
    asked: InferenceConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """Let champion and candidate answer the same inputs. Brings Shadowed, whatever happens."""

    candidate: str
    champion: str | None
    choice: Choice
    inputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choose:
    """Note durably how the candidate is to be served; None forgets it."""

    candidate: str
    choice: Choice | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Switch `previous`, then `current`, durably."""

    current: str | None
    previous: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """(Re)start the worker. With `report`, brings Serves, Refused or Broke; without, its outcome changes nothing."""

    bundle: str | None
    report: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Observe:
    """Watch the candidate for its confirm window. Brings Behaved, Misbehaved or Broke."""

    candidate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Collect:
    """Remove what neither of these bundles needs."""

    keep: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clear:
    """Remove the journal: the deployment is over."""


Action = Save | Report | Verify | Probe | Shadow | Choose | Point | Serve | Observe | Collect | Clear
Step = tuple[Journal, tuple[Action, ...]]
_S = DeploymentState


def begin(journal: Journal) -> Step:
    """Start a deployment in `verifying`."""
    return _enter_verifying(journal)


def step(journal: Journal, event: Event) -> Step:
    """Return the next journal and what is to be done; an event that the state doesn't await changes nothing."""
    transition = _TABLE.get((journal.state, type(event)))
    return (journal, ()) if transition is None else transition(journal, event)


def recover(journal: Journal | None, current: str | None) -> tuple[Journal | None, tuple[Action, ...]]:
    """Say what to do when the supervisor starts: after a clean stop, a kill or a power cut at any step.

    The first action that serves is always `Serve` of one whole bundle: the old one, or the new one.
    """
    if journal is None:
        return None, (Serve(bundle=current, report=False),)
    if journal.state in (_S.VERIFYING, _S.PROBING):
        # Nothing was switched. The old bundle serves first, then the candidate gets its next attempt.
        if journal.attempts >= MAX_ATTEMPTS:
            after, actions = _fail(journal, _killed_too_often(journal))
        else:
            after, actions = _enter_verifying(replace(journal, attempts=journal.attempts + 1))
        return after, (Serve(bundle=journal.champion, report=False), *actions)
    if journal.state in (_S.SWITCHING, _S.CONFIRMING):
        # `current` may be either. The candidate is verified and probed, so going on is as safe as going back,
        # until it has taken the board down too often.
        if journal.attempts >= MAX_ATTEMPTS:
            return _undo(journal, _killed_too_often(journal))
        return _enter_switching(replace(journal, attempts=journal.attempts + 1))
    if journal.state is _S.SUCCEEDED:
        return journal, (Serve(bundle=journal.candidate, report=False), *_finish(journal, journal.candidate))
    # rolled_back, rejected, failed: decided, perhaps not done. Restoring what is there already changes nothing.
    return journal, _restore(journal)
    # No branch for queued and transferring: the board keeps a journal from verifying on.


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen of a candidate during its confirm window.

    `champion` is the bundle before it, over its last windows; None where there was none. `silent_s` is how long its
    worker has said nothing, where that is longer than it may: it reports every window, also without a result.
    """

    results: int
    errors: int
    crashes: int
    pace: Pace | None
    champion: Pace | None
    silent_s: float | None = None


def judge(seen: Observation, policy: HealthPolicy) -> Behaved | Misbehaved:
    """Hold an observation against the bundle's health policy; the reason names figure and limit."""
    if seen.crashes:
        return Misbehaved(detail=f"its worker crashed {_times(seen.crashes)} in {policy.confirm_window_s:g} s")
    if seen.silent_s is not None:
        return Misbehaved(detail=f"its worker hangs: not a word from it for {seen.silent_s:.0f} s")
    total = seen.results + seen.errors
    if total == 0:
        # Its first inference is done, or it would not serve; a source without input is not the bundle's fault.
        return Behaved(detail="no input arrived in the confirm window")
    rate = seen.errors / total
    if rate > policy.max_error_rate:
        figures = f"{seen.errors} of {total} inferences failed ({rate:.1%}); at most {policy.max_error_rate:.1%} may"
        return Misbehaved(detail=figures)
    if policy.max_p99_ratio is not None and (slower := _slower(seen, policy.max_p99_ratio)) is not None:
        return Misbehaved(detail=slower)
    return Behaved(detail=f"{seen.results} results, {seen.errors} errors in {policy.confirm_window_s:g} s")


def _slower(seen: Observation, max_ratio: float) -> str | None:
    if seen.pace is None or seen.champion is None:
        return None
    percentile = pace.comparable(seen.pace, seen.champion)
    if percentile is None:
        # Too few runs to say anything of it; the probe has measured the candidate by itself.
        return None
    now_ns, before_ns = seen.pace.at(percentile), seen.champion.at(percentile)
    if now_ns - before_ns <= LATENCY_SLACK_NS or now_ns <= max_ratio * before_ns:
        return None
    return (
        f"{percentile} latency {now_ns / _NS_PER_MS:.2f} ms against {before_ns / _NS_PER_MS:.2f} ms of the bundle "
        f"before it; at most {max_ratio:g} times may be"
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


# Transitions, in the order of the picture above.


def _enter_verifying(journal: Journal) -> Step:
    after = replace(journal, state=_S.VERIFYING)
    return after, (
        Save(journal=after),
        Report(state=_S.VERIFYING, detail=_attempt(after)),
        Verify(candidate=after.candidate, kind=after.kind),
    )


def _verified(journal: Journal, event: Event) -> Step:
    del event
    if journal.kind == "rollback":
        return _enter_switching(journal)
    # What an attempt before a kill had found is found again.
    after = replace(journal, state=_S.PROBING, choice=None, note="", shadowed=None)
    return after, (Save(journal=after), Report(state=_S.PROBING), Probe(candidate=after.candidate, asked=after.asked))


def _probed(journal: Journal, event: Event) -> Step:
    if not isinstance(event, Probed) or journal.choice is not None:
        # Told twice, while the shadow goes on.
        return journal, ()
    after = replace(journal, choice=event.choice, note=event.note)
    if not after.shadow:
        return _enter_switching(after)
    # Not saved: whoever recovers from probing begins it anew.
    return after, (
        Shadow(candidate=after.candidate, champion=after.champion, choice=event.choice, inputs=after.shadow),
    )


def _shadowed(journal: Journal, event: Event) -> Step:
    if not isinstance(event, Shadowed) or journal.choice is None:
        return journal, ()
    after, actions = _enter_switching(replace(journal, shadowed=event.report))
    return after, (Report(state=_S.PROBING, detail=_compared(event.report)), *actions)


def _enter_switching(journal: Journal) -> Step:
    after = replace(journal, state=_S.SWITCHING)
    # A rollback chooses nothing: the choice of its first deployment was kept.
    choose = (Choose(candidate=after.candidate, choice=after.choice),) if after.choice else ()
    return after, (
        Save(journal=after),
        Report(state=_S.SWITCHING, detail=", ".join(filter(None, (_with(after.choice), after.note, _attempt(after))))),
        *choose,
        Point(current=after.candidate, previous=after.previous if after.reconfigures else after.champion),
        Serve(bundle=after.candidate, report=True),
    )


def _serves(journal: Journal, event: Event) -> Step:
    del event
    if journal.kind == "rollback":
        # No confirm window: it was confirmed when it was deployed, and a person wants it back.
        return _succeed(journal, "")
    after = replace(journal, state=_S.CONFIRMING)
    return after, (Save(journal=after), Report(state=_S.CONFIRMING), Observe(candidate=after.candidate))


def _behaved(journal: Journal, event: Event) -> Step:
    return _succeed(journal, event.detail if isinstance(event, Behaved) else "")


def _succeed(journal: Journal, detail: str) -> Step:
    after = replace(journal, state=_S.SUCCEEDED, detail="; ".join(filter(None, (detail, journal.note))))
    return after, (Save(journal=after), *_finish(after, after.candidate))


def _reject(journal: Journal, event: Event) -> Step:
    error, detail = _blame(event)
    after = replace(journal, state=_S.REJECTED, error=error, detail=detail)
    # Nothing to restore: what served was never stopped.
    return after, (Save(journal=after), *_finish(after, after.champion))


def _fail(journal: Journal, event: Event) -> Step:
    error, detail = _blame(event)
    after = replace(journal, state=_S.FAILED, error=error, detail=detail)
    return after, (Save(journal=after), *_finish(after, after.champion))


def _undo(journal: Journal, event: Event) -> Step:
    error, detail = _blame(event)
    after = replace(journal, state=_S.ROLLED_BACK, error=error, detail=detail)
    return after, (Save(journal=after), *_restore(after))


def _restore(journal: Journal) -> tuple[Action, ...]:
    choose = (Choose(candidate=journal.candidate, choice=journal.before),) if journal.reconfigures else ()
    return (
        *choose,
        Point(current=journal.champion, previous=journal.previous),
        # Whatever comes of it: the old bundle is the last resort, the supervisor keeps trying it.
        Serve(bundle=journal.champion, report=False),
        *_finish(journal, journal.champion),
    )


def _finish(journal: Journal, serving: str | None) -> tuple[Action, ...]:
    # The candidate is kept even when it was refused: trying again then sends nothing.
    replaced = journal.state is _S.SUCCEEDED and not journal.reconfigures
    behind = journal.champion if replaced else journal.previous
    keep = tuple(sorted({bundle for bundle in (serving, behind, journal.candidate) if bundle}))
    return (
        Report(state=journal.state, detail=journal.detail, error=journal.error),
        Clear(),
        # After the journal is gone: what a cut leaves behind here, the next deployment removes.
        Collect(keep=keep),
    )


def _blame(event: Event) -> tuple[str, str]:
    if isinstance(event, (Refused, Broke)):
        return event.error, event.detail
    # The names of the classes in errors.py; Misbehaved is the one other event that leads here.
    return "ProbeError", event.detail if isinstance(event, Misbehaved) else ""


def _killed_too_often(journal: Journal) -> Broke:
    return Broke(
        error="BoardError",
        detail=f"the agent or the board died {journal.attempts} times during {journal.state.value}; gave up",
    )


def _with(choice: Choice | None) -> str:
    if choice is None:
        return ""
    tuned = "" if choice.inference is None else f", {described(choice.inference)}, as tuned"
    return f"with {choice.runtime}{tuned}"


def _compared(report: ShadowReport) -> str:
    if report.reason is not None:
        return f"not compared with what serves: {report.reason}"
    return f"{report.agreed} of {report.inputs} inputs are answered as by what serves"


def _attempt(journal: Journal) -> str:
    return "" if journal.attempts == 1 else f"attempt {journal.attempts} of {MAX_ATTEMPTS}"


_TABLE: Mapping[tuple[DeploymentState, type[Event]], Callable[[Journal, Event], Step]] = {
    (_S.VERIFYING, Verified): _verified,
    (_S.VERIFYING, Refused): _reject,
    (_S.VERIFYING, Broke): _fail,
    # No Probed, Serves, Behaved, Misbehaved in verifying: late news of an attempt that was given up.
    (_S.PROBING, Probed): _probed,
    (_S.PROBING, Shadowed): _shadowed,
    (_S.PROBING, Refused): _reject,
    (_S.PROBING, Broke): _fail,
    # No Verified in probing: told twice. No Serves, Behaved, Misbehaved: the old bundle's, nobody asked. No Shadowed
    # anywhere else: of an attempt that was given up.
    (_S.SWITCHING, Serves): _serves,
    (_S.SWITCHING, Refused): _undo,
    # Broke undoes too: the links may be switched, and failed would leave a bundle serving that nobody confirmed.
    (_S.SWITCHING, Broke): _undo,
    # No Verified, Probed in switching: told twice. No Behaved, Misbehaved: it has not served yet.
    (_S.CONFIRMING, Behaved): _behaved,
    (_S.CONFIRMING, Misbehaved): _undo,
    (_S.CONFIRMING, Refused): _undo,
    (_S.CONFIRMING, Broke): _undo,
    # No Serves in confirming: a worker that came up again is counted as a crash by whoever observes.
    # Nothing leaves succeeded, rolled_back, rejected and failed: what comes late belongs to no deployment.
}
