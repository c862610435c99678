"""Sign a manifest with the SSH key, agent or hardware key that the user has: `ssh-keygen -Y sign`.

Where ssh-keygen is missing, an unencrypted Ed25519 key signs through `sshsig`. Verifying against an allowed_signers
file is `shared.ssh_signatures`, the code that boards use; `signer` here only reads which key signed.

What it does NOT do: ask for a passphrase where there is no terminal, or keep any key.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tflotilla.host.bundles import sshsig
from tflotilla.shared import ssh_signatures
from tflotilla.shared.contract.errors import InputError, VerificationError
from tflotilla.shared.contract.manifest import SIGNATURE_NAMESPACE

_SIGN_TIMEOUT_S = 120


def sign(data: bytes, key: Path) -> bytes:
    """Sign `data` for the bundle namespace; return the armoured SSHSIG.

    Args:
        data: the bytes of manifest.json.
        key: a private key, or a `.pub` whose private half an SSH agent holds.

    Raises:
        InputError: no such key, not a key, a passphrase that nobody can type, an agent that lacks the key.

    """
    if not key.is_file():
        raise InputError(f"{key}: no such key; `ssh-keygen -t ed25519` makes one")
    program = shutil.which("ssh-keygen")
    if program is None:
        return sshsig.sign(data, key, namespace=SIGNATURE_NAMESPACE)
    environment = dict(os.environ)
    if not _has_terminal():
        # Nobody could answer: better a clear refusal than a window on someone's screen.
        environment |= {"SSH_ASKPASS_REQUIRE": "never"}
        environment.pop("DISPLAY", None)
    # From a file, not stdin: ssh-keygen then keeps the terminal for the passphrase and the touch of a hardware key.
    with tempfile.TemporaryDirectory(prefix="tflotilla-sign-") as folder:
        message = Path(folder) / "manifest.json"
        message.write_bytes(data)
        try:
            done = subprocess.run(
                [program, "-Y", "sign", "-f", str(key.absolute()), "-n", SIGNATURE_NAMESPACE, str(message)],
                env=environment,
                stdin=None if _has_terminal() else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_SIGN_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{key}: nobody confirmed the signature within {_SIGN_TIMEOUT_S} s") from error
        signature = message.with_name(message.name + ".sig")
        if done.returncode or not signature.is_file():
            raise InputError(f"{key}: {_why(done.stderr.decode(errors='replace'))}")
        return signature.read_bytes()


def signer(signature: bytes) -> str:
    """Return the type and fingerprint of the key in a signature. Raises VerificationError when it isn't one."""
    parsed = sshsig.parse(signature)
    return f"{parsed.key_type} {parsed.fingerprint}"


def verify(data: bytes, signature: bytes, *, allowed_signers: Path) -> str:
    """Verify as a board does; return the signer's principal.

    Raises:
        VerificationError: by a stranger, for another purpose, or of other bytes.
        InputError: the file of allowed signers can't be read.

    """
    try:
        allowed = allowed_signers.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{allowed_signers}: can't be read as a file of allowed signers") from error
    if shutil.which("ssh-keygen") is not None:
        return ssh_signatures.verify(data, signature, allowed_signers=allowed_signers, namespace=SIGNATURE_NAMESPACE)
    parsed = sshsig.check(data, signature, namespace=SIGNATURE_NAMESPACE)
    principals = sshsig.find_principals(parsed, allowed, namespace=SIGNATURE_NAMESPACE)
    if not principals:
        raise VerificationError(f"the signature was made by a key that {allowed_signers} does not allow")
    return principals[0].split(",")[0]


def check_own_key(data: bytes, signature: bytes) -> str:
    """Verify that the key in the signature signed exactly `data`; return its type and fingerprint.

    Nobody's permission is checked: that takes an allowed_signers file and `shared.ssh_signatures.verify`.

    Raises:
        VerificationError: not a signature, for another purpose, or of other bytes.

    """
    program = shutil.which("ssh-keygen")
    if program is None:
        sshsig.check(data, signature, namespace=SIGNATURE_NAMESPACE)
        return signer(signature)
    with tempfile.TemporaryDirectory(prefix="tflotilla-verify-") as folder:
        path = Path(folder) / "signature"
        path.write_bytes(signature)
        done = subprocess.run(
            [program, "-Y", "check-novalidate", "-n", SIGNATURE_NAMESPACE, "-s", str(path)],
            input=data,
            capture_output=True,
            timeout=_SIGN_TIMEOUT_S,
            check=False,
        )
    if done.returncode:
        raise VerificationError("the signature doesn't fit the manifest: it was edited after signing")
    return signer(signature)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _why(complaint: str) -> str:
    lines = [line for line in complaint.splitlines() if line.strip() and not line.startswith("Signing file")]
    text = " ".join(lines)
    if "passphrase" in text:
        return (
            "has a passphrase and there is no terminal to ask for it; run `ssh-add` first and name the .pub file"
            if not _has_terminal()
            else "wrong passphrase"
        )
    if "UNPROTECTED" in text or "bad permissions" in text:
        return "others can read this private key, so ssh-keygen refuses it; `chmod 600` it"
    if "agent" in text or "No private key found" in text:
        return "no SSH agent holds the private half of this key; `ssh-add` it, or name the private key's file"
    if any(words in text for words in ("invalid format", "error in libcrypto", "Load key", "load public key")):
        return "not an SSH private key"
    return f"ssh-keygen can't sign with it: {lines[-1].strip() if lines else 'it gave no reason'}"
