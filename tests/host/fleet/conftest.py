"""Boards behind a real sshd, and fleets that know them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import environments_unpacked
from tests import sshd as real_sshd
from tflotilla.host.fleet.agents import environments, layers, probe
from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
from tflotilla.host.fleet.lines import ssh
from tflotilla.shared.contract import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Asked before tests change HOME: what uv fetched once needs no network again.
_UV_CACHE = os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return a cache of environments that every test of this run shares, so that one is built once."""
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "tflotilla-cache"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the host a HOME of its own: no ssh config, no keys, no agent of the person running the tests."""
    monkeypatch.setenv("TFLOTILLA_CACHE", str(cache))
    monkeypatch.setenv("UV_CACHE_DIR", _UV_CACHE)
    folder = tmp_path / "host-home"
    (folder / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("TFLOTILLA_FLEET", raising=False)
    return folder


@pytest.fixture
def board(tmp_path: Path) -> Iterator[real_sshd.Sshd]:
    """One board that is on."""
    with real_sshd.running(tmp_path / "board") as running:
        yield running


@pytest.fixture
def warm(board: real_sshd.Sshd, fleet: Fleet) -> real_sshd.Sshd:
    """Return `board`, with the packages of its environment there already: a bootstrap sends the agent alone."""
    packages, _agent = layers.environment(environments.target(probe.probe("pi-1", fleet).facts))
    unpacked = environments_unpacked.folder(packages)
    there = board.home / layout.USER_HOME / layout.ENVIRONMENTS
    there.mkdir(parents=True)
    subprocess.run(["cp", "-al", str(unpacked), str(there)], check=True)
    return board


def entry(sshd: real_sshd.Sshd) -> BoardEntry:
    """Describe a running sshd as fleet.toml would."""
    return BoardEntry(
        host=sshd.host, port=sshd.port, user=sshd.user, identity=str(sshd.client_key), install="user", python="python3"
    )


@pytest.fixture
def fleet(tmp_path: Path, board: real_sshd.Sshd) -> Fleet:
    """Return a fleet in which `board` is enrolled as pi-1."""
    key = real_sshd.generate_key(tmp_path / "signing_key")
    empty = Fleet.create(tmp_path / "fleet" / "fleet.toml", name="garden", signing_key=key)
    (shown,) = ssh.fetch_host_keys("pi-1", entry(board), empty)
    return empty.add("pi-1", entry(board), shown.line)
