"""Every board that can be served gets an environment built on this machine: right packages, right machine, no internet
asked of the board. Needs the package index, or what uv fetched from it before."""

from __future__ import annotations

import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests import facts_made
from tflotilla.host.fleet.agents import environments, layers
from tflotilla.host.fleet.agents.environments import Installed, RuntimeChoice, System

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.shared.contract.board import BoardFacts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

#: The number of a machine in an ELF file's header, and how wide its addresses are.
_ELF = {"aarch64": (183, 2), "armv7l": (40, 1)}
_SYSTEM = System(numpy=Installed(version="1.24.2"), pillow=Installed(version="9.4.0"))
_TFLITE, _LITERT = "tflite_runtime", "ai_edge_litert"


def _facts(arch: str, python: str) -> BoardFacts:
    return facts_made.facts(
        hostname="pi-1",
        arch=arch,
        # Ubuntu 22.04's for its Python 3.10, Debian's for the others.
        libc={"3.10": "glibc 2.35", "3.11": "glibc 2.36"}.get(python, "glibc 2.41"),
        python=f"{python}.2",
        runtimes=(),
    )


@pytest.mark.parametrize(
    ("arch", "python", "wanted", "runtimes"),
    [
        ("aarch64", "3.10", "auto", {_TFLITE, _LITERT}),
        ("aarch64", "3.10", "tflite-runtime", {_TFLITE}),
        ("aarch64", "3.10", "ai-edge-litert", {_LITERT}),
        ("aarch64", "3.11", "both", {_TFLITE, _LITERT}),
        ("aarch64", "3.11", "tflite-runtime", {_TFLITE}),
        ("aarch64", "3.11", "ai-edge-litert", {_LITERT}),
        ("aarch64", "3.12", "auto", {_LITERT}),
        ("aarch64", "3.12", "ai-edge-litert", {_LITERT}),
        ("aarch64", "3.13", "auto", {_LITERT}),
        ("aarch64", "3.13", "ai-edge-litert", {_LITERT}),
        ("armv7l", "3.10", "auto", {_TFLITE}),
        ("armv7l", "3.11", "tflite-runtime", {_TFLITE}),
    ],
)
def test_what_can_be_served_is_built_here_for_its_machine(
    arch: str, python: str, wanted: RuntimeChoice, runtimes: set[str], tmp_path: Path
) -> None:
    packages, agent = layers.environment(environments.target(_facts(arch, python), wanted, _SYSTEM))

    for layer in (packages, agent):
        subprocess.run(["tar", "-xf", str(layer.archive), "-C", str(tmp_path)], check=True)
    there = {path.name for path in tmp_path.iterdir() if path.is_dir() and "dist-info" not in path.name}
    libraries = [path for path in tmp_path.rglob("*.so*") if path.read_bytes()[:4] == b"\x7fELF"]
    assert runtimes == there & {_TFLITE, _LITERT}
    assert {"paho", "tflotilla"} <= there
    assert ("tomli" in there) == (python == "3.10")
    # Where they have no wheels, none of another machine's may hide the distribution's.
    assert ({"numpy", "PIL"} <= there) == (arch == "aarch64")
    assert {_ELF[arch]} == {_machine(path) for path in libraries}


def _machine(path: Path) -> tuple[int, int]:
    with path.open("rb") as stream:
        header = stream.read(20)
    (machine,) = struct.unpack_from("<H", header, 18)
    return machine, header[4]
