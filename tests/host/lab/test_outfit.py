"""What lies in the folder of a virtual board."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tflotilla.host.bundles import sshsig
from tflotilla.host.lab.faults import Faults
from tflotilla.host.lab.outfit import Outfit
from tflotilla.shared.contract.manifest import SIGNATURE_NAMESPACE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("python", ["present", "missing"])
def test_a_board_on_a_machine_without_ssh_keygen_verifies_signatures_all_the_same(tmp_path: Path, python: str) -> None:
    board = Outfit(folder=tmp_path / "it's a board", lab_id="lab", name="lab-1")
    board.lay_out(client_public="ssh-ed25519 AAAA", has_ssh_keygen=False)
    key = tmp_path / "key"
    sshsig.generate_key(key, comment="signer")
    public = " ".join(key.with_name("key.pub").read_text().split()[:2])
    (tmp_path / "allowed").write_text(f'barn namespaces="{SIGNATURE_NAMESPACE}" {public}\n')
    (tmp_path / "signature").write_bytes(sshsig.sign(b"manifest", key, namespace=SIGNATURE_NAMESPACE))
    verify = ["ssh-keygen", "-Y", "verify", "-f", str(tmp_path / "allowed"), "-I", "barn", "-n", SIGNATURE_NAMESPACE]

    def verified(data: bytes) -> int:
        return subprocess.run(
            ["/bin/sh", "-c", 'exec "$@"', "sh", *verify, "-s", str(tmp_path / "signature")],
            input=data,
            env=board.environment(Faults(python=python), {}),  # type: ignore[arg-type]
            capture_output=True,
            check=False,
        ).returncode

    assert (verified(b"manifest"), verified(b"edited")) == (0, 255)
