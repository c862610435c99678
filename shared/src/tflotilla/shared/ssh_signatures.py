"""Verify SSHSIG signatures with the `ssh-keygen` that every OpenSSH has: nothing to install on a board.

The signer is who the `allowed_signers` file says, never who the signature says. What it does NOT do: sign. That is the
host's, with keys and agents that boards never see.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tflotilla.shared.contract.errors import BoardError, VerificationError

_PROGRAM = "ssh-keygen"
_TIMEOUT_S = 30
_ARMOUR = b"-----BEGIN SSH SIGNATURE-----"


def verify(data: bytes, signature: bytes, *, allowed_signers: Path, namespace: str) -> str:
    """Check that somebody allowed has signed exactly these bytes for exactly this purpose.

    Args:
        data: what was signed.
        signature: the armoured SSHSIG, as `ssh-keygen -Y sign` writes it.
        allowed_signers: the file of ssh-keygen(1), ALLOWED SIGNERS: principals, options, public key.
        namespace: the purpose; a signature for another one is refused.

    Returns:
        The principal under which the signer's key stands in the file.

    Raises:
        VerificationError: no signature, by a stranger, for another purpose, expired, or of other bytes.
        BoardError: ssh-keygen is missing, too old, or does not answer.

    """
    if not signature.strip():
        message = "there is no signature"
        raise VerificationError(message)
    if not signature.lstrip().startswith(_ARMOUR):
        message = "the signature is not an SSH signature"
        raise VerificationError(message)
    if not allowed_signers.is_file():
        message = f"nobody is allowed to sign: {allowed_signers} does not exist"
        raise VerificationError(message)
    with tempfile.TemporaryDirectory(prefix="tflotilla-") as folder:
        path = Path(folder, "signature")
        path.write_bytes(signature)
        signer = _find_signer(path, allowed_signers)
        checked = _run("verify", path, allowed_signers, ["-n", namespace, "-I", signer], data)
    if checked.returncode != 0:
        said = _one_line(checked)
        message = f"the signature of {signer!r} does not hold: the signed bytes were changed, or {said}"
        if "incorrect signature" in said.lower():
            message = f"the signed bytes were changed after {signer!r} signed them"
        elif "namespace" in said.lower():
            message = f"the signature of {signer!r} was made for another purpose than {namespace!r}"
        raise VerificationError(message)
    return signer


def _find_signer(signature: Path, allowed_signers: Path) -> str:
    found = _run("find-principals", signature, allowed_signers, [], b"")
    lines = found.stdout.decode(errors="replace").splitlines()
    if found.returncode != 0 or not lines:
        said = _one_line(found)
        if "parse" in said.lower() or "invalid format" in said.lower():
            message = "the signature is damaged: it can't be decoded"
        elif "unknown option" in said.lower() or "illegal option" in said.lower():
            message = f"{_PROGRAM} is too old to verify signatures; OpenSSH 8.2 or later is needed"
            raise BoardError(message)
        elif "expired" in said.lower() or "not yet valid" in said.lower():
            message = f"the key that signed is not valid today, says {allowed_signers}"
        else:
            message = f"the signature was made by a key that {allowed_signers} does not allow"
        raise VerificationError(message)
    # The file may give a key several names; the first that is no exclusion stands for it.
    names = [name for line in lines for name in line.split(",") if name and not name.startswith("!")]
    return names[0] if names else lines[0]


def _run(
    verb: str, signature: Path, allowed_signers: Path, arguments: list[str], data: bytes
) -> subprocess.CompletedProcess[bytes]:
    command = [_PROGRAM, "-Y", verb, "-f", str(allowed_signers), "-s", str(signature), *arguments]
    try:
        return subprocess.run(
            command,
            input=data,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        message = f"{_PROGRAM} is not installed here; it verifies signatures (Debian: apt install openssh-client)"
        raise BoardError(message) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"{_PROGRAM} can't verify the signature: {' '.join(str(error).split())}"
        raise BoardError(message) from error


def _one_line(completed: subprocess.CompletedProcess[bytes]) -> str:
    said = (completed.stderr + b" " + completed.stdout).decode(errors="replace")
    return " ".join(said.split()) or f"exit code {completed.returncode}"
