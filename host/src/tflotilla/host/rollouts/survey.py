"""What boards are and serve before a rollout is planned: asked over SSH, many at once, nothing is changed on them.

What it does NOT do: judge (`planning`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tflotilla.host.fleet import pool, sessions
from tflotilla.host.fleet.lines import ssh
from tflotilla.shared.contract.board import BoardFacts
from tflotilla.shared.contract.errors import BoardError, TflotillaError, UnreachableError
from tflotilla.shared.contract.messages import ServedBundle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.fleet.pool import BoardResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """One board as it answered; with `error` it did not, and the rest is what is remembered of it."""

    board: str
    facts: BoardFacts | None = None
    serving: ServedBundle | None = None
    previous: ServedBundle | None = None
    error: TflotillaError | None = None


def ask(name: str, fleet: Fleet) -> Survey:
    """Ask one board. Raises UnreachableError, IdentityError, BoardError."""
    entry = fleet.board(name)
    with ssh.connect(name, entry, fleet) as link, sessions.open_session(link, entry.install) as session:
        hello = session.hello
        session.bye()
    fleet.save_hello(name, hello)
    if not hello.running:
        message = f"{name}: its agent doesn't run; `tflotilla board bootstrap {name}` starts it"
        raise BoardError(message)
    return Survey(board=name, facts=hello.facts, serving=hello.serving, previous=hello.previous)


def ask_many(
    names: Sequence[str], fleet: Fleet, *, forks: int, on_answer: Callable[[str], None] = lambda _name: None
) -> tuple[Survey, ...]:
    """Ask many boards, at most `forks` at once; those that don't answer say why."""

    def answered(result: BoardResult[Survey]) -> None:
        on_answer(result.board)

    found = pool.run(names, lambda name: ask(name, fleet), forks=forks, on_result=answered)
    silent = remembered([result.board for result in found if result.value is None], fleet)
    return tuple(
        result.value or replace(silent[result.board], error=result.error or silent[result.board].error)
        for result in found
    )


def remembered(names: Sequence[str], fleet: Fleet) -> Mapping[str, Survey]:
    """Return what is known of boards without asking them; by the last that is known they may be off."""
    # All at once: looking for one costs as much as for ten thousand.
    found = {}
    for name, known in fleet.known(names).items():
        off = known.contact.online is False
        found[name] = Survey(
            board=name,
            facts=known.facts,
            serving=known.contact.serving,
            previous=known.contact.previous,
            error=UnreachableError(f"{name} was off when it was tried or heard last") if off else None,
        )
    return found
