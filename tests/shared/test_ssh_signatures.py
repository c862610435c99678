"""Signatures hold for the bytes, the purpose and the people they were made for, and for nothing else."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tflotilla.shared.contract.errors import BoardError, VerificationError
from tflotilla.shared.contract.manifest import SIGNATURE_NAMESPACE
from tflotilla.shared.ssh_signatures import verify

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not on this machine")
DATA = b"the manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signer:
    folder: Path
    name: str

    @property
    def public(self) -> str:
        return Path(self.folder, f"{self.name}.pub").read_text(encoding="utf-8").strip()

    def sign(self, data: bytes, namespace: str = SIGNATURE_NAMESPACE) -> bytes:
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(self.folder / self.name)]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def _signer(folder: Path, name: str) -> _Signer:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return _Signer(folder=folder, name=name)


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> _Signer:
    return _signer(tmp_path_factory.mktemp("keys of ann"), "ann")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> _Signer:
    return _signer(tmp_path_factory.mktemp("keys"), "stranger")


@pytest.fixture
def allowed(tmp_path: Path, ann: _Signer) -> Path:
    path = tmp_path / "allowed signers"
    path.write_text(f'ann@lab namespaces="{SIGNATURE_NAMESPACE}" {ann.public}\n', encoding="utf-8")
    return path


def _verify(data: bytes, signature: bytes, allowed: Path) -> str:
    return verify(data, signature, allowed_signers=allowed, namespace=SIGNATURE_NAMESPACE)


def test_a_signature_gives_the_name_that_the_board_has_for_the_signer(ann: _Signer, allowed: Path) -> None:
    assert _verify(DATA, ann.sign(DATA), allowed) == "ann@lab"


@pytest.mark.parametrize("names", ["ann@lab,ann@home", "!eve@lab,ann@lab"])
def test_a_signer_may_have_several_names(ann: _Signer, tmp_path: Path, names: str) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(f"{names} {ann.public}\n", encoding="utf-8")

    assert _verify(DATA, ann.sign(DATA), allowed) == "ann@lab"


def test_bytes_changed_after_signing_are_refused(ann: _Signer, allowed: Path) -> None:
    with pytest.raises(VerificationError, match="the signed bytes were changed after 'ann@lab' signed them"):
        _verify(DATA + b" ", ann.sign(DATA), allowed)


def test_a_stranger_is_refused(stranger: _Signer, allowed: Path) -> None:
    with pytest.raises(VerificationError, match=r"made by a key that .* does not allow"):
        _verify(DATA, stranger.sign(DATA), allowed)


def test_a_signature_for_another_purpose_is_refused(ann: _Signer, allowed: Path) -> None:
    with pytest.raises(VerificationError, match="made for another purpose"):
        _verify(DATA, ann.sign(DATA, "file"), allowed)


def test_a_key_that_is_no_longer_valid_is_refused(ann: _Signer, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(f'ann@lab valid-before="20200101" {ann.public}\n', encoding="utf-8")

    with pytest.raises(VerificationError, match="not valid today"):
        _verify(DATA, ann.sign(DATA), allowed)


@pytest.mark.parametrize(
    ("signature", "said"),
    [(b"", "no signature"), (b" \n", "no signature"), (b"\x00\xff" * 40, "not an SSH signature")],
    ids=["empty", "blank", "binary"],
)
def test_what_is_no_signature_is_told_as_such(signature: bytes, said: str, allowed: Path) -> None:
    with pytest.raises(VerificationError, match=said):
        _verify(DATA, signature, allowed)


def test_a_damaged_signature_is_refused_wherever_it_is_cut(ann: _Signer, allowed: Path) -> None:
    signature = ann.sign(DATA)

    for end in (40, 100, 200, len(signature) - 30):
        with pytest.raises(VerificationError):
            _verify(DATA, signature[:end], allowed)


def test_without_a_list_of_signers_nobody_is_allowed(ann: _Signer, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="nobody is allowed to sign"):
        _verify(DATA, ann.sign(DATA), tmp_path / "absent")


def test_a_board_without_ssh_keygen_says_so(
    ann: _Signer, allowed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = ann.sign(DATA)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BoardError, match="ssh-keygen is not installed here"):
        _verify(DATA, signature, allowed)
