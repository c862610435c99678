"""Which environment a board gets, or exactly why none; how layers are packed and named."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import facts_made
from tflotilla.host.fleet import pool
from tflotilla.host.fleet.agents import environments, layers
from tflotilla.host.fleet.agents.environments import Installed, RuntimeChoice, System, Target
from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.shared.contract.board import BoardFacts


def _facts(*, python: str = "3.11.2", arch: str = "aarch64", libc: str | None = "glibc 2.36") -> BoardFacts:
    return facts_made.facts(hostname="pi-1", arch=arch, libc=libc, python=python, runtimes=())


#: What Debian 12 brings for its Python.
_BOOKWORM = System(numpy=Installed(version="1.24.2"), pillow=Installed(version="9.4.0"))


@pytest.mark.parametrize(
    ("facts", "wanted", "requirements", "platform"),
    [
        (_facts(), "auto", "both", "aarch64-manylinux_2_36"),
        (_facts(), "tflite-runtime", "tflite-runtime", "aarch64-manylinux_2_36"),
        (_facts(), "ai-edge-litert", "litert", "aarch64-manylinux_2_36"),
        (_facts(python="3.10.12", libc="glibc 2.35"), "both", "both", "aarch64-manylinux_2_35"),
        (_facts(python="3.13.5", libc="glibc 2.41"), "auto", "litert", "aarch64-manylinux_2_40"),
        (_facts(libc="glibc 2.31"), "auto", "litert", "aarch64-manylinux_2_31"),
        (_facts(arch="x86_64", libc="glibc 2.30"), "auto", "both", "x86_64-manylinux_2_28"),
        (_facts(arch="armv7l"), "auto", "armv7l", "armv7l-manylinux_2_36"),
        (_facts(arch="armv7l", libc="glibc 2.34"), "tflite-runtime", "armv7l", "armv7l-manylinux_2_34"),
    ],
)
def test_both_runtimes_where_both_have_wheels_else_the_one_that_has(
    facts: BoardFacts, wanted: RuntimeChoice, requirements: str, platform: str
) -> None:
    target = environments.target(facts, wanted, _BOOKWORM)

    assert (target.requirements, target.platform) == (requirements, platform)
    assert target.python == ".".join(facts.python.split(".")[:2])


@pytest.mark.parametrize(
    ("facts", "wanted", "said"),
    [
        (_facts(python="3.9.2"), "auto", "Python 3.9.2, and the agent needs 3.10"),
        (_facts(libc="musl"), "auto", "pi-1 has musl"),
        (_facts(libc=None), "auto", "unknown C library"),
        (_facts(python="3.13.5"), "tflite-runtime", "no wheel for Python 3.13 (it has them for 3.9 to 3.11)"),
        (_facts(python="3.13.5"), "both", "tflite-runtime 2.14 has no wheel for Python 3.13"),
        (_facts(python="3.13.5", arch="armv7l"), "auto", "ai-edge-litert 2.3 has no wheel for 32-bit ARM"),
        (_facts(python="3.13.5", arch="armv7l"), "auto", "tflite-runtime 2.14 has no wheel for Python 3.13"),
        (_facts(arch="armv7l"), "both", "ai-edge-litert 2.3 has no wheel for 32-bit ARM (armv7l); install the 64-bit"),
        (_facts(arch="armv7l", libc="glibc 2.31"), "auto", "needs glibc 2.34 on armv7l, the board has 2.31"),
        (_facts(arch="armv6l"), "auto", "tflite-runtime 2.14 has no wheel for armv6l (Raspberry Pi 1 and Zero)"),
        (_facts(arch="armv7l", libc="musl"), "auto", "pi-1 has musl"),
        (_facts(arch="riscv64"), "auto", "no wheel for riscv64 (it has them for aarch64, x86_64)"),
        (_facts(libc="glibc 2.31"), "tflite-runtime", "needs glibc 2.34 on aarch64, the board has 2.31"),
        (_facts(python="3.15.0"), "auto", "no wheel for Python 3.15"),
    ],
)
def test_what_cannot_be_served_says_exactly_why(facts: BoardFacts, wanted: RuntimeChoice, said: str) -> None:
    with pytest.raises(BoardError) as refused:
        environments.target(facts, wanted)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("system", "said"),
    [
        (System(), "has no numpy and Pillow for its Python 3.11.2; 32-bit boards use the distribution's: sudo apt "),
        (System(), "sudo apt install python3-numpy python3-pil"),
        (System(numpy=Installed(version="1.24.2")), "has no Pillow for its Python 3.11.2"),
        (System(numpy=Installed(problem="killed"), pillow=_BOOKWORM.pillow), "numpy can't be imported (killed): sudo "),
        (System(numpy=Installed(version="2.2.4"), pillow=_BOOKWORM.pillow), "has numpy 2.2.4, and tflite-runtime 2.14"),
        (System(numpy=Installed(version="1.21.5"), pillow=_BOOKWORM.pillow), "needs one from 1.23.2 on and below 2"),
        (System(numpy=_BOOKWORM.numpy, pillow=Installed(version="9.0.1")), "has Pillow 9.0.1, and the agent needs 9.4"),
        (System(hard_float=False), "without hardware floating point (armel)"),
    ],
)
def test_what_a_32_bit_board_must_bring_itself_is_said_with_the_command_that_brings_it(
    system: System, said: str
) -> None:
    with pytest.raises(BoardError) as refused:
        environments.target(_facts(arch="armv7l"), "auto", system)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("numpy/core/_multiarray_umath.so", True),
        ("numpy/core/tests/test_x.py", False),
        ("numpy/testing/__init__.py", True),
        ("ai_edge_litert/interpreter.py", True),
        ("ai_edge_litert/_pywrap_litert_interpreter_wrapper.so", True),
        ("ai_edge_litert/libLiteRtWebGpuAccelerator.so", False),
        ("ai_edge_litert/tools/x.py", False),
        ("bin/f2py", False),
        ("PIL/_imaging.pyi", False),
        ("numpy-1.26.4.dist-info/METADATA", True),
        ("numpy-1.26.4.dist-info/licenses/LICENSE.txt", True),
        ("numpy-1.26.4.dist-info/RECORD", False),
        ("protobuf-7.0.dist-info/METADATA", False),
        ("tflotilla/device/__main__.py", True),
    ],
)
def test_a_cpu_board_gets_what_it_needs_and_licences(path: str, wanted: bool) -> None:  # noqa: FBT001
    assert environments.needed(path) is wanted


def test_a_layers_name_depends_on_content_mode_and_packages_and_not_on_order() -> None:
    files = [("a", 0o644, "0" * 64), ("b", 0o755, "1" * 64)]

    assert environments.layer_digest(files) == environments.layer_digest(files[::-1])
    assert environments.layer_digest(files) != environments.layer_digest([("a", 0o755, "0" * 64), files[1]])
    assert environments.layer_digest(files) != environments.layer_digest(files, "2" * 64)


def test_an_environment_is_built_once_and_runs_without_anything_else(cache: Path, tmp_path: Path) -> None:
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    target = Target(requirements="litert", python=python, platform=f"{os.uname().machine}-manylinux_2_36")
    steps: list[str] = []

    packages, agent = layers.environment(target, on_step=steps.append)
    steps.clear()
    again = layers.environment(target, on_step=steps.append)

    assert again == (packages, agent)
    assert steps == []
    assert agent.packages == packages.digest
    assert agent.archive_bytes < 500_000
    assert packages.archive.is_relative_to(cache)
    for layer in again:
        (tmp_path / layer.digest).mkdir()
        subprocess.run(["tar", "-xf", str(layer.archive), "-C", str(tmp_path / layer.digest)], check=True)
    program = (
        "import ai_edge_litert.interpreter, PIL.Image, paho.mqtt.client, tflotilla.device.cli, numpy; print('whole')"
    )
    done = subprocess.run(
        [getattr(sys, "_base_executable", sys.executable), "-S", "-c", program],
        env={"PYTHONPATH": f"{tmp_path / agent.digest}:{tmp_path / packages.digest}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "whole\n", done.stderr


def test_a_damaged_cache_is_built_again_and_never_sent(cache: Path) -> None:
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    target = Target(requirements="litert", python=python, platform=f"{os.uname().machine}-manylinux_2_36")
    _packages, before = layers.environment(target)
    with before.archive.open("r+b") as stream:
        stream.write(b"damaged")

    _packages, after = layers.environment(target)

    assert after == before
    assert after.archive.read_bytes()[:2] == b"\x1f\x8b"
    assert cache.exists()


def test_many_boards_at_once_have_their_environment_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFLOTILLA_CACHE", str(tmp_path / "a cache of its own"))
    target = Target(requirements="armv7l", python="3.11", platform="armv7l-manylinux_2_36")
    steps: list[str] = []

    found = pool.run(
        [f"pi-{number}" for number in range(12)], lambda _name: layers.environment(target, on_step=steps.append)
    )

    assert len({result.value for result in found}) == 1
    assert [step for step in steps if step.startswith("building")] == [f"building the environment {target}"]


def test_packages_that_no_index_has_are_one_line(cache: Path) -> None:
    # A platform that no wheel of a runtime was ever made for.
    target = Target(requirements="tflite-runtime", python="3.13", platform="aarch64-manylinux_2_17")

    with pytest.raises(BoardError) as refused:
        layers.environment(target)

    assert "can't be built" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list((cache / "environments").glob(".build-*")) == []
