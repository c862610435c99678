"""What follows in a rollout: `next_actions(rollout, evidence, now, free) -> events`, and the fold of what happened.

The conductor's loop: events of people and results (`heard`) are appended to the journal and folded; then
`next_actions` says what follows, until it says nothing; its events are appended and folded too, and each `Claimed` and
`UndoClaimed` that the fold took (`under_way`) is given to the executor. Killed anywhere in between, `rebuild` and a
`Resumed` go on: claims are void, the boards are asked again with the same ids, and tell what became of it.

Rules it keeps: see `rollout`, `policy` and `events`. A late or repeated event changes nothing.
What it does NOT do: any I/O, any waiting, reading a clock, rolling a die (it is handed one).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping, Sequence

    from tflotilla.host.rollouts.events import Event
    from tflotilla.host.rollouts.evidence import Evidence
    from tflotilla.host.rollouts.jobs import JobResult
    from tflotilla.host.rollouts.journal import Recorded
    from tflotilla.host.rollouts.plan import Plan
    from tflotilla.host.rollouts.rollout import Rollout


def begin(plan: Plan) -> Rollout:
    """Return a rollout of which nothing has happened yet."""
    raise NotImplementedError


def fold(rollout: Rollout, event: Event, *, at: float) -> Rollout:
    """Return the rollout after an event of that time (Unix seconds); one that doesn't fit changes only the count."""
    return fold_all(rollout, ((event, at),))


def fold_all(rollout: Rollout, events: Iterable[tuple[Event, float]]) -> Rollout:
    """Fold many (event, time), copying once."""
    raise NotImplementedError


def rebuild(plan: Plan, recorded: Sequence[Recorded]) -> Rollout:
    """Return the rollout that a journal tells."""
    return fold_all(begin(plan), ((each.event, each.at) for each in recorded))


def next_actions(
    rollout: Rollout, evidence: Mapping[str, Mapping[str, Evidence]], *, now: float, free: int
) -> tuple[Event, ...]:
    """Return what follows now, nothing when there is nothing to do but wait.

    Append and fold it, then ask again: one decision may allow the next. `evidence` is by board, then by digest of the
    bundle, and must be begun anew for the rollout's bundle when a board is claimed (what it did in an earlier attempt
    is no evidence). `free` is how many jobs the executor can take.
    """
    raise NotImplementedError


def heard(rollout: Rollout, result: JobResult, *, now: float, random: random.Random) -> Event:
    """Return what a job's end means: done, missed (again after a jittered, growing wait) or failed."""
    raise NotImplementedError


def under_way(rollout: Rollout, event: Event) -> bool:
    """Whether a claim that was just folded holds, so that its job is to be submitted."""
    raise NotImplementedError


def at_rest(rollout: Rollout) -> bool:
    """Whether nothing is under way and nothing will follow by itself: the conductor may go home."""
    raise NotImplementedError


def wakes_at(rollout: Rollout, *, now: float) -> float | None:
    """Return when `next_actions` may have something new to say without anything happening; None is never."""
    raise NotImplementedError
