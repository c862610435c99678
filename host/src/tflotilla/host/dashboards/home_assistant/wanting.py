"""What the rollouts' journal wants on each board, looked up often and read only when something happened.

Rules it keeps: a journal that can't be read is said once, and what was known of it stays; reading takes at most a
twentieth of the time, however long the journal is.
What it does NOT do: write, or hold rollouts up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.dashboards.home_assistant.updates import Wanted
from tflotilla.host.rollouts.journal import register
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tflotilla.host.rollouts.journal.port import Journal

_LOOK_AGAIN_S = 5.0
_RESTS_PER_READING = 20


class Wants:
    """Remembers what a journal said last; one thread."""

    def __init__(
        self, journal: Callable[[], Journal], *, clock: Callable[[], float], tell: Callable[[str], None]
    ) -> None:
        """`journal` opens it, when it is first looked into; `clock` counts seconds."""
        self._open = journal
        self._clock = clock
        self._tell = tell
        self._journal: Journal | None = None
        self._lengths: Mapping[str, int] | None = None
        self._again_at = clock()
        self._fault = ""
        self.boards: Mapping[str, Wanted] = {}

    def look(self) -> frozenset[str]:
        """Look whether something happened, if it is time; return the boards of which something else is wanted now."""
        now = self._clock()
        if now < self._again_at:
            return frozenset()
        before = self.boards
        try:
            self._journal = self._journal or self._open()
            lengths = dict(self._journal.lengths())
            if lengths != self._lengths:
                self.boards = _wanted(self._journal)
                self._lengths = lengths
            self._fault = ""
        except InputError as error:
            if str(error) != self._fault:
                self._tell(f"{error}; updates show what was known before")
            self._fault = str(error)
        took_s = self._clock() - now
        self._again_at = now + max(_LOOK_AGAIN_S, took_s * _RESTS_PER_READING)
        return frozenset(
            board for board in self.boards.keys() | before.keys() if self.boards.get(board) != before.get(board)
        )

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def _wanted(journal: Journal) -> dict[str, Wanted]:
    desired = register.desired(journal)
    plans = {name: journal.plan(name) for name in {each.rollout for each in desired.values()}}
    return {
        board: Wanted(
            digest=each.digest,
            title=each.title,
            rollout=each.rollout,
            release=plans[each.rollout].release if plans[each.rollout].bundle == each.digest else None,
        )
        for board, each in desired.items()
    }
