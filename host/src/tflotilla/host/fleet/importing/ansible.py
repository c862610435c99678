"""Ansible inventories from disk, with the group_vars and host_vars beside them. The only door to yaml.

INI, YAML, JSON (what `ansible-inventory --list` prints, too), and folders of them.

What it does NOT do: run anything. Inventory scripts and plugins are refused with the command that makes a file of them;
vaulted values stay closed.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import yaml

from tflotilla.host.fleet.importing import ansible_hosts, ansible_ini
from tflotilla.host.fleet.importing.ansible_tree import ALL, Group, Inventory
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tflotilla.host.fleet.importing.candidates import Reading

_YAML = (".yml", ".yaml", ".json")
#: What Ansible passes over in a folder of inventories: hidden files, backups, documents, and the folders of variables.
_IGNORED = re.compile(
    r"^\.|~$|\.(?:pyc|pyo|swp|bak|rpm|md|txt|rst|orig|cfg|retry)$|^(?:group_vars|host_vars|vars_plugins)$"
)
_LARGEST_BYTES = 32 << 20


class Vaulted:
    """A value that only the vault's password would open."""

    def __repr__(self) -> str:
        """Say so."""
        return "a vaulted value"


class _Loader(yaml.SafeLoader):
    """YAML as Ansible writes it: `!vault` and `!unsafe` besides the standard tags."""


_Loader.add_constructor("!vault", lambda _loader, _node: Vaulted())
_Loader.add_constructor("!vault-encrypted", lambda _loader, _node: Vaulted())
_Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]


def read(path: Path, *, label_variables: Iterable[str] = ()) -> Reading:
    """Read an inventory: a file, or a folder of them.

    Args:
        path: of the inventory.
        label_variables: names of host variables that become labels.

    Raises:
        InputError: it isn't there, or can't be read; file and place are named.

    """
    inventory = load(path)
    base = path if path.is_dir() else path.parent
    return ansible_hosts.reading(
        inventory.variables(), source=str(path), folder=base.absolute(), label_variables=tuple(label_variables)
    )


def load(path: Path) -> Inventory:
    """Read an inventory with the variables beside it. Raises InputError."""
    inventory = Inventory()
    try:
        _add(path, inventory)
        base = path if path.is_dir() else path.parent
        for name, group in inventory.groups.items():
            group.beside = _variables(base / "group_vars", name)
        for host in inventory.hosts:
            inventory.beside[host] = _variables(base / "host_vars", host)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(_one_line(error, path)) from error
    except OSError as error:
        message = f"{error.filename or path}: {error.strerror or error}"
        raise InputError(message) from error
    return inventory


def _add(path: Path, inventory: Inventory) -> None:
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if not _IGNORED.search(child.name):
                _add(child, inventory)
        return
    text = _text(path)
    if os.access(path, os.X_OK) and text.startswith("#!"):
        message = f"{path} is a program; `ansible-inventory -i {path} --list > inventory.json`, then import that file"
        raise ValueError(message)
    document = _yaml_inventory(path, text)
    if document is None:
        ansible_ini.read(text, inventory, str(path))
    elif "_meta" in document:
        _add_listing(document, inventory, str(path))
    else:
        for name, group in document.items():
            _add_group(str(name), group, inventory, str(path))


def _yaml_inventory(path: Path, text: str) -> dict[str, Any] | None:
    """Return the document, or None when it is to be read as INI. Raises ValueError, yaml.YAMLError."""
    if path.suffix not in (*_YAML, ""):
        return None
    try:
        # JSON is YAML, but not all of it: tabs, for one. YAML's own reader is enough for what tools write.
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with two harmless tags
    except (yaml.YAMLError, RecursionError):
        if path.suffix in _YAML:
            raise
        return None
    if not isinstance(document, dict):
        if path.suffix not in _YAML:
            return None
        message = f"{path}: an inventory is a mapping of groups, not {type(document).__name__}"
        raise ValueError(message)
    if document.get("plugin"):
        message = (
            f"{path} configures an inventory plugin; `ansible-inventory -i {path} --list > inventory.json`, "
            f"then import that file"
        )
        raise ValueError(message)
    return document


def _add_group(name: str, table: Any, inventory: Inventory, where: str) -> None:  # noqa: ANN401 - what YAML holds
    if table is not None and not isinstance(table, dict):
        # Ansible passes over it with a warning: a list of plays, mostly.
        return
    group = inventory.groups.setdefault(name, Group())
    table = table or {}
    for host, variables in _mapping(table.get("hosts"), f"{where}: {name}.hosts").items():
        inventory.add_hosts(name, host, _mapping(variables, f"{where}: {name}.hosts.{host}"))
    group.variables.update(_mapping(table.get("vars"), f"{where}: {name}.vars"))
    for child, below in _mapping(table.get("children"), f"{where}: {name}.children").items():
        _add_group(str(child), below, inventory, where)
        if name != ALL:
            inventory.add_child(name, str(child))


def _add_listing(document: Mapping[str, Any], inventory: Inventory, where: str) -> None:
    """Add what `ansible-inventory --list` prints."""
    meta = _mapping(document["_meta"], f"{where}: _meta")
    for name, table in document.items():
        if name == "_meta" or not isinstance(table, dict):
            continue
        inventory.groups.setdefault(name, Group())
        for host in table.get("hosts", ()):
            inventory.add_hosts(name, _plain(host), {})
        for child in table.get("children", ()):
            if name != ALL:
                inventory.add_child(name, str(child))
    for host, variables in _mapping(meta.get("hostvars"), f"{where}: _meta.hostvars").items():
        inventory.hosts.setdefault(host, {}).update(_mapping(variables, f"{where}: {host}"))
        inventory.groups[ALL].hosts.setdefault(host)


def _plain(host: object) -> str:
    return str(host)


def _mapping(value: Any, where: str) -> dict[str, Any]:  # noqa: ANN401
    if value is None:
        return {}
    if isinstance(value, str):
        return {value: None}
    if not isinstance(value, dict):
        message = f"{where}: a mapping is expected, not {type(value).__name__}"
        raise ValueError(message)  # noqa: TRY004 - what the file says
    return value


def _variables(folder: Path, name: str) -> dict[str, Any]:
    """Return the variables of one group or host: NAME, NAME.yml, NAME.yaml, NAME.json, or the files in folder NAME."""
    if not folder.is_dir() or "/" in name:
        return {}
    for suffix in ("", *_YAML):
        path = folder / f"{name}{suffix}"
        if path.is_dir() and not suffix:
            found: dict[str, Any] = {}
            for file in sorted(path.rglob("*")):
                hidden = any(part.startswith(".") or part.endswith("~") for part in file.relative_to(path).parts)
                if file.is_file() and not hidden and file.suffix in ("", *_YAML):
                    found.update(_file_variables(file))
            return found
        if path.is_file():
            return _file_variables(path)
    return {}


def _file_variables(path: Path) -> dict[str, Any]:
    text = _text(path)
    if text.startswith("$ANSIBLE_VAULT"):
        # The whole file is closed: what it holds is not known, as if it were not there.
        return {}
    return _mapping(yaml.load(text, Loader=_Loader), str(path))  # noqa: S506 - a SafeLoader with two harmless tags


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        data = stream.read(_LARGEST_BYTES + 1)
    if len(data) > _LARGEST_BYTES:
        message = f"{path} is larger than {_LARGEST_BYTES >> 20} MiB"
        raise ValueError(message)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        message = f"{path} is not text in UTF-8 (byte {error.start})"
        raise ValueError(message) from error


def _one_line(error: Exception, path: Path) -> str:
    words = " ".join(str(error).split()) or "nested too deeply"
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        words = f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', words)}"
    return words if words.startswith(str(path)) else f"{path}: {words}"
