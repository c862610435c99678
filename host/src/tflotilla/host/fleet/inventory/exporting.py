"""A fleet in the words of other tools: Ansible's inventories, CSV, ssh's configuration, JSON. Pure.

Law: importing what was exported gives the boards that were exported, with their labels and groups (JSON is for
programs; ssh's configuration has no words for labels, groups, python and install).
What it does NOT do: export keys, or the boards' agent.toml. `.tflotilla/known_hosts` is a known_hosts file as it is.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import shlex
from typing import TYPE_CHECKING, Any, Literal, get_args

from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tflotilla.host.fleet.inventory.entries import BoardEntry

Format = Literal["ansible", "ansible-ini", "csv", "ssh-config", "json"]
FORMATS: tuple[str, ...] = get_args(Format)
#: Host variables for what Ansible has no words for; importing reads them.
LABELS = "tflotilla_labels"
INSTALL = "tflotilla_install"
_COLUMNS = ("name", "host", "port", "user", "identity", "jump", "python", "install", "groups", "labels")


def text(
    form: Format,
    boards: Mapping[str, BoardEntry],
    groups: Mapping[str, tuple[str, ...]],
    *,
    fleet: str,
    known_hosts: Path | None = None,
) -> str:
    """Write boards and their groups; `known_hosts` is named in ssh's configuration."""
    within = {group: [name for name in members if name in boards] for group, members in groups.items()}
    within = {group: members for group, members in within.items() if members}
    match form:
        case "ansible":
            return _ansible_yaml(boards, within)
        case "ansible-ini":
            return _ansible_ini(boards, within)
        case "csv":
            return _csv(boards, within)
        case "ssh-config":
            return _ssh_config(boards, fleet, known_hosts)
        case "json":
            document = {"fleet": fleet, "boards": {n: codec.encode(e) for n, e in boards.items()}, "groups": within}
            return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _variables(name: str, entry: BoardEntry) -> dict[str, Any]:
    said = {
        "ansible_host": entry.host if entry.host != name else None,
        "ansible_port": entry.port,
        "ansible_user": entry.user,
        "ansible_ssh_private_key_file": entry.identity,
        "ansible_ssh_common_args": f"-o ProxyJump={entry.jump}" if entry.jump else None,
        "ansible_python_interpreter": entry.python if entry.python != "python3" else None,
        INSTALL: entry.install if entry.install != "auto" else None,
        LABELS: dict(entry.labels) or None,
    }
    return {key: value for key, value in said.items() if value is not None}


def _ansible_yaml(boards: Mapping[str, BoardEntry], groups: Mapping[str, list[str]]) -> str:
    # JSON's scalars and flow mappings are YAML's too: nothing has to be quoted by rules of our own.
    lines = ["all:", "  hosts:" if boards else "  hosts: {}"]
    for name, entry in boards.items():
        lines.append(f"    {json.dumps(name)}:")
        lines += [f"      {key}: {json.dumps(value)}" for key, value in _variables(name, entry).items()]
    if groups:
        lines.append("  children:")
    for group, members in groups.items():
        lines += [f"    {json.dumps(group)}:", "      hosts:"]
        lines += [f"        {json.dumps(name)}:" for name in members]
    return "\n".join(lines) + "\n"


def _ansible_ini(boards: Mapping[str, BoardEntry], groups: Mapping[str, list[str]]) -> str:
    lines = []
    for name, entry in boards.items():
        words = [f"{key}={shlex.quote(_ini(value))}" for key, value in _variables(name, entry).items()]
        lines.append(" ".join((name, *words)))
    for group, members in groups.items():
        lines += ["", f"[{group}]", *members]
    return "\n".join(lines) + "\n"


def _ini(value: object) -> str:
    # Ansible reads them as Python's literals, where they are such; a text that looks like one must say that it is none.
    if not isinstance(value, str):
        return repr(value)
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return repr(value)


def _csv(boards: Mapping[str, BoardEntry], groups: Mapping[str, list[str]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    within: dict[str, list[str]] = {name: [] for name in boards}
    for group, members in groups.items():
        for name in members:
            within[name].append(group)
    for name, entry in boards.items():
        labels = " ".join(f"{key}={value}" for key, value in entry.labels.items())
        names = " ".join(within[name])
        cells = (name, entry.host, entry.port, entry.user, entry.identity, entry.jump, entry.python, entry.install)
        writer.writerow(["" if cell is None else cell for cell in (*cells, names, labels)])
    return stream.getvalue()


def _ssh_config(boards: Mapping[str, BoardEntry], fleet: str, known_hosts: Path | None) -> str:
    lines = [f"# Boards of the fleet {fleet}; written by `tflotilla fleet export`."]
    for name, entry in boards.items():
        said = {
            "HostName": entry.host,
            "Port": entry.port,
            "User": entry.user,
            "IdentityFile": _quoted(entry.identity),
            "ProxyJump": entry.jump,
            "UserKnownHostsFile": None if known_hosts is None else f"~/.ssh/known_hosts {_quoted(str(known_hosts))}",
        }
        lines += ["", f"Host {name}", *(f"    {key} {value}" for key, value in said.items() if value is not None)]
    return "\n".join(lines) + "\n"


def _quoted(path: str | None) -> str | None:
    return f'"{path}"' if path is not None and " " in path else path
