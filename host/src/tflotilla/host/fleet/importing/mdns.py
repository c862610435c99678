"""Boards that say over mDNS that they are there; the only door to zeroconf.

Raspberry Pi OS announces `_workstation._tcp` and, where its avahi is told to, `_ssh._tcp`. What it does NOT do: log in
anywhere. A machine that announces itself isn't yet a board of anybody's fleet: host keys decide that.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zeroconf

from tflotilla.host.fleet.importing.candidates import Candidate, LeftOut, Reading, board_name, distinct
from tflotilla.host.fleet.inventory.entries import BoardEntry
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

SSH = "_ssh._tcp.local."
WORKSTATION = "_workstation._tcp.local."
_INFO_TIMEOUT_MS = 2000
_SSH_PORT = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """One machine as it announced itself."""

    #: `raspberrypi.local`.
    server: str
    addresses: tuple[str, ...]
    #: None where it said that it is there, and not where its sshd listens.
    port: int | None = None


def listen(*, timeout_s: float, interfaces: Sequence[str] | None = None) -> tuple[Announced, ...]:
    """Hear who is there for so many seconds.

    Args:
        timeout_s: how long.
        interfaces: addresses of our own to listen on; default all.

    Raises:
        InputError: this machine can't do multicast.

    """
    found: dict[tuple[str, str], zeroconf.ServiceInfo] = {}
    lock = threading.Lock()
    try:
        own: Any = zeroconf.InterfaceChoice.Default if interfaces is None else list(interfaces)
        with zeroconf.Zeroconf(interfaces=own) as network:

            def heard(
                zeroconf: zeroconf.Zeroconf, service_type: str, name: str, state_change: zeroconf.ServiceStateChange
            ) -> None:
                if state_change.name == "Removed":
                    return
                info = zeroconf.get_service_info(service_type, name, timeout=_INFO_TIMEOUT_MS)
                if info is not None:
                    with lock:
                        found[service_type, name] = info

            browser = zeroconf.ServiceBrowser(network, [SSH, WORKSTATION], handlers=[heard])
            time.sleep(timeout_s)
            browser.cancel()
    except (OSError, zeroconf.Error) as error:
        message = f"this machine can't listen to mDNS: {error}"
        raise InputError(message) from error
    with lock:
        return _merged(found.items())


def reading(announced: Iterable[Announced], *, resolves: Callable[[str], bool]) -> Reading:
    """Make candidates of what was heard; `resolves` says whether this machine finds a name like `pi.local`."""
    candidates: list[Candidate] = []
    left_out: list[LeftOut] = []
    for machine in sorted(announced, key=lambda each: each.server):
        alias = machine.server.removesuffix(".local")
        try:
            name = board_name(alias)
            host, notes = machine.server, [f"{alias} becomes {name}"] if name != alias else []
            if not resolves(host):
                if not machine.addresses:
                    message = "it told no address, and its name isn't found"
                    raise ValueError(message)  # noqa: TRY301 - told with its name
                notes.append(f"{host} isn't found by this machine (libnss-mdns); its address may change")
                host = machine.addresses[0]
            table: dict[str, Any] = {"host": host}
            if machine.port not in (None, _SSH_PORT):
                table["port"] = machine.port
            BoardEntry(**table)
            candidates.append(Candidate(name=name, origin=machine.server, table=table, notes=tuple(notes)))
        except ValueError as error:
            left_out.append(LeftOut(origin=machine.server, reason=str(error)))
    kept = distinct(candidates, left_out)
    return Reading(source="mDNS", candidates=kept, left_out=tuple(left_out))


def resolves(host: str) -> bool:
    """Whether this machine finds an address for a name."""
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def _merged(found: Iterable[tuple[tuple[str, str], zeroconf.ServiceInfo]]) -> tuple[Announced, ...]:
    by_server: dict[str, Announced] = {}
    # SSH before WORKSTATION, by name: the one that tells a port goes first.
    for (kind, _name), info in sorted(found, key=lambda each: each[0]):
        server = re.sub(r"\.$", "", info.server or "").lower()
        if server and server not in by_server:
            addresses = sorted(info.parsed_addresses(), key=_preference)
            port = info.port if kind == SSH else None
            by_server[server] = Announced(server=server, addresses=tuple(addresses), port=port)
    return tuple(by_server.values())


def _preference(address: str) -> tuple[int, str]:
    # Link-local addresses of IPv6 need an interface; IPv4 goes first, as the shortest to write.
    parsed = ipaddress.ip_address(address.split("%")[0])
    return (2 if parsed.is_link_local else 1 if parsed.version == 6 else 0, address)  # noqa: PLR2004 - of IP
