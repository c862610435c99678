"""An Ansible inventory as a tree of groups and hosts, and the variables that a host ends up with. Pure.

The order in which variables go over each other is that of "Variable precedence" in Ansible's documentation: `all` of
the inventory, its groups from the outermost inwards (then by ansible_group_priority and name), group_vars/all,
group_vars of the groups in the same order, the host's own in the inventory, host_vars.

What it does NOT do: read files, or evaluate templates.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PRIORITY = "ansible_group_priority"
ALL = "all"
UNGROUPED = "ungrouped"
#: A slip like [1:10000000] would fill the memory.
MOST_HOSTS = 100_000
_RANGE = re.compile(r"\[([^\[\]]*)\]")
_BRACKETED = re.compile(r"\[(.+)\]:(\d+)")
_WITH_PORT = re.compile(r"((?:[^:\[\]]|\[[^\]]*\])*):(\d+)")
_LAST_PORT = (1 << 16) - 1


@dataclass(slots=True, kw_only=True)
class Group:
    """One group while the inventory is being read."""

    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    #: Of group_vars/.
    beside: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Inventory:
    """Groups and hosts in the order they were met; every group but `all` is below `all`, named or not."""

    groups: dict[str, Group] = field(default_factory=lambda: {ALL: Group(), UNGROUPED: Group()})
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Of host_vars/.
    beside: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add_hosts(self, group: str, pattern: str, variables: Mapping[str, Any]) -> None:
        """Add the hosts of a pattern like `pi[01:20].local:2222`. Raises ValueError."""
        names, port = expand(pattern)
        if len(self.hosts) + len(names) > MOST_HOSTS:
            message = f"{pattern!r} makes more than {MOST_HOSTS} hosts"
            raise ValueError(message)
        for name in names:
            own = self.hosts.setdefault(name, {})
            if port is not None:
                own["ansible_port"] = port
            own.update(variables)
            self.groups.setdefault(group, Group()).hosts[name] = None

    def add_child(self, parent: str, child: str) -> None:
        """Put a group below another. Raises ValueError where that would make a loop."""
        self.groups.setdefault(child, Group())
        if parent == child or parent in self.below(child):
            message = f"group {child!r} stands below itself"
            raise ValueError(message)
        self.groups.setdefault(parent, Group()).children[child] = None

    def below(self, group: str) -> set[str]:
        """Return every group below one."""
        found: set[str] = set()
        open_ = [group]
        while open_:
            for child in self.groups[open_.pop()].children:
                if child not in found:
                    found.add(child)
                    open_.append(child)
        return found

    def depths(self) -> dict[str, int]:
        """Return how far below `all` each group is; by the longest way, as Ansible counts."""
        depth = {name: 0 if name == ALL else 1 for name in self.groups}
        # At most as many rounds as groups: there are no loops.
        for _round in self.groups:
            changed = False
            for name, group in self.groups.items():
                for child in group.children:
                    if depth[child] < depth[name] + 1:
                        depth[child] = depth[name] + 1
                        changed = True
            if not changed:
                break
        return depth

    def memberships(self) -> dict[str, tuple[str, ...]]:
        """Return each host's groups, those it is in by their children too; without all and ungrouped; in order."""
        depth = self.depths()
        parents: dict[str, set[str]] = {name: set() for name in self.groups}
        for name, group in self.groups.items():
            for child in group.children:
                parents[child].add(name)
        above: dict[str, set[str]] = {}

        def ancestors(name: str) -> set[str]:
            if name not in above:
                above[name] = set()
                above[name] = parents[name].union(*(ancestors(parent) for parent in parents[name]))
            return above[name]

        found: dict[str, set[str]] = {host: set() for host in self.hosts}
        for name in sorted(self.groups, key=depth.__getitem__):
            for host in self.groups[name].hosts:
                found[host] |= {name} | ancestors(name)
        order = {name: self._rank(name, depth) for name in self.groups}
        return {host: tuple(sorted(names - {ALL, UNGROUPED}, key=order.__getitem__)) for host, names in found.items()}

    def variables(self) -> Iterator[tuple[str, tuple[str, ...], dict[str, Any]]]:
        """Yield each host with its groups and the variables it ends up with."""
        everywhere = self.groups[ALL]
        loose = self.groups[UNGROUPED]
        for host, names in self.memberships().items():
            groups = [self.groups[name] for name in names] or [loose]
            result = dict(everywhere.variables)
            for group in groups:
                result.update(group.variables)
            # It orders groups, and is no variable of their hosts.
            result.pop(_PRIORITY, None)
            result.update(everywhere.beside)
            for group in groups:
                result.update(group.beside)
            result.update(self.hosts[host])
            result.update(self.beside.get(host, {}))
            yield host, names, result

    def _rank(self, name: str, depth: Mapping[str, int]) -> tuple[int, int, str]:
        priority = self.groups[name].variables.get(_PRIORITY, 1)
        return depth[name], priority if isinstance(priority, int) else 1, name


def expand(pattern: str) -> tuple[list[str], int | None]:
    """Return the hosts of a pattern, and the port if it names one. Raises ValueError."""
    if not isinstance(pattern, str):
        message = f"host {pattern!r} must be a text; put it in quotes"
        raise ValueError(message)  # noqa: TRY004 - what the file says, not what we call it with
    port: int | None = None
    address = pattern
    found = _BRACKETED.fullmatch(pattern) or _WITH_PORT.fullmatch(pattern)
    # `a::1` is an address of IPv6, not host `a:` with a port.
    if found and (pattern.startswith("[") or ":" not in _RANGE.sub("", found[1])):
        address, port = found[1], int(found[2])
        if not 0 < port <= _LAST_PORT:
            message = f"host {pattern!r}: the port must be 1..65535"
            raise ValueError(message)
    if not address or (address.endswith(":") and "::" not in address):
        message = f"host {pattern!r} can't be read"
        raise ValueError(message)
    return _expand(address, pattern), port


def _expand(address: str, pattern: str) -> list[str]:
    found = _RANGE.search(address)
    if found is None:
        return [address]
    head, tails = address[: found.start()], _expand(address[found.end() :], pattern)
    middle = _range(found[1], pattern)
    if len(middle) * len(tails) > MOST_HOSTS:
        message = f"{pattern!r} makes more than {MOST_HOSTS} hosts"
        raise ValueError(message)
    return [f"{head}{each}{tail}" for each in middle for tail in tails]


def _range(text: str, pattern: str) -> list[str]:
    begin, colon, rest = text.partition(":")
    end, _colon, step_text = rest.partition(":")
    begin = begin or "0"
    if not colon or not end or (step_text and not step_text.isdigit()) or step_text == "0":
        message = f"host {pattern!r}: a range is [begin:end] or [begin:end:step]"
        raise ValueError(message)
    step = int(step_text or 1)
    letters = string.ascii_letters
    if len(begin) == len(end) == 1 and begin in letters and end in letters:
        first, last = letters.index(begin), letters.index(end)
        if first <= last:
            return list(letters[first : last + 1 : step])
    elif begin.isdecimal() and end.isdecimal() and begin.isascii() and end.isascii() and len(end) <= len("100000000"):
        width = len(begin) if begin[0] == "0" and len(begin) > 1 else 0
        if width and width != len(end):
            message = f"host {pattern!r}: begin and end of a range with leading zeros must be equally long"
            raise ValueError(message)
        if int(end) - int(begin) <= MOST_HOSTS * step:
            return [str(number).zfill(width) for number in range(int(begin), int(end) + 1, step)]
    message = f"host {pattern!r}: the range [{text}] makes no hosts, or too many"
    raise ValueError(message)
