"""Changes to a TOML text that leave everything else as its author wrote it: comments, order, spacing.

Law: for the text t and any changes c that don't raise, `tomllib.loads(put(t, c))` is `tomllib.loads(t)` with c applied,
but for tables that are empty: TOML needs no word for them. It is checked after every change; a text too unusual to be
changed in place raises ValueError and stays as it is.

What it does NOT do: touch files, or know what a fleet is.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Path = tuple[str, ...]
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BARE_KEY = r"[A-Za-z0-9_-]+(?:[ \t]*\.[ \t]*[A-Za-z0-9_-]+)*"
_HEADER = re.compile(rf"[ \t]*\[[ \t]*({_BARE_KEY})[ \t]*\][ \t]*(?:#.*)?$")
_ASSIGNMENT = re.compile(rf"[ \t]*({_BARE_KEY})[ \t]*=[ \t]*")
_QUOTED_KEY = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\]|\\.)*\"|'[^']*')"
_QUOTED_ASSIGNMENT = re.compile(rf"[ \t]*({_QUOTED_KEY}(?:[ \t]*\.[ \t]*{_QUOTED_KEY})*)[ \t]*=[ \t]*")
_UP_TO_COMMENT = re.compile(r"(?:\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\"'#])*")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """One header (`value` is None) or assignment: lines `first` up to `last`, both included."""

    path: Path
    table: Path
    first: int
    last: int
    #: (column in line `first`, column in line `last`) of an assignment's value.
    value: tuple[int, int] | None = None


def put(text: str, changes: Mapping[Path, Any]) -> str:
    """Set values at their paths, or take them out (None, with everything below); tables come inline.

    Raises:
        ValueError: the text isn't TOML, or this can't be done in place.

    """
    wanted = _loads(text)
    for path, value in changes.items():
        _apply(wanted, path, value)
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    by_path, headers = _index(_statements(lines))
    edits = _Edits(lines)
    inline: dict[_Statement, dict[Path, Any]] = {}
    for path, value in changes.items():
        holder = _inline_holder(by_path, path)
        if holder is None:
            _change(edits, by_path, headers, path, value)
        else:
            inline.setdefault(holder, {})[path] = value
    for holder, each in inline.items():
        _change_inline(edits, holder, each)
    changed = edits.text()
    if _pruned(_loads(changed)) != _pruned(wanted):
        message = f"{'.'.join(next(iter(changes)))} can't be changed in place"
        raise ValueError(message)
    return changed


def append(text: str, tables: Mapping[Path, Mapping[str, Any]]) -> str:
    """Add whole tables at the end, a header each; their own tables come inline. None values are left out."""
    parts = [text.rstrip("\n")] if text.strip() else []
    for path, values in tables.items():
        body = "".join(f"\n{key(name)} = {literal(value)}" for name, value in values.items() if value is not None)
        parts.append(f"[{'.'.join(map(key, path))}]{body}")
    return "\n\n".join(parts) + "\n"


def key(name: str) -> str:
    """Write one key, quoted where it must be."""
    return name if _BARE.fullmatch(name) else _string(name)


def literal(value: Any) -> str:  # noqa: ANN401 - whatever TOML holds
    """Write a value on one line."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key(name)} = {literal(each)}" for name, each in value.items() if each is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (int, float)):
        return repr(value)
    # Dates and times: TOML writes them as Python's isoformat does.
    return str(value.isoformat())


def _string(value: str) -> str:
    # JSON's escapes are TOML's too, but for DEL, which JSON leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _loads(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        message = "the text is nested too deeply"
        raise ValueError(message) from error


def _pruned(document: Any) -> Any:  # noqa: ANN401 - whatever TOML holds
    """Leave out tables that hold nothing but such tables."""
    if not isinstance(document, dict):
        return document
    kept = {name: _pruned(value) for name, value in document.items()}
    return {name: value for name, value in kept.items() if value != {}}


def _apply(document: dict[str, Any], path: Path, value: Any) -> None:  # noqa: ANN401
    table = document
    for name in path[:-1]:
        if value is None and name not in table:
            return
        table = table.setdefault(name, {})
    if value is None:
        table.pop(path[-1], None)
    else:
        table[path[-1]] = copy.deepcopy(dict(value) if isinstance(value, Mapping) else value)


class _Edits:
    """Replaced, removed and inserted lines, put together at the end: line numbers stay those of the text as it was."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self._new: dict[int, str] = {}
        self._after: dict[int, list[str]] = {}

    def remove(self, statement: _Statement) -> None:
        for number in range(statement.first, statement.last + 1):
            self._new[number] = ""

    def replace_value(self, statement: _Statement, value: Any) -> None:  # noqa: ANN401
        start, end = statement.value or (0, 0)
        before, after = self.lines[statement.first][:start], self.lines[statement.last][end:]
        self.remove(statement)
        self._new[statement.first] = before + literal(value) + after

    def insert_after(self, number: int, line: str) -> None:
        self._after.setdefault(number, []).append(line)

    def text(self) -> str:
        parts = self._after.get(-1, []).copy()
        for number, line in enumerate(self.lines):
            parts.append(self._new.get(number, line))
            parts += self._after.get(number, ())
        return "".join(parts)


def _statements(lines: list[str]) -> list[_Statement]:
    found: list[_Statement] = []
    table: Path = ()
    number = 0
    while number < len(lines):
        line = lines[number]
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            number += 1
            continue
        if stripped.startswith("["):
            table = _header(line)
            found.append(_Statement(path=table, table=table, first=number, last=number))
            number += 1
            continue
        matched = _ASSIGNMENT.match(line) or _QUOTED_ASSIGNMENT.match(line)
        if matched is None:
            message = f"line {number + 1} can't be read"
            raise ValueError(message)
        name = _path(matched[1])
        last, end = _value_end(lines, number, matched.end())
        found.append(_Statement(path=(*table, *name), table=table, first=number, last=last, value=(matched.end(), end)))
        number = last + 1
    return found


def _header(line: str) -> Path:
    matched = _HEADER.match(line)
    if matched:
        return _path(matched[1])
    parsed = _loads(line)
    path: list[str] = []
    # A header alone parses to one nested table; of an array of tables, whose entries nobody changes, to a list.
    while isinstance(parsed, dict) and parsed:
        ((name, parsed),) = parsed.items()
        path.append(name)
    return tuple(path)


def _path(text: str) -> Path:
    if '"' not in text and "'" not in text:
        return tuple(part.strip() for part in text.split("."))
    parsed: Any = _loads(f"{text} = 0")
    path = []
    while isinstance(parsed, dict):
        ((name, parsed),) = parsed.items()
        path.append(name)
    return tuple(path)


def _value_end(lines: list[str], number: int, start: int) -> tuple[int, int]:
    """Return the line on which a value ends, and the column behind it."""
    first = lines[number]
    opening = first[start : start + 3]
    if not opening.startswith("[") and opening not in ('"""', "'''"):
        matched = _UP_TO_COMMENT.match(first, start)
        end = matched.end() if matched else len(first)
        return number, start + len(first[start:end].rstrip())
    collected = first[start:]
    for last in range(number, len(lines)):
        if last > number:
            collected += lines[last]
        try:
            tomllib.loads(f"x = {collected}")
        except tomllib.TOMLDecodeError:
            continue
        # A comment behind the closing bracket goes with the value: nobody comments there but in one-line arrays.
        matched = _UP_TO_COMMENT.match(first, start) if last == number and opening.startswith("[") else None
        end = matched.end() if matched else len(lines[last])
        begin = start if last == number else 0
        return last, begin + len(lines[last][begin:end].rstrip())
    message = f"line {number + 1}: the value has no end"
    raise ValueError(message)


def _index(statements: list[_Statement]) -> tuple[dict[Path, list[_Statement]], dict[Path, list[_Statement]]]:
    """Return the statements at or below each path up to three levels, and those below each header."""
    by_path: dict[Path, list[_Statement]] = {}
    by_table: dict[Path, list[_Statement]] = {}
    for statement in statements:
        for length in range(1, len(statement.path) + 1):
            by_path.setdefault(statement.path[:length], []).append(statement)
        by_table.setdefault(statement.table, []).append(statement)
    return by_path, by_table


def _change(
    edits: _Edits,
    by_path: Mapping[Path, list[_Statement]],
    by_table: Mapping[Path, list[_Statement]],
    path: Path,
    value: Any,  # noqa: ANN401
) -> None:
    there = by_path.get(path, [])
    exact = [statement for statement in there if statement.path == path and statement.value is not None]
    if exact:
        if value is None:
            edits.remove(exact[0])
        else:
            edits.replace_value(exact[0], value)
        return
    if there:
        _change_spread(edits, there, path, value)
        return
    if value is not None:
        _insert(edits, by_path, by_table, path, value)


def _inline_holder(by_path: Mapping[Path, list[_Statement]], path: Path) -> _Statement | None:
    """Return the assignment of an inline table that holds the path, if there is one."""
    for length in range(1, len(path)):
        for statement in by_path.get(path[:length], [])[:2]:
            if statement.value is not None and statement.path == path[:length]:
                return statement
    return None


def _change_inline(edits: _Edits, holder: _Statement, changes: Mapping[Path, Any]) -> None:
    start, end = holder.value or (0, 0)
    last = edits.lines[holder.last][:end]
    text = last[start:] if holder.first == holder.last else edits.lines[holder.first][start:]
    text += "".join(edits.lines[holder.first + 1 : holder.last]) + (last if holder.first != holder.last else "")
    table = tomllib.loads(f"x = {text}")["x"]
    if not isinstance(table, dict):
        message = f"{'.'.join(holder.path)} is no table"
        raise ValueError(message)  # noqa: TRY004 - of the text, not of a type of ours
    for path, value in changes.items():
        _apply(table, path[len(holder.path) :], value)
    edits.replace_value(holder, table)


def _change_spread(edits: _Edits, there: list[_Statement], path: Path, value: Any) -> None:  # noqa: ANN401
    """Change a table that has a header or dotted keys of its own."""
    wanted = dict(value) if isinstance(value, Mapping) else {}
    left = dict(wanted)
    gone: list[_Statement] = []
    for statement in there:
        below = statement.path[len(path) :]
        if value is None:
            gone.append(statement)
        elif statement.value is None and below:
            gone += [statement] if below[0] not in wanted else []
        elif len(below) == 1 and below[0] in wanted:
            edits.replace_value(statement, left.pop(below[0]))
        elif below:
            gone.append(statement)
    for statement in gone:
        edits.remove(statement)
    last = there[-1]
    prefix = path[len(last.table) :]
    for name, each in left.items():
        edits.insert_after(last.last, f"{'.'.join(map(key, (*prefix, name)))} = {literal(each)}\n")


def _insert(
    edits: _Edits,
    by_path: Mapping[Path, list[_Statement]],
    by_table: Mapping[Path, list[_Statement]],
    path: Path,
    value: Any,  # noqa: ANN401
) -> None:
    for length in range(len(path) - 1, 0, -1):
        parent = path[:length]
        if parent in by_table:
            last = by_table[parent][-1]
            name = ".".join(map(key, path[length:]))
            edits.insert_after(last.last, f"{name} = {literal(value)}\n")
            return
        dotted = [statement for statement in by_path.get(parent, []) if statement.value is not None]
        if dotted:
            last = dotted[-1]
            if len(last.table) < length:
                name = ".".join(map(key, path[len(last.table) :]))
                edits.insert_after(last.last, f"{name} = {literal(value)}\n")
                return
    header, name = path[:-1], path[-1]
    end = len(edits.lines) - 1
    edits.insert_after(end, f"\n[{'.'.join(map(key, header))}]\n{key(name)} = {literal(value)}\n")
