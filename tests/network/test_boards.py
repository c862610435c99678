"""Boards with addresses of their own: what a link does is what was asked of it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.network.boards import Board, Network, boards

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    """Two boards."""
    with boards(tmp_path / "net", count=2) as made:
        yield made


def _ssh(board: Board, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=5")
    words = [word for option in options for word in ("-o", option)]
    return subprocess.run(
        ["ssh", *words, "-i", str(board.client_key), f"{board.user}@{board.host}", *command],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_each_board_has_an_address_and_a_home_of_its_own(net: Network) -> None:
    """Two boards at one port, two machines to whoever connects."""
    answers = [_ssh(board, 'echo "$HOME"').stdout.strip() for board in net.boards]
    assert [str(board.home) for board in net.boards] == answers


def test_a_connection_is_reset_once_it_has_carried_its_bytes(net: Network) -> None:
    """More is not carried; a link that is whole again carries all."""
    data = "x" * 400_000
    net.shape(0, reset_after_bytes=100_000)
    broken = _ssh(net.boards[0], "wc -c", text=data)
    net.shape(0)
    whole = _ssh(net.boards[0], "wc -c", text=data)

    assert (255, "", 0, "400000") == (broken.returncode, broken.stdout, whole.returncode, whole.stdout.strip())


def test_a_reboot_ends_what_ran_on_that_board_only(net: Network) -> None:
    """The neighbour's processes go on."""
    for board in net.boards:
        _ssh(board, "nohup sleep 1000 >/dev/null 2>&1 &")
    first, second = net.boards
    running = second.link.pids()
    first.reboot()

    assert (1, running) == (len(first.link.pids()), second.link.pids())
