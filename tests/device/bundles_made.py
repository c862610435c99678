"""Bundle folders for tests of the device: signed with a real key by ssh-keygen, contents as wanted.

The defaults are bytes that no runtime would load: enough for whoever moves, verifies and switches bundles. Give
`model`, `goldens`, `inputs` and `outputs` where one is to run.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.shared.contract import digest
from tflotilla.shared.contract.manifest import (
    GOLDENS,
    LABELS,
    MANIFEST,
    MODEL,
    SIGNATURE,
    SIGNATURE_NAMESPACE,
    FileEntry,
    GoldenPolicy,
    HealthPolicy,
    Manifest,
    ModelRequirements,
    OpRequirement,
)
from tflotilla.shared.contract.processing import Postprocessing, Preprocessing
from tflotilla.shared.contract.tensors import Quantization, QuantizationScheme, TensorSpec

if TYPE_CHECKING:
    from tflotilla.device.home import Home

_BYTES = Quantization(scales=(1 / 255,), zero_points=(0,))
INPUTS = (TensorSpec(name="image", shape=(1, 8, 8, 1), dtype="uint8", quantization=_BYTES),)
OUTPUTS = (TensorSpec(name="scores", shape=(1, 10), dtype="uint8", quantization=_BYTES),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """One key pair and the `allowed_signers` text that trusts it."""

    key: Path
    principal: str
    allowed_signers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeBundle:
    """A bundle in a folder of its own, signed."""

    folder: Path
    digest: str
    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes
    files: dict[str, bytes] = field(default_factory=dict)

    def blob(self, name: str) -> str:
        """Return the digest of one of its files."""
        return self.manifest.files[name].sha256


def make_signer(folder: Path, principal: str = "tests@tflotilla") -> Signer:
    """Generate an ed25519 key without passphrase."""
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "signing_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", principal, "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text().split()
    line = f'{principal} namespaces="{SIGNATURE_NAMESPACE}" {public[0]} {public[1]}\n'
    return Signer(key=key, principal=principal, allowed_signers=line)


def sign(data: bytes, signer: Signer) -> bytes:
    """Sign as `ssh-keygen -Y sign` does for users."""
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", SIGNATURE_NAMESPACE, "-f", str(signer.key)]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def make_bundle(
    folder: Path,
    signer: Signer,
    *,
    name: str = "digits",
    version: str = "1.0.0",
    release: int = 1,
    model: bytes = b"not a model, but bytes enough to carry around",
    labels: tuple[str, ...] = tuple("0123456789"),
    goldens: bytes = b"not golden vectors",
    goldens_policy: GoldenPolicy | None = None,
    inputs: tuple[TensorSpec, ...] = INPUTS,
    outputs: tuple[TensorSpec, ...] = OUTPUTS,
    preprocessing: Preprocessing | None = None,
    postprocessing: Postprocessing | None = None,
    scheme: QuantizationScheme = QuantizationScheme.INT8_IO_UINT8,
    health: HealthPolicy | None = None,
) -> MadeBundle:
    """Write and sign a bundle folder."""
    files = {MODEL: model, GOLDENS: goldens, LABELS: "".join(f"{label}\n" for label in labels).encode()}
    manifest = Manifest(
        schema=1,
        name=name,
        version=version,
        release=release,
        created="2026-01-01T00:00:00Z",
        scheme=scheme,
        files={k: FileEntry(size=len(v), sha256=digest.of_bytes(v)) for k, v in files.items()},
        requirements=ModelRequirements(ops=(OpRequirement(name="FULLY_CONNECTED", version=4),)),
        inputs=inputs,
        outputs=outputs,
        preprocessing=preprocessing or Preprocessing(colour="gray", mean=(0.0,), std=(255.0,)),
        postprocessing=postprocessing or Postprocessing(),
        goldens=goldens_policy or GoldenPolicy(count=1, runtime="tflite-runtime==2.14.0"),
        health=health or HealthPolicy(confirm_window_s=0.1),
    )
    data = manifest.to_bytes()
    signature = sign(data, signer)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in {**files, MANIFEST: data, SIGNATURE: signature}.items():
        (folder / file).write_bytes(content)
    return MadeBundle(
        folder=folder,
        digest=digest.of_bytes(data),
        manifest=manifest,
        manifest_bytes=data,
        signature=signature,
        files=files,
    )


def trust(home: Home, *signers: Signer) -> None:
    """Let the board take bundles of these signers, and of nobody else."""
    home.make()
    home.allowed_signers.write_text("".join(signer.allowed_signers for signer in signers))


def receive(home: Home, made: MadeBundle) -> None:
    """Put a bundle where a finished transfer leaves it: blobs in the store, manifest in `incoming/`, not admitted."""
    home.make()
    for content in made.files.values():
        name = digest.of_bytes(content)
        blob = home.store / name[:2] / name
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(content)
    staged = home.incoming / made.digest
    staged.mkdir(exist_ok=True)
    (staged / MANIFEST).write_bytes(made.manifest_bytes)
    (staged / SIGNATURE).write_bytes(made.signature)


def install(home: Home, made: MadeBundle, *, serving: bool = True) -> Path:
    """Put a bundle where a finished deployment leaves it, and let `current` point there. Returns its folder."""
    receive(home, made)
    staged = home.incoming / made.digest
    for name, entry in made.manifest.files.items():
        (staged / name).hardlink_to(home.store / entry.sha256[:2] / entry.sha256)
    folder = home.bundle(made.digest)
    staged.rename(folder)
    if serving:
        home.current.unlink(missing_ok=True)
        home.current.symlink_to(folder.relative_to(home.path))
    return folder
