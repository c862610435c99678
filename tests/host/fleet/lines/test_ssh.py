"""Connections to a real OpenSSH server: who is let in, who is refused, what is said."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

import pytest

from tests import sshd as real_sshd
from tests.host.fleet.conftest import entry
from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
from tflotilla.host.fleet.lines import ssh
from tflotilla.host.fleet.lines.duplex import Completed
from tflotilla.shared.contract.errors import ConfigError, IdentityError, UnreachableError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sshd import Sshd

pytestmark = pytest.mark.sshd


def _connects(fleet: Fleet, name: str = "pi-1") -> bytes:
    with ssh.connect(name, fleet.board(name), fleet) as link:
        return link.run("echo here", timeout_s=30).stdout


def test_an_enrolled_board_runs_commands_in_its_own_home(board: Sshd, fleet: Fleet) -> None:
    with ssh.connect("pi-1", fleet.board("pi-1"), fleet) as link:
        done = link.run("cat; echo $HOME; echo oh >&2; exit 3", stdin=b"in ", timeout_s=30)

    assert done == Completed(exit_status=3, stdout=f"in {board.home}\n".encode(), stderr=b"oh\n")


def test_the_shown_host_key_is_the_one_that_ssh_keygen_shows(board: Sshd, fleet: Fleet) -> None:
    (shown,) = ssh.fetch_host_keys("pi-1", entry(board), fleet)

    assert shown.fingerprint == board.fingerprint
    assert shown.address == f"[127.0.0.1]:{board.port}"


def test_a_changed_host_key_is_refused_and_both_fingerprints_are_named(board: Sshd, fleet: Fleet) -> None:
    before = board.fingerprint
    board.change_host_key()

    with pytest.raises(IdentityError) as refused:
        _connects(fleet)

    assert before in str(refused.value)
    assert board.fingerprint in str(refused.value)


def test_a_host_key_of_another_kind_is_refused_like_any_other_change(board: Sshd, fleet: Fleet) -> None:
    board.stop()
    real_sshd.generate_key(board.host_key, "ecdsa")
    board.start()

    with pytest.raises(IdentityError, match="another host key"):
        _connects(fleet)


def test_a_board_whose_key_was_never_pinned_is_refused(fleet: Fleet) -> None:
    fleet.known_hosts.write_text("")

    with pytest.raises(IdentityError, match="not pinned"):
        _connects(fleet)


def test_a_board_that_is_off_is_unreachable(board: Sshd, fleet: Fleet) -> None:
    board.stop()

    with pytest.raises(UnreachableError, match=r"pi-1 .* can't be reached: Connection refused"):
        _connects(fleet)


def test_a_name_that_no_one_knows_is_unreachable(fleet: Fleet) -> None:
    lost = dataclasses.replace(fleet.board("pi-1"), host="no-such-host.invalid")

    with pytest.raises(UnreachableError, match="can't be resolved"), ssh.connect("pi-1", lost, fleet):
        pass


def test_a_login_with_another_key_is_refused_without_asking_for_a_password(
    board: Sshd, fleet: Fleet, tmp_path: Path
) -> None:
    stranger = real_sshd.generate_key(tmp_path / "stranger")
    other = dataclasses.replace(entry(board), identity=str(stranger))

    with (
        pytest.raises(IdentityError, match=f"refused our keys for user {board.user}"),
        ssh.connect("pi-1", other, fleet),
    ):
        pass


def test_no_key_at_all_says_what_to_do(board: Sshd, fleet: Fleet) -> None:
    keyless = dataclasses.replace(entry(board), identity=None)

    with pytest.raises(IdentityError, match="no key to log in with"), ssh.connect("pi-1", keyless, fleet):
        pass


def test_a_key_file_that_is_not_there_is_named(board: Sshd, fleet: Fleet) -> None:
    missing = dataclasses.replace(entry(board), identity="/no/such key")

    with pytest.raises(ConfigError, match="/no/such key"), ssh.connect("pi-1", missing, fleet):
        pass


def test_the_users_ssh_config_gives_host_name_port_user_and_key(board: Sshd, fleet: Fleet, home: Path) -> None:
    (home / ".ssh" / "config").write_text(
        f"Host kitchen\n HostName {board.host}\n Port {board.port}\n User {board.user}\n"
        f" IdentityFile {board.client_key}\n IdentityFile /no/such/key\n"
    )
    alias = BoardEntry(host="kitchen")
    (shown,) = ssh.fetch_host_keys("pi-2", alias, fleet)
    changed = fleet.add("pi-2", alias, shown.line)

    assert _connects(changed, "pi-2") == b"here\n"


@pytest.mark.parametrize("place", ["ssh's configuration", "fleet.toml"])
def test_a_jump_host_is_taken_when_its_key_is_known_and_refused_when_not(
    board: Sshd, fleet: Fleet, home: Path, tmp_path: Path, place: str
) -> None:
    with real_sshd.running(tmp_path / "gateway") as gateway:
        jump = f"{gateway.user}@localhost:{gateway.port}"
        # One login serves both hops.
        shutil.copy(board.client_key, home / ".ssh" / "id_ed25519")
        shutil.copy(board.folder / "authorized_keys", gateway.folder / "authorized_keys")
        (home / ".ssh" / "config").write_text(
            f"Host behind\n HostName {board.host}\n Port {board.port}\n"
            + (f" ProxyJump {jump}\n" if place == "ssh's configuration" else "")
        )
        jumping = BoardEntry(host="behind", user=board.user, jump=jump if place == "fleet.toml" else None)
        with pytest.raises(IdentityError, match=r"host key of \[localhost\]"):
            ssh.fetch_host_keys("pi-2", jumping, fleet)

        public = " ".join((gateway.folder / "host_key.pub").read_text().split()[:2])
        (home / ".ssh" / "known_hosts").write_text(f"[localhost]:{gateway.port} {public}\n")
        (shown,) = ssh.fetch_host_keys("pi-2", jumping, fleet)
        changed = fleet.add("pi-2", jumping, shown.line)
        answer = _connects(changed, "pi-2")
        with ssh.connect("pi-2", jumping, changed) as link:
            counted = link.run("wc -c", stdin=bytes(3_000_000), timeout_s=60).stdout

    assert counted.strip() == b"3000000"
    assert shown.fingerprint == board.fingerprint
    assert answer == b"here\n"
    assert gateway.relay.connections == 4


def test_a_connection_that_breaks_says_so_at_once(board: Sshd, fleet: Fleet) -> None:
    with ssh.connect("pi-1", fleet.board("pi-1"), fleet) as link, link.open("echo up; cat") as duplex:
        assert duplex.readline(timeout_s=30, limit_bytes=100) == b"up\n"
        board.relay.cut()
        with pytest.raises(UnreachableError, match=r"lost|broke"):
            duplex.readline(timeout_s=60, limit_bytes=100)


def test_a_server_that_is_no_ssh_server_is_unreachable(board: Sshd, fleet: Fleet) -> None:
    board.relay.stop()
    with real_sshd.running(board.folder / "other") as other:
        other.relay.cut_after_bytes = 1
        silent = dataclasses.replace(entry(board), port=other.port)
        with pytest.raises(UnreachableError), ssh.connect("pi-1", silent, fleet):
            pass


def test_bytes_sent_counts_everything_that_leaves_for_the_board(board: Sshd, fleet: Fleet) -> None:
    before = board.relay.forwarded_bytes
    with ssh.connect("pi-1", fleet.board("pi-1"), fleet) as link:
        link.run("cat >/dev/null", stdin=b"x" * 100_000, timeout_s=30)
        counted = link.bytes_sent

    assert 100_000 < counted < 104_000
    # The enrolment's and this connection's goodbyes pass the relay late.
    assert abs(board.relay.forwarded_bytes - before - counted) < 500
