"""Which environment a board needs, and whether there can be one: decisions only.

An environment is two layers. `packages` is what the locked requirements install for one (arch, libc, Python), built on
the host; the layer on top is tflotilla.shared and tflotilla.device, with a link to its packages. So a new agent costs
a board some 100 kB and not all of numpy. Each layer is named by its digest: SHA-256 over one sorted line per file
(mode, SHA-256, path).

On 32-bit ARM numpy and Pillow have no wheels: there the distribution's are used, and looked at before anything is sent.

What this module does NOT do: build (see `layers`), run uv, talk to a board.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tflotilla.shared.contract.board import BoardFacts

RuntimeChoice = Literal["auto", "tflite-runtime", "ai-edge-litert", "both"]
#: File `requirements/device-<name>.txt`.
Requirements = Literal["tflite-runtime", "litert", "both", "armv7l"]
#: Part of a cached environment's key: a change of what is left out makes other environments.
RECIPE = 1
OLDEST_PYTHON = (3, 10)
#: 32-bit ARM with hardware floating point, whatever kernel runs it.
ARM_32: Final = "armv7l"
#: What tflite-runtime 2.14 was built against, up to numpy 2, under which it dies; and what the agent needs of Pillow.
_NUMPY_32 = ((1, 23, 2), (2,))
_PILLOW_32 = (9, 4)
#: Name of the link from the upper layer to its packages.
PACKAGES = "packages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheels:
    """Where a runtime's wheels run."""

    runtime: str
    version: str
    pythons: tuple[tuple[int, int], tuple[int, int]]
    #: Architecture → oldest glibc.
    glibc: dict[str, tuple[int, int]]


_WHEELS: tuple[Wheels, ...] = (
    Wheels(
        runtime="tflite-runtime",
        version="2.14",
        pythons=((3, 9), (3, 11)),
        glibc={"x86_64": (2, 17), "aarch64": (2, 34), ARM_32: (2, 34)},
    ),
    Wheels(
        runtime="ai-edge-litert",
        version="2.3",
        pythons=((3, 10), (3, 14)),
        glibc={"x86_64": (2, 27), "aarch64": (2, 27)},
    ),
)
#: Platform tags that uv knows, by glibc's minor version.
_UV_GLIBC = (17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40)
_UNUSED = re.compile(
    # Programs and the installer's own notes.
    r"(bin/.*|\.lock|.*\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json|uv_\w+\.json))"
    # Written for people and compilers.
    r"|(.*/)?(__pycache__|tests|testing/_private|include)/.*|.*\.(pyi|a|h|c|pxd|pyx)"
    r"|numpy/(f2py|distutils)/.*"
    # GPU, vendors, converters, CompiledModel: nothing that the interpreter on a CPU loads.
    r"|ai_edge_litert/(aot|tools|tflite|vendors)/.*"
    r"|ai_edge_litert/lib(LiteRt|LiteRtWebGpuAccelerator)\.so"
    r"|ai_edge_litert/(_pywrap_(litert_(compiled_model|converter)_wrapper|analyzer_wrapper|modify_model_interface"
    r"|tensorflow_lite_calibration_wrapper|tfl_calibration)|pywrap_genai_ops|format_converter_wrapper_pybind11)\.so"
    # What only those need.
    r"|(google|tqdm|ml_dtypes|ml_dtypes\.libs|backports)/.*|(protobuf|tqdm|ml_dtypes|backports_strenum)-.*\.dist-info/.*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A package that the board's system brings: its version, or why it has none (nothing said: it isn't there)."""

    version: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What a 32-bit board's own system brings for its Python."""

    numpy: Installed = Installed()
    pillow: Installed = Installed()
    hard_float: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What packages are built for."""

    requirements: Requirements
    #: `3.11`
    python: str
    #: As uv names it: `aarch64-manylinux_2_36`.
    platform: str

    def __str__(self) -> str:
        """For messages."""
        return f"{self.requirements} for Python {self.python} on {self.platform}"


def target(facts: BoardFacts, wanted: RuntimeChoice = "auto", system: System | None = None) -> Target:
    """Choose what to build for a board: with `auto`, both runtimes where both have wheels, else the one that has.

    `system` is looked at for 32-bit ARM only.

    Raises:
        BoardError: nothing can be served, with the exact reason for each runtime; or a 32-bit board lacks what only its
            distribution can give.

    """
    python = _version(facts.python)
    if python < OLDEST_PYTHON:
        raise BoardError(too_old(facts.python, "python3"))
    if facts.libc is None or not facts.libc.startswith("glibc "):
        libc = facts.libc or "an unknown C library"
        message = f"{facts.hostname} has {libc}: TFLite runtimes have wheels for glibc only; use a Debian-like system"
        raise BoardError(message)
    glibc = _version(facts.libc.removeprefix("glibc "))
    obstacles = {wheels.runtime: _obstacle(wheels, facts.arch, python, glibc) for wheels in _WHEELS}
    served = [runtime for runtime, obstacle in obstacles.items() if obstacle is None]
    asked = {"auto": served, "both": list(obstacles)}.get(wanted, [wanted])
    reasons = [reason for runtime in asked or obstacles if (reason := obstacles[runtime]) is not None]
    if reasons:
        message = f"{facts.hostname} can't be served: {'; '.join(reasons)}"
        raise BoardError(message)
    if facts.arch == ARM_32:
        _check_system(facts, system or System())
        # uv isn't asked for this platform, so any glibc can be named.
        return Target(
            requirements=ARM_32,
            python=f"{python[0]}.{python[1]}",
            platform=f"{ARM_32}-manylinux_{glibc[0]}_{glibc[1]}",
        )
    minor = max((known for known in _UV_GLIBC if glibc >= (2, known)), default=_UV_GLIBC[0])
    requirements: Requirements = "both"
    if len(asked) == 1:
        requirements = "litert" if asked[0] == "ai-edge-litert" else "tflite-runtime"
    return Target(
        requirements=requirements, python=f"{python[0]}.{python[1]}", platform=f"{facts.arch}-manylinux_2_{minor}"
    )


def too_old(found: str, executable: str, newer: Iterable[str] = ()) -> str:
    """Say that a board's Python is too old, naming both versions, and which one of its others would do."""
    needed = ".".join(map(str, OLDEST_PYTHON))
    others = list(newer)
    hint = f'set python = "{others[-1]}" for it in fleet.toml' if others else "install a newer one, or a newer system"
    return f"{executable} is Python {found}, and the agent needs {needed} or newer; {hint}"


def needed(path: str) -> bool:
    """Whether a board needs this file of an installed package; `path` is relative, with slashes."""
    return _UNUSED.fullmatch(path) is None


def layer_digest(files: Iterable[tuple[str, int, str]], packages: str | None = None) -> str:
    """Return the name of a layer: files are (path, mode, SHA-256), `packages` the layer it links to."""
    lines = [f"{mode:o} {sha256} {path}\n" for path, mode, sha256 in files]
    if packages is not None:
        lines.append(f"link {packages} {PACKAGES}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _check_system(facts: BoardFacts, system: System) -> None:
    """Raise BoardError unless a 32-bit board brings what has no wheels there."""
    if not system.hard_float:
        message = f"{facts.hostname} is 32-bit ARM without hardware floating point (armel); there are wheels for armhf"
        raise BoardError(message)
    oldest, first_bad = _NUMPY_32
    numpy, pillow = system.numpy, system.pillow
    packages = (("numpy", "python3-numpy", numpy), ("Pillow", "python3-pil", pillow))
    missing = [(name, debian) for name, debian, found in packages if found.version is None and found.problem is None]
    if missing:
        names, debian = " and ".join(name for name, _ in missing), " ".join(debian for _, debian in missing)
        message = (
            f"{facts.hostname} has no {names} for its Python {facts.python}; 32-bit boards use the distribution's: "
            f"sudo apt install {debian}"
        )
        raise BoardError(message)
    for name, debian, found in packages:
        if found.version is None:
            message = (
                f"{facts.hostname}: its {name} can't be imported ({found.problem}): "
                f"sudo apt install --reinstall {debian}"
            )
            raise BoardError(message)
    if numpy.version is not None and not oldest <= _numbers(numpy.version) < first_bad:
        least, below = ".".join(map(str, oldest)), ".".join(map(str, first_bad))
        message = (
            f"{facts.hostname} has numpy {numpy.version}, and tflite-runtime 2.14 needs one from {least} on and below "
            f"{below}; Debian 12's python3-numpy is one"
        )
        raise BoardError(message)
    if pillow.version is not None and _numbers(pillow.version) < _PILLOW_32:
        least = ".".join(map(str, _PILLOW_32))
        message = f"{facts.hostname} has Pillow {pillow.version}, and the agent needs {least} or newer"
        raise BoardError(message)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _obstacle(wheels: Wheels, arch: str, python: tuple[int, int], glibc: tuple[int, int]) -> str | None:
    first, last = wheels.pythons
    name = f"{wheels.runtime} {wheels.version}"
    if not first <= python <= last:
        return (
            f"{name} has no wheel for Python {python[0]}.{python[1]} "
            f"(it has them for {first[0]}.{first[1]} to {last[0]}.{last[1]})"
        )
    if arch == "armv6l":
        return f"{name} has no wheel for {arch} (Raspberry Pi 1 and Zero); it takes a Pi Zero 2, 2, 3 or later"
    if arch == ARM_32 and arch not in wheels.glibc:
        return f"{name} has no wheel for 32-bit ARM ({arch}); install the 64-bit system"
    if arch not in wheels.glibc:
        return f"{name} has no wheel for {arch} (it has them for {', '.join(sorted(wheels.glibc))})"
    oldest = wheels.glibc[arch]
    if glibc < oldest:
        return f"{name} needs glibc {oldest[0]}.{oldest[1]} on {arch}, the board has {glibc[0]}.{glibc[1]}"
    return None


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
