"""Who may come in: the signature, and the release counter against replayed old bundles.

Asked twice: by the session before a byte of the model is sent, and by the installer before anything is switched,
because only the second is the one that counts. What it does NOT do: look at the files (`store`) or run them (`probe`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.shared.contract import digest
from tflotilla.shared.contract.errors import BoardError, ConflictError, ContractError, VerificationError
from tflotilla.shared.contract.manifest import SIGNATURE_NAMESPACE, Manifest
from tflotilla.shared.ssh_signatures import verify

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.device.store import Store


def check_signature(manifest: bytes, signature: bytes, allowed_signers: Path) -> Manifest:
    """Verify first, parse then: nothing is believed of bytes that nobody signed.

    Raises:
        VerificationError: unsigned, edited after signing, or signed by somebody this board doesn't allow.
        BoardError: this board allows nobody yet, or has no ssh-keygen.
        ContractError: signed, and still not a manifest this agent can read.

    """
    if not allowed_signers.is_file():
        message = (
            f"this board trusts no signer yet: {allowed_signers} is missing; `tflotilla board bootstrap` writes it"
        )
        raise BoardError(message)
    verify(manifest, signature, allowed_signers=allowed_signers, namespace=SIGNATURE_NAMESPACE)
    return Manifest.from_bytes(manifest)


def check_release(candidate: Manifest, bundle: str, store: Store) -> None:
    """Refuse a bundle that is not newer than the one of the same name that serves.

    Raises:
        ConflictError: with both release numbers; `tflotilla rollback` is how one goes back.

    """
    current = store.current()
    if current is None or current == bundle:
        return
    try:
        serving = store.manifest(current)
    except (BoardError, ContractError):
        return  # What serves can't be read any more: no reason to refuse what would replace it.
    if serving.name == candidate.name and candidate.release <= serving.release:
        message = (
            f"{candidate.title} has release {candidate.release}, and {serving.title} with release {serving.release}"
            " serves already: releases only go up (`tflotilla rollback` goes back)"
        )
        raise ConflictError(message)


def check(bundle: str, store: Store) -> Manifest:
    """Check an admitted or staged bundle on disk as a whole, except for its files.

    Raises:
        BoardError: it isn't here.
        VerificationError, ConflictError, ContractError: as above.

    """
    data, signature = store.signed_manifest(bundle)
    if digest.of_bytes(data) != bundle:
        message = f"bundle {digest.short(bundle)}: its manifest was changed on this board; deploy it again"
        raise VerificationError(message)
    manifest = check_signature(data, signature, store.home.allowed_signers)
    check_release(manifest, bundle, store)
    return manifest
