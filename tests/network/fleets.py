"""Fleets of boards with addresses of their own: enrolled, with agents that run, and bundles to send them.

What it does NOT do: fetch packages twice; what a board's environment holds is unpacked once per run and linked.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import environments_unpacked, models_made, sshd
from tests.device import running_bundles
from tests.network.boards import Board, Network, boards
from tflotilla.host.bundles import signing
from tflotilla.host.bundles.archive import Bundle
from tflotilla.host.fleet import pool, push
from tflotilla.host.fleet.agents import bootstrap, environments, layers, probe
from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
from tflotilla.shared.contract import layout
from tflotilla.shared.contract.manifest import MANIFEST, SIGNATURE, HealthPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Asked before tests change HOME: what uv fetched once needs no network again.
_UV_CACHE = os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv")
HEALTH = HealthPolicy(confirm_window_s=0.2, max_p99_ratio=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """A network whose boards are enrolled as pi-0, pi-1, …"""

    net: Network
    fleet: Fleet

    @property
    def names(self) -> tuple[str, ...]:
        """The boards' names, in the order of the network."""
        return tuple(f"pi-{index}" for index in range(len(self.net.boards)))

    def bundle(self, release: int, *, padding: int = 0, health: HealthPolicy = HEALTH) -> Bundle:
        """Make a signed bundle; `padding` bytes that don't compress are appended to its model."""
        model = models_made.read("tiny_classifier") + random.Random(release).randbytes(padding)  # noqa: S311 - bytes
        folder = self.fleet.folder / f"tiny-{release}"
        changes = {"version": f"1.0.{release}", "release": release}
        running_bundles.write(folder, model=model, changes=changes, health=health)
        manifest = (folder / MANIFEST).read_bytes()
        (folder / SIGNATURE).write_bytes(signing.sign(manifest, self.fleet.resolve(self.fleet.signing.key or "")))
        return Bundle.open(folder)

    def serving(self, name: str) -> str | None:
        """Return the digest of what a board says it serves."""
        said = push.status(name, self.fleet)
        return said.serving.digest if said.serving is not None and said.running else None


@contextlib.contextmanager
def quiet_host(folder: Path, cache: Path) -> Iterator[None]:
    """Give the host a HOME of its own: no ssh config, no keys, no agent of the person running the tests."""
    (folder / ".ssh").mkdir(parents=True, mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFLOTILLA_CACHE", str(cache))
        patch.setenv("UV_CACHE_DIR", _UV_CACHE)
        patch.setenv("HOME", str(folder))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        patch.delenv("TFLOTILLA_FLEET", raising=False)
        yield


@contextlib.contextmanager
def enrolled(folder: Path, *, count: int, disk_bytes: int | None = None) -> Iterator[Crew]:
    """Run so many boards, enrolled in a fleet that signs; no agent is on them yet."""
    with boards(folder / "boards", count=count, disk_bytes=disk_bytes) as net:
        key = sshd.generate_key(folder / "signing_key")
        fleet = Fleet.create(folder / "fleet" / "fleet.toml", name="garden", signing_key=key)
        for index, board in enumerate(net.boards):
            fleet = fleet.add(f"pi-{index}", entry(board), known_hosts_line(board))
        yield Crew(net=net, fleet=fleet)


@contextlib.contextmanager
def crew(folder: Path, *, count: int, disk_bytes: int | None = None) -> Iterator[Crew]:
    """Run so many boards whose agents run and serve nothing yet."""
    with enrolled(folder, count=count, disk_bytes=disk_bytes) as made:
        for name, board in zip(made.names, made.net.boards, strict=True):
            give_packages(made.fleet, name, board)
        for result in pool.run(made.names, lambda name: bootstrap.bootstrap(name, made.fleet), forks=4):
            assert result.error is None
        yield made


def give_packages(fleet: Fleet, name: str, board: Board) -> None:
    """Put the packages of a board's environment there: a bootstrap then sends the agent alone."""
    packages, _agent = layers.environment(environments.target(probe.probe(name, fleet).facts))
    unpacked = environments_unpacked.folder(packages)
    there = board.home / layout.USER_HOME / layout.ENVIRONMENTS
    there.mkdir(parents=True)
    linked = subprocess.run(["cp", "-al", str(unpacked), str(there)], capture_output=True, check=False)
    if linked.returncode != 0:  # another disk
        subprocess.run(["cp", "-a", str(unpacked), str(there)], check=True)


def entry(board: Board) -> BoardEntry:
    """Describe a board as fleet.toml would."""
    return BoardEntry(
        host=board.host,
        port=board.port,
        user=board.user,
        identity=str(board.client_key),
        install="user",
        python="python3",
    )


def known_hosts_line(board: Board) -> str:
    """Return the board's host key as known_hosts would have it."""
    kind, key = Path(f"{board.host_key}.pub").read_text().split()[:2]
    return f"{board.host} {kind} {key}"
