"""What a board should be against what it said it is. Pure.

Three things can differ: the bundle that a rollout decided on, the agent's version (this tflotilla's own), and the
runtime that fleet.toml asks for. A board that never said anything differs in nothing that is known; it is told as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tflotilla.host.fleet.inventory.contacts import Known


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The bundle that a board should serve, and the rollout that said so last."""

    digest: str
    title: str
    rollout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Aspect:
    """One thing as desired and as reported; None is "nothing said"."""

    desired: str | None
    reported: str | None
    differs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One board. `said` is when it reported last, by this machine's clock; None: never."""

    board: str
    bundle: Aspect
    agent: Aspect
    runtime: Aspect
    rollout: str | None
    seen: float | None
    said: float | None
    online: bool | None

    @property
    def differs(self) -> bool:
        """Whether anything does, or nothing is known."""
        return self.said is None or any(aspect.differs for aspect in (self.bundle, self.agent, self.runtime))


def compare(
    names: Iterable[str],
    known: Mapping[str, Known],
    *,
    desired: Mapping[str, Desired],
    agent: str,
    runtimes: Mapping[str, str],
) -> tuple[Difference, ...]:
    """Compare boards; `runtimes` has those for which fleet.toml asks for a certain one."""
    return tuple(_compare(name, known[name], desired.get(name), agent, runtimes.get(name)) for name in names)


def _compare(name: str, known: Known, desired: Desired | None, agent: str, runtime: str | None) -> Difference:
    contact, facts = known.contact, known.facts
    heard = contact.said is not None
    serving = contact.serving
    offered = () if facts is None else facts.runtimes
    return Difference(
        board=name,
        bundle=Aspect(
            desired=None if desired is None else desired.title,
            reported=None if serving is None else f"{serving.name}-{serving.version}",
            differs=heard and desired is not None and (serving is None or serving.digest != desired.digest),
        ),
        agent=Aspect(desired=agent, reported=contact.agent, differs=heard and contact.agent != agent),
        runtime=Aspect(
            desired=runtime,
            reported=" ".join(map(str, offered)) or None,
            differs=heard and runtime is not None and all(offer.name != runtime for offer in offered),
        ),
        rollout=None if desired is None else desired.rollout,
        seen=contact.seen,
        said=contact.said,
        online=contact.online,
    )
