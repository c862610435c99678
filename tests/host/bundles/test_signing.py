"""Signatures: ours are OpenSSH's, OpenSSH's are ours, and every key that can't sign says why in one line."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.host.bundles import making
from tflotilla.host.bundles import signing, sshsig
from tflotilla.shared.contract.errors import InputError, VerificationError
from tflotilla.shared.contract.manifest import SIGNATURE_NAMESPACE

needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
DATA = b'{"schema":1}\n'


@pytest.fixture
def without_ssh_keygen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine whose PATH has nothing."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def _ssh_keygen(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", *arguments], input=data, capture_output=True, check=False)


def _stand_in(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "tflotilla.host.bundles.sshsig", *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=False)


@needs_ssh_keygen
def test_both_ways_of_signing_give_the_same_bytes(tmp_path: Path) -> None:
    key = making.key(tmp_path)

    assert signing.sign(DATA, key) == sshsig.sign(DATA, key, namespace=SIGNATURE_NAMESPACE)


@needs_ssh_keygen
@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_key_of_every_kind_signs_through_ssh_keygen(tmp_path: Path, kind: str) -> None:
    key = tmp_path / "key"
    _ssh_keygen("-q", "-t", kind, "-N", "", "-f", str(key))
    signers = making.allowed_signers(tmp_path, key)

    signature = signing.sign(DATA, key)

    assert "key" == signing.verify(DATA, signature, allowed_signers=signers)


@pytest.mark.usefixtures("without_ssh_keygen")
def test_a_machine_without_ssh_keygen_signs_and_verifies(tmp_path: Path) -> None:
    key = making.key(tmp_path)
    signers = making.allowed_signers(tmp_path, key)

    signature = signing.sign(DATA, key)

    assert "key" == signing.verify(DATA, signature, allowed_signers=signers)
    assert signing.check_own_key(DATA, signature).startswith("ssh-ed25519 SHA256:")
    with pytest.raises(VerificationError, match="incorrect"):
        signing.verify(DATA + b" ", signature, allowed_signers=signers)


@pytest.mark.usefixtures("without_ssh_keygen")
def test_a_stranger_is_refused_without_ssh_keygen_too(tmp_path: Path) -> None:
    signature = signing.sign(DATA, making.key(tmp_path, "stranger"))
    signers = making.allowed_signers(tmp_path, making.key(tmp_path))

    with pytest.raises(VerificationError, match="does not allow"):
        signing.verify(DATA, signature, allowed_signers=signers)


@needs_ssh_keygen
def test_a_passphrase_that_nobody_can_type_is_said(tmp_path: Path) -> None:
    """In a session without a terminal, as a CI job or a service has none."""
    key = tmp_path / "key"
    _ssh_keygen("-q", "-t", "ed25519", "-N", "secret", "-f", str(key))
    code = f"""
from pathlib import Path
from tflotilla.host.bundles import signing
from tflotilla.shared.contract.errors import InputError
try:
    signing.sign(b"x", Path({str(key)!r}))
except InputError as error:
    print(error)
"""

    done = subprocess.run(
        [sys.executable, "-c", code], start_new_session=True, capture_output=True, text=True, check=True, timeout=60
    )

    assert "has a passphrase and there is no terminal to ask for it" in done.stdout
    assert "ssh-add" in done.stdout


@needs_ssh_keygen
@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [(None, 0o600, "no such key"), (b"junk", 0o600, "not an SSH private key"), ("key", 0o644, "chmod 600")],
)
def test_a_key_that_can_not_sign_says_why(tmp_path: Path, content: bytes | str | None, mode: int, words: str) -> None:
    path = tmp_path / "a key with 'quotes' and $(spaces)"
    if isinstance(content, str):
        making.key(tmp_path, path.name)
    elif content is not None:
        path.write_bytes(content)
    if content is not None:
        path.chmod(mode)

    with pytest.raises(InputError, match=words) as caught:
        signing.sign(DATA, path)
    assert "\n" not in str(caught.value)


@needs_ssh_keygen
def test_a_public_key_that_no_agent_holds_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key = making.key(tmp_path)
    lonely = tmp_path / "lonely.pub"
    lonely.write_text(key.with_name("key.pub").read_text())

    with pytest.raises(InputError, match="no SSH agent holds"):
        signing.sign(DATA, lonely)


@needs_ssh_keygen
def test_a_key_that_only_the_agent_holds_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The private file is gone: what signs is the agent, as with a hardware key."""
    key = making.key(tmp_path)
    signers = making.allowed_signers(tmp_path, key)
    with tempfile.TemporaryDirectory() as short:  # a socket's path may not be long
        socket = Path(short) / "agent"
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 30
            while not socket.exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            subprocess.run(["ssh-add", "-q", str(key)], check=True, capture_output=True)
            key.unlink()

            signature = signing.sign(DATA, key.with_name("key.pub"))
        finally:
            agent.terminate()
            agent.wait()

    assert "key" == signing.verify(DATA, signature, allowed_signers=signers)


def test_keys_are_private_and_never_overwritten(tmp_path: Path) -> None:
    key = making.key(tmp_path)

    assert 0o600 == key.stat().st_mode & 0o777
    with pytest.raises(InputError, match="can't write a key"):
        making.key(tmp_path)


@pytest.mark.parametrize("junk", [b"", b"hello", b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"])
def test_what_is_no_signature_is_refused(junk: bytes) -> None:
    with pytest.raises(VerificationError, match="not an SSH signature"):
        sshsig.parse(junk)


def test_every_flipped_byte_of_a_signature_is_noticed(tmp_path: Path) -> None:
    armoured = sshsig.sign(DATA, making.key(tmp_path), namespace="n")
    body = armoured.splitlines()[1]
    for at in range(0, len(body), 7):
        other = b"A" if body[at : at + 1] != b"A" else b"B"
        edited = armoured.replace(body, body[:at] + other + body[at + 1 :])
        with pytest.raises(VerificationError):
            sshsig.check(DATA, edited, namespace="n")


@needs_ssh_keygen
def test_the_stand_in_answers_as_ssh_keygen_does(tmp_path: Path) -> None:
    key, stranger = making.key(tmp_path), making.key(tmp_path, "stranger")
    signers = making.allowed_signers(tmp_path, key)
    good, foreign = tmp_path / "good", tmp_path / "foreign"
    good.write_bytes(signing.sign(DATA, key))
    foreign.write_bytes(signing.sign(DATA, stranger))
    verify = ("-Y", "verify", "-f", str(signers), "-I", "key", "-n", SIGNATURE_NAMESPACE, "-s")
    for arguments, data in (
        (("-Y", "find-principals", "-f", str(signers), "-s", str(good)), b""),
        (("-Y", "find-principals", "-f", str(signers), "-s", str(foreign)), b""),
        ((*verify, str(good)), DATA),
        ((*verify, str(good)), DATA + b"edited"),
        ((*verify, str(foreign)), DATA),
        (("-Y", "verify", "-f", str(signers), "-I", "key", "-n", "other", "-s", str(good)), DATA),
        (("-Y", "verify", "-f", str(signers), "-I", "other", "-n", SIGNATURE_NAMESPACE, "-s", str(good)), DATA),
    ):
        real, ours = _ssh_keygen(*arguments, data=data), _stand_in(*arguments, data=data)
        assert (real.returncode, real.stdout) == (ours.returncode, ours.stdout), arguments


@pytest.mark.parametrize(
    ("line", "allows"),
    [
        ("me {key}", True),
        ("me,you {key} a comment", True),
        ("# me {key}", False),
        ('me namespaces="tflotilla-bundle" {key}', True),
        ('me namespaces="git,tflotilla-*" {key}', True),
        ('me namespaces="git" {key}', False),
        ("me cert-authority {key}", False),
        ('me valid-before="20200101" {key}', False),
        ("me ssh-ed25519 AAAA", False),
        ('me "unclosed {key}', False),
    ],
)
def test_allowed_signers_is_read_as_openssh_reads_it(tmp_path: Path, line: str, allows: bool) -> None:  # noqa: FBT001
    key = making.key(tmp_path)
    text = line.format(key=" ".join(key.with_name("key.pub").read_text().split()[:2]))
    parsed = sshsig.parse(sshsig.sign(DATA, key, namespace=SIGNATURE_NAMESPACE))

    assert allows is bool(sshsig.find_principals(parsed, text, namespace=SIGNATURE_NAMESPACE))


def test_the_stand_in_is_a_program_with_exit_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = making.key(tmp_path)
    signers = making.allowed_signers(tmp_path, key)
    signature = tmp_path / "sig"
    signature.write_bytes(sshsig.sign(DATA, key, namespace="n"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(DATA)))

    code = sshsig.main(["-Y", "verify", "-f", str(signers), "-I", "key", "-n", "n", "-s", str(signature)])

    assert 255 == code  # the line of allowed_signers names another namespace
    assert "Could not verify signature." in capsys.readouterr().out
