"""Boards behind a real sshd, and fleets that know them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import sshd as real_sshd
from tflotilla.host.fleet import ssh
from tflotilla.host.fleet.inventory import BoardEntry, Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the host a HOME of its own: no ssh config, no keys, no agent of the person running the tests."""
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
