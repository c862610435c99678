"""Reads one board's `agent.toml`: the values are `shared.contract.agent_config`, this is the door to the file.

Rules it keeps: an error is one line that names the file, the key and what is allowed there; relative paths in the file
mean "beside the file", so that a home can be moved. What it does NOT do: import a source, load a delegate, or connect.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.device import sources
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import AgentConfig
from tflotilla.shared.contract.errors import ConfigError, ContractError

if TYPE_CHECKING:
    from collections.abc import Collection

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LIMIT_BYTES = 1 << 20


def load(path: Path) -> AgentConfig:
    """Read and check a configuration; paths in the result are absolute.

    Raises:
        ConfigError: it can't be read, isn't TOML, has an unknown key, a wrong value, or names an unknown source.

    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_LIMIT_BYTES + 1)
    except OSError as error:
        message = f"{path}: can't be read ({error.strerror}); `tflotilla board bootstrap` writes it"
        raise ConfigError(message) from error
    return parse(data, path)


def parse(data: bytes, path: Path) -> AgentConfig:
    """Check the bytes of `path`; its folder is what relative paths mean. Raises ConfigError."""
    if len(data) > _LIMIT_BYTES:
        message = f"{path}: larger than {_LIMIT_BYTES >> 20} MiB, which is no configuration"
        raise ConfigError(message)
    try:
        document: dict[str, Any] = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 text (byte {error.start})"
        raise ConfigError(message) from error
    except tomllib.TOMLDecodeError as error:
        message = f"{path}: not valid TOML: {error}"
        raise ConfigError(message) from error
    # The place ends in .toml for the codec whatever the file is called, so that keys follow after a colon.
    place = str(path) if path.suffix == ".toml" else f"{path}/agent.toml"
    try:
        config = codec.decode(AgentConfig, document, place, strict=True)
    except ContractError as error:
        raise ConfigError(str(error)) from error
    if config.source.kind not in sources.kinds():
        allowed = ", ".join(f'"{kind}"' for kind in sources.kinds())
        message = (
            f'{place}: source.kind: "{config.source.kind}" is not a source of this agent; expected one of {allowed}'
        )
        raise ConfigError(message)
    return _absolute(config, path.absolute().parent)


def fitted(
    config: AgentConfig, *, cores: int, processors: Collection[int] | None = None
) -> tuple[AgentConfig, str | None]:
    """Return the configuration with what the board has, and a line where that changed it.

    More threads than cores are a cliff: tflite-runtime takes 100 times as long. Processors that are not among
    `processors` (None: not known) are left out, since a process can't be bound to them.
    """
    inference, warnings = config.inference, []
    if inference.num_threads > cores:
        warnings.append(
            f"inference.num_threads: {inference.num_threads} is more than this board has cores; "
            f"{cores} {_are(cores)} used"
        )
        inference = dataclasses.replace(inference, num_threads=cores)
    absent = () if processors is None else tuple(sorted(set(inference.affinity) - set(processors)))
    if absent:
        warnings.append(f"inference.affinity: this board has no processor {', '.join(map(str, absent))}")
        there = tuple(number for number in inference.affinity if number not in absent)
        inference = dataclasses.replace(inference, affinity=there)
    bound = len(inference.affinity)
    if 0 < bound < inference.num_threads:
        warnings.append(
            f"inference.affinity: {inference.num_threads} threads share {bound}; {bound} {_are(bound)} used"
        )
        inference = dataclasses.replace(inference, num_threads=bound)
    if not warnings:
        return config, None
    return dataclasses.replace(config, inference=inference), "; ".join(warnings)


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def warnings(config: AgentConfig, path: Path) -> tuple[str, ...]:
    """Name what the configuration refers to and is not there: worth saying, no reason not to serve.

    A missing delegate falls back to the CPU, and a folder or password may come later.
    """
    named = {
        "inference.delegate.library": config.inference.delegate.library if config.inference.delegate else None,
        "mqtt.password_file": config.mqtt.password_file,
        "mqtt.ca_file": config.mqtt.ca_file,
        "source.path": config.source.path,
    }
    return tuple(
        f"{path}: {key}: {value} does not exist"
        for key, value in named.items()
        if value is not None and os.sep in value and not Path(value).exists()
    )


def _absolute(config: AgentConfig, folder: Path) -> AgentConfig:
    def resolve(text: str | None) -> str | None:
        return None if text is None else str(folder / Path(text).expanduser())

    mqtt = dataclasses.replace(
        config.mqtt, password_file=resolve(config.mqtt.password_file), ca_file=resolve(config.mqtt.ca_file)
    )
    source = dataclasses.replace(config.source, path=resolve(config.source.path))
    inference = config.inference
    # A bare name (`libedgetpu.so.1`) is the dynamic loader's to find; only a path is ours to resolve.
    if inference.delegate is not None and os.sep in inference.delegate.library:
        library = str(folder / Path(inference.delegate.library).expanduser())
        inference = dataclasses.replace(inference, delegate=dataclasses.replace(inference.delegate, library=library))
    return dataclasses.replace(config, mqtt=mqtt, source=source, inference=inference)
