"""Ansible's INI inventories. Pure: lines in, an Inventory changed.

    pi[01:20].local:2222 ansible_user=pi    hosts of `ungrouped`, or of the [group] above them
    [kitchen:vars] · [kitchen:children]     variables · groups below it

What it does NOT do: understand the `ansible.cfg` beside it.
"""

from __future__ import annotations

import ast
import re
import shlex
import warnings
from typing import TYPE_CHECKING, Any

from tflotilla.host.fleet.importing.ansible_tree import UNGROUPED, Group

if TYPE_CHECKING:
    from tflotilla.host.fleet.importing.ansible_tree import Inventory

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_CHILD = re.compile(r"([^:\]\s]+)\s*(?:#.*)?")


def read(text: str, inventory: Inventory, where: str) -> None:
    """Add an INI inventory's groups and hosts.

    Raises:
        ValueError: naming file and line.

    """
    group, kind = UNGROUPED, "hosts"
    #: Groups that must be declared somewhere: name → (line, what asked for them).
    asked: dict[str, tuple[int, str]] = {}
    declared = set(inventory.groups)
    children: list[tuple[int, str, str]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        try:
            section = _SECTION.fullmatch(line)
            if section:
                group, kind = section[1], section[2] or "hosts"
                _begin(group, kind)
                if kind == "vars":
                    asked.setdefault(group, (number, f"[{group}:vars]"))
                else:
                    declared.add(group)
                inventory.groups.setdefault(group, Group())
            elif line.startswith("[") and line.endswith("]"):
                message = f"section {line} can't be read"
                raise ValueError(message)  # noqa: TRY301 - caught to be told with its line
            elif kind == "hosts":
                _host(line, group, inventory)
            elif kind == "vars":
                name, value = _variable(line)
                inventory.groups[group].variables[name] = value
            else:
                child = _CHILD.fullmatch(line)
                if child is None:
                    message = f"{line!r} is not a group's name"
                    raise ValueError(message)  # noqa: TRY301
                asked.setdefault(child[1], (number, f"[{group}:children]"))
                children.append((number, group, child[1]))
        except ValueError as error:
            message = f"{where}:{number}: {error}"
            raise ValueError(message) from error
    for name, (number, by) in asked.items():
        if name not in declared:
            message = f"{where}:{number}: {by} names group {name!r}, which is nowhere declared"
            raise ValueError(message)
    for number, parent, name in children:
        try:
            inventory.add_child(parent, name)
        except ValueError as error:
            message = f"{where}:{number}: {error}"
            raise ValueError(message) from error


def _begin(group: str, kind: str) -> None:
    if kind not in ("hosts", "vars", "children"):
        message = f"section [{group}:{kind}] is none of [{group}], [{group}:vars], [{group}:children]"
        raise ValueError(message)


def _host(line: str, group: str, inventory: Inventory) -> None:
    words = shlex.split(line, comments=True)
    if not words or words[0] == "---":
        message = f"{line!r} is not a host"
        raise ValueError(message)
    variables = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals:
            message = f"{word!r} behind a host must be name=value"
            raise ValueError(message)
        variables[name] = _value(value)
    inventory.add_hosts(group, words[0], variables)


def _variable(line: str) -> tuple[str, Any]:
    name, equals, value = line.partition("=")
    if not equals:
        message = f"{line!r} must be name=value"
        raise ValueError(message)
    return name.strip(), _value(value.strip())


def _value(text: str) -> Any:  # noqa: ANN401 - a literal of Python, that is how Ansible reads them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text
    if isinstance(value, (str, int, float, bool, list, dict)) or value is None:
        return value
    return list(value) if isinstance(value, (tuple, set)) else text
