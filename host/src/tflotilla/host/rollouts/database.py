"""The journal in a database (signatures; the body follows)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.fleet.inventory import Fleet
    from tflotilla.host.rollouts.journal import Journal


def url_of(fleet: Fleet) -> str:
    """Return where a fleet's rollouts are kept: `[rollouts] journal`, else .tflotilla/rollouts.db."""
    raise NotImplementedError


def open_journal(url: str, *, tell: Callable[[str], None] = lambda _line: None) -> Journal:
    """Open (or make) a journal: `sqlite:///file`, or `postgresql://user@host/database`.

    `tell` hears one line when a damaged file was saved.

    Raises:
        InputError: it can't be opened, is of a newer version, or the server is away.

    """
    raise NotImplementedError
