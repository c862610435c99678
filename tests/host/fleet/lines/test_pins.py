"""Other people's known_hosts, and our own."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests import sshd as real_sshd
from tflotilla.host.fleet.inventory.fleet import BoardEntry
from tflotilla.host.fleet.lines import enrolment, pins
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

_KNOWN = """\
# comment
pi-1,10.0.0.1 ssh-rsa AAAArsa1
pi-1 ssh-ed25519 AAAAed1 somebody
[pi-1]:2222 ssh-ed25519 AAAAport
*.lan,!bad.lan ecdsa-sha2-nistp256 AAAAlan
@cert-authority * ssh-ed25519 AAAAca
@revoked * ssh-ed25519 AAAArevoked
pi-2 ssh-ed25519 AAAArevoked
pi-2 ssh-dss AAAAdss
broken
"""


@pytest.mark.parametrize(
    ("addresses", "key"),
    [
        (["pi-1"], ("ssh-ed25519", "AAAAed1")),
        (["PI-1"], ("ssh-ed25519", "AAAAed1")),
        (["10.0.0.1"], ("ssh-rsa", "AAAArsa1")),
        (["[pi-1]:2222"], ("ssh-ed25519", "AAAAport")),
        (["[pi-1]:22"], None),
        (["good.lan"], ("ecdsa-sha2-nistp256", "AAAAlan")),
        (["bad.lan"], None),
        (["pi-2"], None),
        (["nowhere", "10.0.0.1"], ("ssh-rsa", "AAAArsa1")),
        (["broken"], None),
    ],
)
def test_the_best_key_of_a_host_is_found_under_any_of_its_names(
    addresses: list[str], key: tuple[str, str] | None
) -> None:
    assert key == pins.KnownHosts(_KNOWN).lookup(addresses)


def test_names_that_openssh_hid_are_found(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    public = real_sshd.generate_key(tmp_path / "key").with_suffix(".pub").read_text().split()
    file.write_text(f"pi-1 {public[0]} {public[1]}\n[pi-2]:2222 {public[0]} {public[1]}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)

    known = pins.KnownHosts(file.read_text())

    assert "pi-1" not in file.read_text()
    assert (public[0], public[1]) == known.lookup(["pi-1"])
    assert (public[0], public[1]) == known.lookup(["[pi-2]:2222"])
    assert known.lookup(["pi-2"]) is None


def test_boards_get_the_keys_that_a_file_has_for_their_addresses(tmp_path: Path, home: Path) -> None:
    (home / ".ssh" / "config").write_text("Host alias\n  HostName 10.0.0.1\n")
    (tmp_path / "known").write_text(_KNOWN)
    boards = {
        "pi-1": BoardEntry(host="pi-1", port=2222),
        "by-alias": BoardEntry(host="alias"),
        "none": BoardEntry(host="h"),
    }

    found = enrolment.from_file(boards, tmp_path / "known")

    assert {"pi-1": "[pi-1]:2222 ssh-ed25519 AAAAport", "by-alias": "10.0.0.1 ssh-rsa AAAArsa1"} == found.lines
    assert {"none": f"{tmp_path / 'known'} has no key of h"} == found.missing
    with pytest.raises(InputError, match="No such file"):
        enrolment.from_file(boards, tmp_path / "nothing")
