"""Selectors: the expression that picks boards of a fleet.

    all                      every board
    pi-7                     one board; `pi-7,pi-8` both; `pi-*` by pattern; `@kitchen` a group
    room=kitchen             boards with that label; `room=kitchen,gen=4` both; `gen!=4` all without it; `room=kit*`
    pi-*,room=kitchen,!pi-7  names and groups add, labels narrow, `!` leaves out
    site=lab and (arch=aarch64 or model="*Zero 2*") and not offline

Besides labels, `key=value` asks for what a board said about itself last (`traits.KEYS`: arch, model, python, runtime,
agent, bundle, os) and for its name and group; a label that a board has goes before its fact of that name.
How it is written is in `syntax`. What it does NOT do: ask boards; it knows what was learnt.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from typing import TYPE_CHECKING

from tflotilla.host.fleet.selection import syntax, traits
from tflotilla.host.fleet.selection.syntax import Both, Listing, Node, Not, Term
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tflotilla.host.fleet.inventory.contacts import Known

_EVERY = frozenset({"all", "*"})
_OTHER_KEYS = ("name", "group")
_SHOWN_NAMES = 8
_NEAR = 0.75
_WILD = re.compile(r"[*?\[]")


def select(
    expression: str,
    boards: Mapping[str, Mapping[str, str]],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    known: Callable[[Iterable[str]], Mapping[str, Known]] | None = None,
    may_be_empty: bool = False,
) -> tuple[str, ...]:
    """Return the names of the boards (name → labels) that the expression picks, in the fleet's order.

    Args:
        expression: see above.
        boards: name → labels.
        groups: name → boards.
        known: returns what is remembered of boards; asked only if the expression needs it, at most once. Without it
            what boards said can't be asked for.
        may_be_empty: whether to return nothing where nothing is picked.

    Raises:
        UsageError: the expression can't be read, names a board that isn't there, or picks none.

    """
    picker = _Picker(boards, groups or {}, known)
    tree = syntax.parse(expression)
    chosen = picker.pick(tree)
    if not chosen and not may_be_empty:
        message = f"selector {expression!r} picks no board; {picker.hint(tree) or those_there(boards)}"
        raise UsageError(message)
    return tuple(name for name in boards if name in chosen)


def limited(
    chosen: Sequence[str],
    limit: str,
    boards: Mapping[str, Mapping[str, str]],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    known: Callable[[Iterable[str]], Mapping[str, Known]] | None = None,
) -> tuple[str, ...]:
    """Narrow chosen boards by `--limit`: the first so many of them, or those that another selector picks too.

    Raises:
        UsageError: the limit can't be read, or nothing is left.

    """
    if limit.strip().isdecimal():
        if int(limit) < 1:
            message = "--limit must leave at least one board"
            raise UsageError(message)
        return tuple(chosen[: int(limit)])
    picked = set(select(limit, boards, groups=groups, known=known))
    left = tuple(name for name in chosen if name in picked)
    if not left:
        message = f"--limit {limit!r} leaves none of the {len(chosen)} boards that were selected"
        raise UsageError(message)
    return left


def parse_labels(pairs: Sequence[str]) -> dict[str, str]:
    """Read `key=value` pairs. Raises UsageError."""
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not is_label(key, value):
            message = f"label {pair!r}: write key=value, without spaces, commas, '!' or a second '='"
            raise UsageError(message)
        labels[key] = value
    return labels


def is_label(key: str, value: str) -> bool:
    """Whether a selector can name this label."""
    return is_key(key) and not re.search(r"[,!=\s]", value)


def check_name(name: str) -> None:
    """Refuse a board's name that selectors take for something else: `all` would be every board. Raises ValueError."""
    if name in syntax.WORDS:
        message = f"board name {name!r} means something else in selectors; choose another"
        raise ValueError(message)


def is_key(key: str) -> bool:
    """Whether it can be a label's key."""
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", key))


def is_group(name: str) -> bool:
    """Whether a selector can name this group."""
    return bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name))


class _Picker:
    """Sets of names, made from the tree's leaves upwards."""

    def __init__(
        self,
        boards: Mapping[str, Mapping[str, str]],
        groups: Mapping[str, Sequence[str]],
        known: Callable[[Iterable[str]], Mapping[str, Known]] | None,
    ) -> None:
        self._boards = boards
        self._groups = groups
        self._ask = known
        self._known: Mapping[str, Known] | None = None

    def pick(self, node: Node) -> set[str]:
        match node:
            case Listing():
                return self._listing(node)
            case Not():
                return set(self._boards) - self.pick(node.part)
            case Both():
                sets = [self.pick(part) for part in node.parts]
                return set.union(*sets) if node.either else set.intersection(*sets)

    def hint(self, tree: Node) -> str:
        """Say which key nobody has, when nothing was picked."""
        for term in _terms(tree):
            if term.kind == "label" and not self._has_key(term.key):
                return f"no board has a label {term.key!r}, and it is no fact ({', '.join(traits.KEYS)})"
        return ""

    def _listing(self, listing: Listing) -> set[str]:
        names: set[str] = set()
        excluded: set[str] = set()
        conditions: list[set[str]] = []
        adding = False
        for term in listing.terms:
            if term.kind in ("name", "group"):
                found = self._named(term)
                if term.wanted:
                    names |= found
                    adding = True
                else:
                    excluded |= found
            else:
                found = self._labelled(term) if term.kind == "label" else self._present(term)
                if term.wanted:
                    conditions.append(found)
                else:
                    excluded |= found
        chosen = names if adding else set(self._boards)
        return chosen.intersection(*conditions) - excluded

    def _named(self, term: Term) -> set[str]:
        if term.kind == "group":
            found = fnmatch.filter(self._groups, term.value)
            if not found:
                have = ", ".join(self._groups) or "none"
                message = f"no group {term.text!r}; the fleet's groups: {have}"
                raise UsageError(message)
            return {board for group in found for board in self._groups[group]}
        if term.value in _EVERY:
            return set(self._boards)
        matched = {term.value} & self._boards.keys() or set(fnmatch.filter(self._boards, term.value))
        if not matched:
            message = f"no board {term.text!r}; {those_there(self._boards)}"
            raise UsageError(message)
        return matched

    def _present(self, term: Term) -> set[str]:
        wanted = term.value == "online"
        return {name for name, known in self._remembered(term).items() if known.contact.online is wanted}

    def _labelled(self, term: Term) -> set[str]:
        if term.key == "name":
            return set(fnmatch.filter(self._boards, term.value))
        found = set()
        left = []
        matches = _matcher(term.value)
        for name, labels in self._boards.items():
            if term.key not in labels:
                left.append(name)
            elif matches(labels[term.key]):
                found.add(name)
        if term.key == "group":
            return found | {board for group, each in self._groups.items() if matches(group) for board in each}
        if term.key in traits.KEYS and left:
            known = self._remembered(term)
            return found | {name for name in left if traits.matches(known[name], term.key, term.value)}
        if len(left) == len(self._boards):
            self._refuse_slip(term)
        return found

    def _refuse_slip(self, term: Term) -> None:
        """Refuse a key that nobody has and that looks like one somebody has: `not stie=lab` would pick everything."""
        keys = {key for labels in self._boards.values() for key in labels}.union(traits.KEYS, _OTHER_KEYS)
        by_sound = {key.lower(): key for key in keys}
        near = difflib.get_close_matches(term.key.lower(), by_sound, n=1, cutoff=_NEAR)
        if near:
            meant = by_sound[near[0]]
            message = f"selector term {term.text!r}: no board has a label {term.key!r}; did you mean {meant!r}?"
            raise UsageError(message)

    def _has_key(self, key: str) -> bool:
        return key in traits.KEYS or key in _OTHER_KEYS or any(key in labels for labels in self._boards.values())

    def _remembered(self, term: Term) -> Mapping[str, Known]:
        if self._ask is None:
            message = f"selector term {term.text!r}: only names, groups and labels can be asked for here"
            raise UsageError(message)
        if self._known is None:
            self._known = self._ask(self._boards)
        return self._known


def _matcher(pattern: str) -> Callable[[str], bool]:
    if not _WILD.search(pattern):
        return pattern.__eq__
    compiled = re.compile(fnmatch.translate(pattern))
    return lambda value: value == pattern or compiled.match(value) is not None


def _terms(node: Node) -> Iterable[Term]:
    match node:
        case Listing():
            yield from node.terms
        case Not():
            yield from _terms(node.part)
        case Both():
            for part in node.parts:
                yield from _terms(part)


def those_there(boards: Mapping[str, object]) -> str:
    """Say which boards there are, for who named none of them."""
    if not boards:
        return "the fleet has no boards yet (`tflotilla board add`)"
    shown = ", ".join(list(boards)[:_SHOWN_NAMES])
    more = f" and {len(boards) - _SHOWN_NAMES} more" if len(boards) > _SHOWN_NAMES else ""
    return f"the fleet has {shown}{more}"
