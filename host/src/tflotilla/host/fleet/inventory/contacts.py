"""What tflotilla remembers of each board: when it was last tried and last seen, and what it said about itself.

    .tflotilla/facts/NAME.json      the facts, and when this machine was told them (`asked_at`)
    .tflotilla/contacts/NAME.json   the last try, the last time it answered, what its agent said it serves

Rules it keeps: times are this machine's, because a board's clock may say 1970; a file is replaced whole; what can't be
read, or was written by another version, is as good as never learnt; what can't be written is no reason to fail.
What it does NOT do: ask a board, or listen. `ssh.connect` notes each connection; who listens to MQTT may tell `heard`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tflotilla.host.fleet.inventory import state_files
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.board import BoardFacts, RuntimeOffer
from tflotilla.shared.contract.errors import ContractError, IdentityError, UnreachableError
from tflotilla.shared.contract.messages import ServedBundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

FACTS = "facts"
CONTACTS = "contacts"
_ASKED_AT = "asked_at"
_REASON_CHARACTERS = 300
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """What is known of a board's whereabouts. Times are Unix seconds by this machine's clock."""

    #: The last attempt to connect, and whether the board answered; a board that refused our login did.
    tried: float | None = None
    reached: bool | None = None
    #: Why the last try led to nothing.
    reason: str = ""
    #: The last time it let us in, or was heard to be online.
    seen: float | None = None
    #: What its retained MQTT availability was when somebody last listened.
    availability: Literal["online", "offline"] | None = None
    heard: float | None = None
    #: What its agent said at `said`: its version, what serves there and what did before.
    agent: str | None = None
    serving: ServedBundle | None = None
    previous: ServedBundle | None = None
    said: float | None = None

    @property
    def online(self) -> bool | None:
        """Whether it is there, by the newest that is known; None when nobody ever tried or listened."""
        if self.heard is not None and (self.tried is None or self.heard >= self.tried):
            return None if self.availability is None else self.availability == "online"
        return self.reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Everything remembered of one board."""

    contact: Contact = Contact()
    facts: BoardFacts | None = None
    #: When the facts were learnt, by this machine's clock.
    asked_at: float | None = None


_NOTHING = Known()


@contextlib.contextmanager
def noted(state: Path, board: str, *, clock: Callable[[], float] = time.time) -> Iterator[None]:
    """Note how an attempt to connect to a board ended. What it raises goes on."""
    try:
        yield
    except UnreachableError as error:
        note(state, board, tried=clock(), reached=False, reason=_brief(error))
        raise
    except IdentityError as error:
        note(state, board, tried=clock(), reached=True, reason=_brief(error))
        raise
    now = clock()
    note(state, board, tried=now, reached=True, seen=now, reason="")


def heard(state: Path, board: str, status: Literal["online", "offline"], *, at: float) -> None:
    """Note a board's retained availability, for who listens to MQTT."""
    if status == "online":
        note(state, board, availability=status, heard=at, seen=at)
    else:
        note(state, board, availability=status, heard=at)


def note(state: Path, board: str, **changes: Any) -> None:  # noqa: ANN401 - the fields of Contact
    """Change what is remembered of a board, where that can be written."""
    path = state / CONTACTS / f"{board}.json"
    # Two at once, on one board: the lock keeps what each of them learnt.
    with contextlib.suppress(OSError), state_files.locked(state / CONTACTS / ".lock"):
        before = contact(state, board)
        after = dataclasses.replace(before, **changes)
        if after != before:
            document = {key: value for key, value in codec.encode(after).items() if value not in (None, "")}
            state_files.replace(path, codec.canonical_json(document) + b"\n")


def now_serves(state: Path, board: str, digest: str, bundle: ServedBundle | None = None) -> None:
    """Note that a bundle came into service; without `bundle` it is looked for among those that are remembered."""
    before = contact(state, board)
    if before.serving is not None and before.serving.digest == digest:
        return
    found = bundle or (before.previous if before.previous is not None and before.previous.digest == digest else None)
    note(state, board, serving=found, previous=before.serving)


def contact(state: Path, board: str) -> Contact:
    """Return what is remembered of a board; an empty one when nothing is."""
    return _contact(_document(f"{state}/{CONTACTS}/{board}.json"))


def facts(state: Path, board: str) -> BoardFacts | None:
    """Return what the board said about itself last; None when it was never asked."""
    document = _document(f"{state}/{FACTS}/{board}.json")
    with contextlib.suppress(ContractError):
        return None if document is None else codec.decode(BoardFacts, document, f"facts/{board}.json")
    # Written by another version: as good as never asked.
    return None


def save_facts(state: Path, board: str, learnt: BoardFacts, *, at: float) -> None:
    """Remember what a board says about itself, where that can be written: it is asked again each time anyway."""
    document = codec.encode(learnt) | {_ASKED_AT: at}
    with contextlib.suppress(OSError):
        state_files.replace(state / FACTS / f"{board}.json", codec.canonical_json(document) + b"\n")


def known(state: Path, boards: Iterable[str]) -> Mapping[str, Known]:
    """Return what is remembered of many boards; quick, so that 10,000 of them can be listed."""
    there = {folder: _names(state / folder) for folder in (FACTS, CONTACTS)}
    found = {}
    for board in boards:
        file = f"{board}.json"
        learnt = _document(f"{state}/{FACTS}/{file}") if file in there[FACTS] else None
        contacted = _document(f"{state}/{CONTACTS}/{file}") if file in there[CONTACTS] else None
        if learnt is None and contacted is None:
            found[board] = _NOTHING
            continue
        asked_at = None if learnt is None else learnt.get(_ASKED_AT) or _changed(f"{state}/{FACTS}/{file}")
        found[board] = Known(
            contact=_contact(contacted),
            facts=_facts(learnt),
            asked_at=asked_at if isinstance(asked_at, float) else None,
        )
    return found


def forget(state: Path, board: str) -> None:
    """Remember nothing of a board any more. Raises OSError."""
    for folder in (FACTS, CONTACTS):
        (state / folder / f"{board}.json").unlink(missing_ok=True)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:_REASON_CHARACTERS]


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir())
    except OSError:
        return frozenset()


def _changed(path: str) -> float | None:
    """Return when a file was written: facts of before this was kept in them."""
    try:
        return os.stat(path).st_mtime  # noqa: PTH116
    except OSError:
        return None


def _document(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - pathlib costs as much as reading the file
            document = json.loads(stream.read())
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _facts(document: dict[str, Any] | None) -> BoardFacts | None:
    try:
        return (
            None if document is None else _built(BoardFacts, document, runtimes=_offers(document.get("runtimes", ())))
        )
    except TypeError:
        return None


def _offers(listed: Any) -> tuple[RuntimeOffer, ...]:  # noqa: ANN401 - what JSON holds
    return tuple(_built(RuntimeOffer, offer) for offer in listed)


def _contact(document: dict[str, Any] | None) -> Contact:
    if document is None:
        return Contact()
    try:
        bundles = {
            key: _built(ServedBundle, document[key]) for key in ("serving", "previous") if document.get(key) is not None
        }
        return _built(Contact, document, **bundles)
    except TypeError:
        return Contact()


def _built(kind: type[_Value], document: Mapping[str, Any], **parts: object) -> _Value:
    """Build a value of a document's fields and those that are given; quick: there may be 10,000. Raises TypeError."""
    if not isinstance(document, dict):
        message = f"a table is expected, not {document!r}"
        raise TypeError(message)
    allowed = _TYPES[kind]
    fields = {key: value for key, value in document.items() if key in allowed} | parts
    for key, value in fields.items():
        if not isinstance(value, allowed[key]):
            message = f"{key} is {value!r}"
            raise TypeError(message)
    return kind(**fields)


def _plain(hint: Any) -> tuple[type, ...]:  # noqa: ANN401 - any annotation
    origin, among = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return tuple({type(each) for each in among})
    if origin in (types.UnionType, typing.Union):
        return tuple(each for part in among for each in _plain(part))
    return (float, int) if hint is float else (origin or hint,)


#: What each field may be, as far as `isinstance` tells it.
_TYPES: Mapping[type, Mapping[str, tuple[type, ...]]] = {
    kind: {name: _plain(hint) for name, hint in typing.get_type_hints(kind).items()}
    for kind in (BoardFacts, RuntimeOffer, ServedBundle, Contact)
}
