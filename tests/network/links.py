"""Links between this machine and network namespaces, and what can be wrong with a link: the door to ip, tc and nft.

A network is one block of addresses, 10.B.0.0/16 with B from 64 to 127, taken by a lock: tests of several processes do
not meet, and whoever takes the block of a process that was killed clears what that one left. Link i of block n is the
veth device `tfln-i` here with 10.B.i.1, and `eth0` with 10.B.i.2 in the namespace `tfln-i`.

Loss is dropped where packets come in, on either side: a packet dropped on its way out is told to the sender, which no
real link does. A lossy link carries no packet of more than 1500 bytes, as a wire does.

What it does NOT do: anything without root (the calling test is skipped); delay (netem is absent from many kernels).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_LOCKS = Path("/run/lock/tflotilla-network")
_BLOCKS = 64
_FIRST_OCTET = 64
_DEADLINE_S = 30.0
_HERE = "eth0"
#: A link's queue holds what it carries in that time, as a home router's does.
_QUEUE_S = 0.4
_LEAST_QUEUE_BYTES = 1 << 16
_LEAST_BURST_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link of a block; `name` is both the device here and the namespace there."""

    block: int
    index: int

    @property
    def name(self) -> str:
        """The name of the namespace, and of this machine's end."""
        return f"tfl{self.block}-{self.index}"

    @property
    def address(self) -> str:
        """The address at the other end."""
        return f"10.{_FIRST_OCTET + self.block}.{self.index}.2"

    @property
    def gateway(self) -> str:
        """This machine's address on the link."""
        return f"10.{_FIRST_OCTET + self.block}.{self.index}.1"

    def command(self, *words: str) -> list[str]:
        """Return the command that runs words in the namespace."""
        return ["ip", "netns", "exec", self.name, *words]

    def pids(self) -> list[int]:
        """Return what runs in the namespace."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False)
        return [int(line) for line in found.stdout.split()]

    def kill(self) -> None:
        """Kill what runs in the namespace, as a power cut does: all of it, without a word."""
        deadline = time.monotonic() + _DEADLINE_S
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                pytest.fail(f"processes {pids} of {self.name} survive SIGKILL")
            time.sleep(0.01)

    def set_up(self, *, up: bool) -> None:
        """Plug the cable in, or pull it: nothing is said to either side."""
        run("ip", "link", "set", self.name, "up" if up else "down")
        if up:
            run("ip", "-n", self.name, "link", "set", _HERE, "up")

    @property
    def carried_bytes(self) -> int:
        """What went to the board since the link was made, headers of every packet included."""
        return int(Path(f"/sys/class/net/{self.name}/statistics/tx_bytes").read_text())

    def limit_rate(self, rate_bit_per_s: float | None) -> None:
        """Carry that much each way; None lifts the limit."""
        for where, device in (([], self.name), (["-n", self.name], _HERE)):
            subprocess.run(["tc", *where, "qdisc", "del", "dev", device, "root"], capture_output=True, check=False)
            if rate_bit_per_s is None:
                continue
            bytes_per_s = rate_bit_per_s / 8
            run(
                *("tc", *where, "qdisc", "add", "dev", device, "root", "tbf"),
                *("rate", f"{int(rate_bit_per_s)}bit"),
                *("burst", str(max(_LEAST_BURST_BYTES, int(bytes_per_s / 100)))),
                *("limit", str(max(_LEAST_QUEUE_BYTES, int(bytes_per_s * _QUEUE_S)))),
            )

    def break_packets(self, *, loss: float = 0.0, reset: bool = False, reset_after_bytes: int | None = None) -> None:
        """Lose a share of the packets each way, or reset connections.

        Reset are all (`reset`), or each that has carried so many bytes to the board (`reset_after_bytes`). Every call
        replaces what the last one asked for.
        """
        segments = "1" if loss else "65535"
        run("ip", "link", "set", self.name, "gso_max_segs", segments)
        run("ip", "-n", self.name, "link", "set", _HERE, "gso_max_segs", segments)
        share = f"numgen random mod 1000 < {round(loss * 1000)} drop" if loss else ""
        which = "" if reset_after_bytes is None else f"ct original bytes > {reset_after_bytes}"
        ends = reset or reset_after_bytes is not None
        rules = f"""
            table inet broken
            delete table inet broken
            table inet broken {{
                chain in {{
                    type filter hook input priority 0;
                    iifname lo accept
                    tcp flags & rst == rst accept
                    {share}
                    {f"meta l4proto tcp {which} reject with tcp reset" if ends else ""}
                }}
                chain out {{
                    type filter hook output priority 0;
                    oifname lo accept
                    tcp flags & rst == rst accept
                    {f"meta l4proto tcp {which} reject with tcp reset" if ends else ""}
                }}
            }}
            """
        run(*self.command("nft", "-f", "-"), text=rules)
        run("nft", "-f", "-", text=f"table netdev {self.name}\ndelete table netdev {self.name}\n")
        if share:
            table = f"""
                table netdev {self.name} {{
                    chain in {{ type filter hook ingress device "{self.name}" priority 0; {share}; }}
                }}
                """
            run("nft", "-f", "-", text=table)


def run(*command: str, text: str | None = None) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}: {done.stderr or done.stdout}{text or ''}")
    return done.stdout


def need() -> None:
    """Skip the calling test where this machine can't have namespaces."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for tool, package in (("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables")):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on this machine (Debian: apt install {package})")
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no network namespaces here: {probe.stderr.strip()}")


@contextlib.contextmanager
def links(count: int) -> Iterator[tuple[Link, ...]]:
    """Have so many links until the context ends; whatever runs in their namespaces then is killed."""
    need()
    with _block() as block:
        made = tuple(Link(block=block, index=index) for index in range(count))
        try:
            _make(made)
            yield made
        finally:
            _clear(block)


@contextlib.contextmanager
def _block() -> Iterator[int]:
    _LOCKS.mkdir(parents=True, exist_ok=True)
    addresses = run("ip", "-o", "-4", "address")
    for block in range(_BLOCKS):
        with (_LOCKS / str(block)).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            _clear(block)
            if f"inet 10.{_FIRST_OCTET + block}." in addresses and f": tfl{block}-" not in addresses:
                continue  # somebody else's addresses
            yield block
            return
    pytest.fail(f"all {_BLOCKS} blocks of addresses are in use")


def _make(made: Sequence[Link]) -> None:
    _batch(f"netns add {link.name}" for link in made)
    _batch(
        line
        for link in made
        for line in (
            f"link add {link.name} type veth peer name {_HERE} netns {link.name}",
            f"address add {link.gateway}/30 dev {link.name}",
            f"link set {link.name} up",
        )
    )
    for link in made:
        lines = ("link set lo up", f"address add {link.address}/30 dev {_HERE}", f"link set {_HERE} up")
        _batch((*lines, f"route add default via {link.gateway}"), "-n", link.name)
        # What a connection has carried is counted only where asked for.
        run(*link.command("sh", "-c", "echo 1 >/proc/sys/net/netfilter/nf_conntrack_acct 2>/dev/null || true"))


def _clear(block: int) -> None:
    """Remove a block's links, whoever made them: the lock is held, so nobody uses them."""
    prefix = f"tfl{block}-"
    names = [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.startswith(prefix)]
    for name in names:
        Link(block=block, index=int(name.removeprefix(prefix))).kill()
    tables = [line.split()[2] for line in run("nft", "list", "tables").splitlines() if f" netdev {prefix}" in line]
    run("nft", "-f", "-", text="".join(f"delete table netdev {table}\n" for table in tables))
    devices = [
        line.split(": ")[1].split("@")[0] for line in run("ip", "-o", "link").splitlines() if f": {prefix}" in line
    ]
    _batch([f"link del {device}" for device in devices])
    _batch([f"netns del {name}" for name in names])


def _batch(lines: Iterable[str], *where: str) -> None:
    run("ip", *where, "-batch", "-", text="".join(f"{line}\n" for line in lines))
