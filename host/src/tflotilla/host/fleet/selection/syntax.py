"""How selectors are written: a text becomes a tree. Pure, and knows no board.

    expression   one or more of: all · `and` any · `or` any · `not` one · ( … ) · a list
    list         terms with commas or spaces between them: names add, conditions narrow, `!` leaves out
    term         pi-7 · pi-* · @kitchen · key=value · key==value · key!=value · online · offline · each with `!` or not

`and` binds closer than `or`, `not` closer than both. Values with spaces stand in quotes: `model="Raspberry Pi 4*"`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tflotilla.shared.contract.errors import UsageError

_TOKEN = re.compile(r"\s*(?:(?P<sign>[(),])|(?P<word>(?:[^\s(),\"']|\"[^\"]*\"|'[^']*')+)|(?P<odd>\S))")
_QUOTES = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_NAME = re.compile(r"[a-z0-9*?\[](?:[a-z0-9*?\[\]-]|(?<=\[)!)*")
_GROUP = re.compile(r"[A-Za-z0-9_*?\[][A-Za-z0-9._*?\[\]-]*")
_DEEPEST = 100
_OPERATORS = frozenset({"and", "or", "not"})
#: What is no board's name, because it means something else here.
WORDS = frozenset({*_OPERATORS, "all", "online", "offline"})
Kind = Literal["name", "group", "label", "presence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One term: `key` is set for labels, and `value` may hold `*`, `?` and `[…]`."""

    kind: Kind
    value: str
    key: str = ""
    #: False for `!term` and `key!=value`.
    wanted: bool = True
    #: How it was written, and at which character (from 1).
    text: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Terms side by side: the meaning of commas and spaces."""

    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Not:
    """All boards but those."""

    part: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """`and` of all parts, `or` if `either`."""

    parts: tuple[Node, ...]
    either: bool = False


Node: TypeAlias = Listing | Not | Both


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    text: str
    at: int
    sign: bool


def parse(expression: str) -> Node:
    """Read a selector.

    Raises:
        UsageError: in one line, with the place.

    """
    tokens = _tokens(expression)
    if all(token.text == "," for token in tokens):
        message = "the selector is empty; 'all' picks every board"
        raise UsageError(message)
    return _Parser(expression, tokens).whole()


def _tokens(expression: str) -> list[_Token]:
    found: list[_Token] = []
    position = 0
    rest = expression.rstrip()
    while position < len(rest):
        matched = _TOKEN.match(rest, position)
        if matched is None or matched["odd"]:
            at = position if matched is None else matched.start("odd")
            raise _wrong(expression, at + 1, f"{rest[at]} begins a quotation that has no end")
        text = matched["sign"] or matched["word"]
        found.append(_Token(text=text, at=matched.end() - len(text) + 1, sign=matched["sign"] is not None))
        position = matched.end()
    return found


class _Parser:
    """Recursive descent; one token of lookahead."""

    def __init__(self, expression: str, tokens: list[_Token]) -> None:
        self._expression = expression
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._either()
        token = self._peek()
        if token is not None:
            raise self._wrong(
                token, "')' without '('" if token.text == ")" else f"'and' or 'or' is missing before {token.text!r}"
            )
        return node

    def _either(self) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            message = "the selector is nested too deeply"
            raise UsageError(message)
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else Both(parts=tuple(parts), either=True)

    def _both(self) -> Node:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Both(parts=tuple(parts))

    def _one(self) -> Node:
        negated = False
        while self._take("not"):
            negated = not negated
        node = self._primary()
        return Not(part=node) if negated else node

    def _primary(self) -> Node:
        opened = self._peek()
        if opened is not None and opened.sign and opened.text == "(":
            self._next += 1
            node = self._either()
            token = self._peek()
            if token is None:
                raise self._wrong(opened, "'(' has no ')'")
            if not self._take(")"):
                raise self._wrong(token, f"'and', 'or' or ')' is missing before {token.text!r}")
            return node
        terms: list[Term] = []
        while (token := self._peek()) is not None:
            if token.text == ",":
                self._next += 1
            elif token.sign or token.text in _OPERATORS:
                break
            else:
                self._next += 1
                terms.append(self._term(token))
        if not terms:
            raise self._missing(token)
        return Listing(terms=tuple(terms))

    def _term(self, token: _Token) -> Term:
        text = token.text
        wanted = not text.startswith("!")
        body = text.removeprefix("!")
        # Names, facts and groups hold no quotes; what is quoted is taken as it stands.
        bare = _QUOTES.sub(lambda found: found[1] if found[1] is not None else found[2], body)
        if "=" in body:
            key, _equals, value = bare.partition("=")
            if key.endswith("!"):
                key, wanted = key[:-1], not wanted
            # `==` is `=`, as in Kubernetes' selectors: no label's value begins with one.
            value = value.removeprefix("=")
            if not key:
                raise self._wrong(token, f"{text!r} has no key before '='")
            return Term(kind="label", key=key, value=value, wanted=wanted, text=text, at=token.at)
        if bare.startswith("@"):
            if not _GROUP.fullmatch(bare[1:]):
                raise self._wrong(token, f"{text!r} is not a group; write @kitchen")
            return Term(kind="group", value=bare[1:], wanted=wanted, text=text, at=token.at)
        if bare in ("online", "offline"):
            return Term(kind="presence", value=bare, wanted=wanted, text=text, at=token.at)
        if bare.lower() in _OPERATORS:
            raise self._wrong(token, f"write {bare.lower()!r}, not {bare!r}")
        if not _NAME.fullmatch(bare):
            shown = f"selector term {text!r} is neither a board, a pattern like 'pi-*', nor a label like room=kitchen"
            raise UsageError(shown if text == self._expression else f"{shown} (at character {token.at})")
        return Term(kind="name", value=bare, wanted=wanted, text=text, at=token.at)

    def _peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self, text: str) -> bool:
        token = self._peek()
        if token is None or token.text != text:
            return False
        self._next += 1
        return True

    def _missing(self, token: _Token | None) -> UsageError:
        before = self._tokens[self._next - 1].text if self._next else ""
        after = f" after {before!r}" if before else ""
        if token is None:
            return _wrong(self._expression, len(self._expression.rstrip()) + 1, f"something to pick is missing{after}")
        place = after or f" before {token.text!r}"
        return self._wrong(token, f"something to pick is missing{place}")

    def _wrong(self, token: _Token, said: str) -> UsageError:
        return _wrong(self._expression, token.at, said)


def _wrong(expression: str, at: int, said: str) -> UsageError:
    return UsageError(f"selector {expression!r}, character {at}: {said}")
