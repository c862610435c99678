"""Values to JSON and back, for every document of the contract.

Rules it keeps:
- `decode(T, encode(v)) == v` for every value `v` of a contract dataclass `T`;
- encoding is byte-deterministic (`canonical_json`): sorted keys, no spaces, no NaN;
- an error names the place (`manifest.json: inputs[0].shape[2]: …`) and what is allowed there.

It does NOT coerce: "1" is not 1, and 1 is a float only where a float is asked for.
Unknown keys are ignored by default, so that an old reader survives a newer writer; `strict=True`
(for files that people write) refuses them and proposes the nearest key.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import functools
import json
import math
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from tflotilla.shared.contract.errors import ContractError

T = TypeVar("T")
#: What JSON has as it is; most values are of these, and every other question costs more.
_PLAIN = frozenset({str, int, float, bool, type(None)})
_SPOKEN: Mapping[type, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def encode(value: Any) -> Any:  # noqa: ANN401 - JSON has no narrower type
    """Turn a contract value into what `json` can write; fields that are None stay, as null."""
    if type(value) in _PLAIN:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        # A sketch is hundreds of numbers: asking here spares each of them a call.
        return [v if type(v) in _PLAIN else encode(v) for v in value]
    return value


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any contract value
    """Serialize deterministically: equal values give equal bytes. Raises ValueError on NaN and infinity."""
    text = json.dumps(encode(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def parse_json(data: bytes | str, where: str) -> Any:  # noqa: ANN401 - whatever the document holds
    """Parse JSON strictly: UTF-8, no NaN, no duplicate keys. Raises ContractError naming `where`."""

    def refuse_constant(name: str) -> float:
        message = f"{where}: {name} is not allowed in JSON"
        raise ContractError(message)

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            message = f"{where}: a key stands twice in one object"
            raise ContractError(message)
        return document

    try:
        return json.loads(data, parse_constant=refuse_constant, object_pairs_hook=refuse_duplicates)
    except (ValueError, RecursionError) as error:
        message = f"{where}: not valid JSON ({error})"
        raise ContractError(message) from error


def decode(kind: type[T], value: Any, where: str, *, strict: bool = False) -> T:  # noqa: ANN401 - parsed JSON
    """Check a parsed JSON value against a contract dataclass and build it.

    Raises:
        ContractError: naming the place below `where` and what is allowed there.

    """
    return cast("T", _decode(kind, value, where, strict=strict))


def hints(kind: type) -> dict[str, Any]:
    """Return the types of a contract dataclass's fields."""
    return {field.name: _hint(kind, field.name) for field in dataclasses.fields(kind)}


@functools.cache
def _hint(kind: type, name: str) -> Any:  # noqa: ANN401 - a type, or what typing makes of several
    """Return the type of one field, importing no more for it than it names.

    Where a frame may hold what few frames do, its module gives that name when it is asked for (PEP 562), and a session
    that never sees a benchmark never pays for its classes.
    """
    owner = next(base for base in kind.__mro__ if name in base.__dict__.get("__annotations__", ()))
    module = sys.modules[owner.__module__]
    annotation = owner.__annotations__[name]
    # Our own source's text, never a document's.
    return eval(annotation, vars(module), _Names(module)) if isinstance(annotation, str) else annotation  # noqa: S307


class _Names(dict[str, Any]):
    """A module's names, those included that it only gives when asked."""

    def __init__(self, module: types.ModuleType) -> None:
        super().__init__()
        self._module = module

    def __missing__(self, name: str) -> Any:  # noqa: ANN401 - whatever has that name
        try:
            return getattr(self._module, name)
        except AttributeError:
            # Then it is one of Python's own.
            raise KeyError(name) from None


def _decode(kind: Any, value: Any, where: str, *, strict: bool) -> Any:  # noqa: ANN401, PLR0911 - one case a line
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _decode_optional(kind, value, where, strict=strict)
    if origin is Literal:
        return _decode_choice(get_args(kind), value, where)
    if origin is tuple:
        return _decode_tuple(get_args(kind), value, where, strict=strict)
    if origin is not None and issubclass(origin, Mapping):
        return _decode_mapping(get_args(kind)[1], value, where, strict=strict)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(_decode_choice(tuple(member.value for member in kind), value, where))
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(cast("type", kind), value, where, strict=strict)
    return _decode_scalar(kind, value, where)


def _decode_optional(kind: Any, value: Any, where: str, *, strict: bool) -> Any:  # noqa: ANN401
    members = [member for member in get_args(kind) if member is not type(None)]
    if value is None and len(members) < len(get_args(kind)):
        return None
    (member,) = members
    return _decode(member, value, where, strict=strict)


def _decode_choice(allowed: tuple[Any, ...], value: Any, where: str) -> Any:  # noqa: ANN401
    for choice in allowed:
        if value == choice and type(value) is type(choice):
            return value
    return _refuse(where, value, "one of " + ", ".join(json.dumps(choice) for choice in allowed))


def _decode_tuple(arguments: tuple[Any, ...], value: object, where: str, *, strict: bool) -> tuple[Any, ...]:
    if not isinstance(value, list):
        _refuse(where, value, "a list")
    member, _ellipsis = arguments
    return tuple(_decode(member, item, f"{where}[{i}]", strict=strict) for i, item in enumerate(value))


def _decode_mapping(member: Any, value: Any, where: str, *, strict: bool) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(value, dict):
        _refuse(where, value, "a table of keys and values")
    return {key: _decode(member, item, f"{where}.{key}", strict=strict) for key, item in value.items()}


def _decode_dataclass(kind: type, value: Any, where: str, *, strict: bool) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        _refuse(where, value, "a table of keys and values")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if strict:
        for key in value:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, n=1)
                hint = f"did you mean {near[0]!r}?" if near else "allowed are " + ", ".join(sorted(fields))
                message = f"{where}: unknown key {key!r}; {hint}"
                raise ContractError(message)
    separator = ": " if where.endswith((".json", ".toml")) else "."
    given = {}
    for name, field in fields.items():
        if name in value:
            given[name] = _decode(_hint(kind, name), value[name], f"{where}{separator}{name}", strict=strict)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            message = f"{where}: key {name!r} is missing"
            raise ContractError(message)
    try:
        return kind(**given)
    except ValueError as error:
        message = f"{where}: {error}"
        raise ContractError(message) from error


def _decode_scalar(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    if kind is Any:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        _refuse(where, value, _SPOKEN.get(kind, str(kind)))
    if kind is float and not math.isfinite(value):
        _refuse(where, value, "a finite number")
    return value


def _refuse(where: str, value: Any, allowed: str) -> typing.NoReturn:  # noqa: ANN401
    shown = json.dumps(encode(value), default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "…"  # noqa: PLR2004 - one terminal line
    message = f"{where}: {shown} is not allowed here; expected {allowed}"
    raise ContractError(message)
