"""SSHSIG without OpenSSH: sign and verify with Ed25519 keys on a machine that has no `ssh-keygen`.

The format is OpenSSH's PROTOCOL.sshsig; both directions are tested against the real ssh-keygen. As a program,

    python -m tflotilla.host.bundles.sshsig -Y find-principals -s SIGNATURE -f ALLOWED_SIGNERS
    python -m tflotilla.host.bundles.sshsig -Y verify -f ALLOWED_SIGNERS -I PRINCIPAL -n NAMESPACE -s SIGNATURE <DATA

it stands in for ssh-keygen on the lab's boards, with its words and exit codes.

What it does NOT do: other kinds of keys, encrypted keys, certificates, validity times. A line of allowed_signers that
uses what it doesn't know never matches.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import fnmatch
import hashlib
import os
import re
import shlex
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import InputError, TflotillaError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAGIC = b"SSHSIG"
_VERSION = 1
_KEY_TYPE = b"ssh-ed25519"
_HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_LINE = 70
#: What ssh-keygen exits with when it can't verify.
_EXIT_REFUSED = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """An SSHSIG taken apart; nothing in it is verified yet."""

    public_key: bytes
    namespace: str
    hash_name: bytes
    signature: bytes

    @property
    def key_type(self) -> str:
        """The key's type in SSH's words: `ssh-ed25519`, `sk-ssh-ed25519@openssh.com`, and so on."""
        return _Reader(self.public_key).text().decode(errors="replace")

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as `ssh-keygen -l` prints it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.public_key).digest()).decode().rstrip("=")


def generate_key(path: Path, *, comment: str = "tflotilla") -> Path:
    """Write an Ed25519 key without a passphrase (mode 0600) and its `.pub`; return `path`.

    Raises:
        InputError: the file exists, or can't be written. A key is never overwritten.

    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(private)
        path.with_name(path.name + ".pub").write_text(f"{public.decode()} {comment}\n")
    except OSError as error:
        raise InputError(f"{path}: can't write a key there: {error.strerror}") from error
    return path


def sign(data: bytes, key: Path, *, namespace: str) -> bytes:
    """Sign with an unencrypted Ed25519 key; return the armoured signature, the bytes ssh-keygen would make.

    Raises:
        InputError: not such a key.

    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        private = serialization.load_ssh_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise InputError(f"{key}: {error.strerror}") from error
    except TypeError as error:
        raise InputError(f"{key}: has a passphrase; without ssh-keygen only keys without one can sign") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"{key}: not an SSH private key") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise InputError(f"{key}: without ssh-keygen only Ed25519 keys can sign")
    raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    name, hash_name = namespace.encode(), b"sha512"
    inner = _text(_KEY_TYPE) + _text(private.sign(_to_sign(data, name, hash_name)))
    blob = _MAGIC + struct.pack(">I", _VERSION)
    blob += b"".join(map(_text, (_text(_KEY_TYPE) + _text(raw), name, b"", hash_name, inner)))
    encoded = base64.b64encode(blob).decode()
    lines = [encoded[i : i + _LINE] for i in range(0, len(encoded), _LINE)]
    return "\n".join((_BEGIN, *lines, _END, "")).encode()


def parse(armoured: bytes) -> Signature:
    """Take a signature apart. Raises VerificationError when it isn't one."""
    try:
        text = armoured.decode("ascii").strip()
        if not (text.startswith(_BEGIN) and text.endswith(_END)):
            raise VerificationError("not an SSH signature: it doesn't begin and end as one")
        blob = base64.b64decode("".join(text[len(_BEGIN) : -len(_END)].split()), validate=True)
        if not blob.startswith(_MAGIC):
            raise VerificationError("not an SSH signature: it doesn't begin with SSHSIG")
        reader = _Reader(blob[len(_MAGIC) :])
        if reader.number() != _VERSION:
            raise VerificationError("an SSH signature of an unknown version")
        public_key, namespace, _reserved, hash_name, signature = (reader.text() for _ in range(5))
        _Reader(public_key).text()
        return Signature(public_key=public_key, namespace=namespace.decode(), hash_name=hash_name, signature=signature)
    except (UnicodeDecodeError, binascii.Error, struct.error) as error:
        raise VerificationError(f"not an SSH signature: {error}") from error


def check(data: bytes, armoured: bytes, *, namespace: str) -> Signature:
    """Verify that the signature's own key signed `data` for `namespace`; who that is, `find_principals` says.

    Raises:
        VerificationError: it didn't, or the key is not an Ed25519 key.

    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signature = parse(armoured)
    if signature.namespace != namespace:
        raise VerificationError(f"signed for {signature.namespace!r}, not for {namespace!r}")
    try:
        key_reader, inner = _Reader(signature.public_key), _Reader(signature.signature)
        if key_reader.text() != _KEY_TYPE or inner.text() != _KEY_TYPE or signature.hash_name not in _HASHES:
            raise VerificationError(f"can't verify {signature.key_type} without ssh-keygen, only Ed25519")
        message = _to_sign(data, namespace.encode(), signature.hash_name)
        Ed25519PublicKey.from_public_bytes(key_reader.text()).verify(inner.text(), message)
    except InvalidSignature as error:
        raise VerificationError("incorrect signature") from error
    except (struct.error, ValueError) as error:
        raise VerificationError(f"malformed signature: {error}") from error
    return signature


def find_principals(signature: Signature, allowed_signers: str, *, namespace: str | None = None) -> tuple[str, ...]:
    """Return the principals that may sign with this key, in the order of the file."""
    found = []
    for principals, namespaces, key in _allowed(allowed_signers):
        fits = namespace is None or namespaces is None or _matches(namespace, namespaces)
        if key == signature.public_key and fits:
            found.append(principals)
    return tuple(found)


def _allowed(text: str) -> Iterator[tuple[str, str | None, bytes]]:
    """Read allowed_signers lines: principals, the namespaces option, the key."""
    for line in text.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        kinds = [i for i, word in enumerate(words) if i and re.fullmatch(r"(sk-)?(ssh|ecdsa)-[a-z0-9@.-]+", word)]
        if not kinds or kinds[0] + 1 >= len(words):
            continue
        options = dict(option.partition("=")[::2] for word in words[1 : kinds[0]] for option in _options(word))
        if options.keys() - {"namespaces"}:
            # cert-authority, valid-after, valid-before: not understood here, so the line allows nobody.
            continue
        try:
            yield words[0], options.get("namespaces"), base64.b64decode(words[kinds[0] + 1], validate=True)
        except binascii.Error:
            continue


def _options(word: str) -> list[str]:
    """Split `namespaces=a,b,cert-authority`, whose quotes are gone: a part without `=` belongs to the one before."""
    found: list[str] = []
    for part in word.split(","):
        if found and "=" not in part and part != "cert-authority":
            found[-1] += "," + part
        else:
            found.append(part)
    return found


def _matches(text: str, patterns: str) -> bool:
    """OpenSSH's pattern list: any of them, and none of those with `!`."""
    listed = patterns.split(",")
    if any(p.startswith("!") and fnmatch.fnmatchcase(text, p[1:]) for p in listed):
        return False
    return any(fnmatch.fnmatchcase(text, p) for p in listed if not p.startswith("!"))


def _to_sign(data: bytes, namespace: bytes, hash_name: bytes) -> bytes:
    return _MAGIC + b"".join(map(_text, (namespace, b"", hash_name, _HASHES[hash_name](data).digest())))


def _text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class _Reader:
    """SSH's wire format, read from the front. Raises struct.error at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def number(self) -> int:
        (value,) = struct.unpack_from(">I", self._data)
        self._data = self._data[4:]
        return int(value)

    def text(self) -> bytes:
        length = self.number()
        if length > len(self._data):
            raise struct.error("it ends too early")
        value, self._data = self._data[:length], self._data[length:]
        return value


def main(argv: Sequence[str] | None = None) -> int:
    """Answer like ssh-keygen; return its exit code."""
    parser = argparse.ArgumentParser(prog="sshsig", add_help=False)
    parser.add_argument("-Y", dest="verb", choices=("find-principals", "verify"), required=True)
    parser.add_argument("-f", dest="allowed", type=Path, required=True)
    parser.add_argument("-s", dest="signature", type=Path, required=True)
    parser.add_argument("-n", dest="namespace", default="")
    parser.add_argument("-I", dest="principal", default="")
    parser.add_argument("-O", dest="options", action="append")
    given = parser.parse_args(argv)
    try:
        armoured, allowed = given.signature.read_bytes(), given.allowed.read_text()
        if given.verb == "find-principals":
            principals = find_principals(parse(armoured), allowed)
            if not principals:
                raise VerificationError("No principal matched.")
            sys.stdout.write("\n".join(principals) + "\n")
            return 0
        signature = check(sys.stdin.buffer.read(), armoured, namespace=given.namespace)
        principals = find_principals(signature, allowed, namespace=given.namespace)
        if not any(_matches(given.principal, listed) for listed in principals):
            raise VerificationError("key is not allowed for this principal")
    except (TflotillaError, OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"{error}\n")
        if given.verb == "verify":
            sys.stdout.write("Could not verify signature.\n")
        return _EXIT_REFUSED
    sys.stdout.write(
        f'Good "{given.namespace}" signature for {given.principal} with ED25519 key {signature.fingerprint}\n'
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
