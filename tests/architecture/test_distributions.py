"""What the built wheels say of themselves: a board must never be asked for TensorFlow."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the three wheels from copies of their folders, without build isolation: nothing is downloaded."""
    tree = tmp_path_factory.mktemp("tree")
    output = tmp_path_factory.mktemp("wheels")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "dist")
    for part in ("shared", "device", "host", "requirements"):
        shutil.copytree(ROOT / part, tree / part, ignore=ignore)
    built = {}
    for part in ("shared", "device", "host"):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(output)]
        subprocess.run(command, cwd=tree / part, check=True, capture_output=True)
        (built[part],) = output.glob(f"tflotilla_{part}-*.whl")
    return built


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    return [entry.split(";")[0].strip() for entry in metadata.get_all("Requires-Dist", [])]


def _names(requirements: list[str]) -> set[str]:
    return {"".join(c if c.isalnum() or c in "-_" else " " for c in entry).split()[0] for entry in requirements}


def test_the_device_asks_for_its_five_packages_and_nothing_else(wheels: dict[str, Path]) -> None:
    asked = _names(_requirements(wheels["device"]))

    expected = {"tflotilla-shared", "numpy", "pillow", "paho-mqtt", "tomli", "tflite-runtime", "ai-edge-litert"}
    assert expected == asked


def test_shared_asks_for_numpy_and_pillow(wheels: dict[str, Path]) -> None:
    assert {"numpy", "pillow"} == _names(_requirements(wheels["shared"]))


def test_no_wheel_owns_the_namespace(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        with zipfile.ZipFile(wheel) as archive:
            assert "tflotilla/__init__.py" not in archive.namelist()


def test_the_host_wheel_carries_the_locks_of_the_boards(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["host"]) as archive:
        names = archive.namelist()

    assert "tflotilla/host/requirements/device-litert.txt" in names
