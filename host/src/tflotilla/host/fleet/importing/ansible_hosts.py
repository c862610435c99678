"""What a host's Ansible variables mean for us. Pure.

Used: ansible_host, ansible_port, ansible_user, ansible_ssh_private_key_file, ansible_python_interpreter, ProxyJump and
ProxyCommand in ansible_ssh_common_args and its siblings. Templates are filled in where they hold variables alone.
What it does NOT do: take passwords; tflotilla logs in with keys.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from tflotilla.host.fleet.importing.candidates import Candidate, LeftOut, Reading, board_name, distinct
from tflotilla.host.fleet.inventory.entries import BoardEntry
from tflotilla.host.fleet.inventory.exporting import INSTALL, LABELS
from tflotilla.host.fleet.selection.selectors import is_group, is_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_TEMPLATE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_DEEPEST = 10
_OVER_SSH = (
    "ssh",
    "smart",
    "paramiko",
    "paramiko_ssh",
    "ansible.builtin.ssh",
    "ansible.builtin.paramiko_ssh",
    "ansible.netcommon.libssh",
)
_SSH_ARGUMENTS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
_FOUND_OUT = ("auto", "auto_silent", "auto_legacy", "auto_legacy_silent")
_PASSWORDS = ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password")


def reading(
    hosts: Iterable[tuple[str, tuple[str, ...], Mapping[str, Any]]],
    *,
    source: str,
    folder: Path,
    label_variables: tuple[str, ...] = (),
) -> Reading:
    """Make candidates of hosts with their groups and variables; paths are relative to `folder`."""
    candidates: list[Candidate] = []
    left_out: list[LeftOut] = []
    odd_groups: set[str] = set()
    for host, groups, variables in hosts:
        try:
            candidates.append(_candidate(host, groups, variables, folder, label_variables))
        except ValueError as error:
            left_out.append(LeftOut(origin=host, reason=str(error)))
        odd_groups |= {group for group in groups if not is_group(group)}
    kept = distinct(candidates, left_out)
    notes = tuple(f"group {group!r} is left out: no selector can name it" for group in sorted(odd_groups))
    return Reading(source=source, candidates=kept, left_out=tuple(left_out), notes=notes)


def _candidate(
    host: str, groups: tuple[str, ...], variables: Mapping[str, Any], folder: Path, label_variables: tuple[str, ...]
) -> Candidate:
    given = _Variables(host, variables)
    connection = given.text("ansible_connection") or "ssh"
    if connection not in _OVER_SSH:
        message = f"ansible_connection = {connection}: only SSH is spoken here"
        raise ValueError(message)
    name = board_name(host)
    notes = [f"{host} becomes {name}"] if name != host else []
    # Of two names for one thing the older one counts, wherever it stands: so does Ansible's ssh plugin.
    table: dict[str, Any] = {"host": given.text("ansible_ssh_host", "ansible_host") or host}
    port = given.text("ansible_ssh_port", "ansible_port")
    if port is not None:
        if not port.isdecimal():
            message = f"ansible_port = {port!r} is no port"
            raise ValueError(message)
        table["port"] = int(port)
    table["user"] = given.text("ansible_ssh_user", "ansible_user")
    identity = given.text("ansible_ssh_private_key_file", "ansible_private_key_file")
    if identity:
        table["identity"] = identity if identity.startswith("~") else str(folder / identity)
    python = given.text("ansible_python_interpreter")
    if python and python not in _FOUND_OUT:
        table["python"] = python
    table["jump"], said = _jump(given)
    notes += said
    if any(variable in variables for variable in _PASSWORDS):
        notes.append("its password isn't used: put your public key there")
    install = given.text(INSTALL)
    if install:
        table["install"] = install
    labels = {**_own_labels(variables), **_labels(given, label_variables)}
    if labels:
        table["labels"] = labels
    table = {key: value for key, value in table.items() if value is not None}
    # What fleet.toml would refuse is refused here, for this host alone.
    BoardEntry(**table)
    return Candidate(name=name, origin=host, table=table, groups=tuple(filter(is_group, groups)), notes=tuple(notes))


class _Variables:
    """A host's variables as texts, templates filled in."""

    def __init__(self, host: str, variables: Mapping[str, Any]) -> None:
        self._variables = {
            "inventory_hostname": host,
            "inventory_hostname_short": host.split(".")[0],
            **variables,
        }

    def text(self, *names: str) -> str | None:
        """Return the first of some variables that is set, None when none is. Raises ValueError."""
        for name in names:
            value = self._variables.get(name)
            if value is not None and value != "":
                return self._filled(name, value, 0).strip()
        return None

    def _filled(self, name: str, value: Any, depth: int) -> str:  # noqa: ANN401
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            message = f"{name} is {type(value).__name__.lower()}, not a text"
            raise ValueError(message)  # noqa: TRY004 - what the file says
        text = str(value)
        if "{{" not in text and "{%" not in text:
            return text

        def fill(found: re.Match[str]) -> str:
            inner = self._variables.get(found[1])
            if inner is None or depth >= _DEEPEST:
                message = f"{name} = {text!r} can't be worked out: {found[1]} is not known"
                raise ValueError(message)
            return self._filled(found[1], inner, depth + 1)

        filled = _TEMPLATE.sub(fill, text)
        if "{{" in filled or "{%" in filled:
            message = f"{name} = {text!r} can't be worked out: only plain variables are filled in"
            raise ValueError(message)
        return filled


def _own_labels(variables: Mapping[str, Any]) -> dict[str, str]:
    said = variables.get(LABELS)
    return {str(key): str(value) for key, value in said.items()} if isinstance(said, dict) else {}


def _labels(given: _Variables, names: tuple[str, ...]) -> dict[str, str]:
    labels = {}
    for name in names:
        value = given.text(name)
        if value is not None:
            if not is_label(name, value):
                message = f"{name} = {value!r} can't be a label: no spaces, ',', '!', '='"
                raise ValueError(message)
            labels[name] = value
    return labels


def _jump(given: _Variables) -> tuple[str | None, list[str]]:
    """Return the host to go through, and what else stands in the arguments that isn't used."""
    jump: str | None = None
    unused: list[str] = []
    for name in _SSH_ARGUMENTS:
        text = given.text(name)
        if text is None:
            continue
        words = shlex.split(text)
        position = 0
        while position < len(words):
            option, value, position = _option(words, position)
            found = _jump_of(option, value)
            if found is not None:
                jump = found
            elif option:
                unused.append(option)
    return jump, [f"ssh's {', '.join(dict.fromkeys(unused))} isn't used"] if unused else []


def _option(words: list[str], position: int) -> tuple[str, str, int]:
    """Return an option, its value and where the next one begins."""
    word = words[position]
    if word[:2] in ("-o", "-J", "-F", "-i", "-l", "-p"):
        flag, value = word[:2], word[2:]
        if not value and position + 1 < len(words):
            position += 1
            value = words[position]
        if flag == "-o":
            key, _separator, value = re.sub(r"^([^\s=]+)\s*=?\s*", r"\1\0", value).partition("\0")
            return key, value, position + 1
        return flag, value, position + 1
    return word, "", position + 1


def _jump_of(option: str, value: str) -> str | None:
    if option == "-J" or option.lower() == "proxyjump":
        return value
    if option.lower() != "proxycommand":
        return None
    words = shlex.split(value)
    if not words or not words[0].endswith("ssh"):
        return None
    # `ssh -W %h:%p [-q] [-p port] [user@]host`: what ProxyJump does by itself.
    host, port, position = None, None, 1
    through = False
    while position < len(words):
        word = words[position]
        if word == "-W" or (word.startswith("-W") and "%h" in word):
            through = True
            position += 1 if word != "-W" else 2
        elif word == "-p" and position + 1 < len(words):
            port, position = words[position + 1], position + 2
        elif word in ("-q", "-4", "-6", "-A", "-T"):
            position += 1
        elif word.startswith("-"):
            return None
        else:
            host, position = word, position + 1
    return None if host is None or not through else f"{host}:{port}" if port else host
