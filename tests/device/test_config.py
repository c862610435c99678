"""agent.toml: every error is one line with file, key and what is allowed; good files mean what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tflotilla.device import config
from tflotilla.shared.contract.agent_config import AgentConfig
from tflotilla.shared.contract.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

HEAD = 'board = "pi-1"\nfleet = "farm"\n'


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "agent.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_two_names_are_a_whole_configuration(tmp_path: Path) -> None:
    assert config.load(written(tmp_path, HEAD)) == AgentConfig(board="pi-1", fleet="farm")


def test_relative_paths_lie_beside_the_file(tmp_path: Path) -> None:
    text = (
        HEAD
        + '[mqtt]\npassword_file = "mqtt-password"\nca_file = "ca.pem"\n[source]\nkind = "folder"\npath = "images"\n'
        '[inference.delegate]\nlibrary = "lib/mine.so"\n'
    )

    loaded = config.load(written(tmp_path, text))

    assert loaded.mqtt.password_file == str(tmp_path / "mqtt-password")
    assert loaded.mqtt.ca_file == str(tmp_path / "ca.pem")
    assert loaded.source.path == str(tmp_path / "images")
    assert loaded.inference.delegate is not None
    assert loaded.inference.delegate.library == str(tmp_path / "lib/mine.so")


def test_a_bare_library_name_is_left_to_the_dynamic_loader(tmp_path: Path) -> None:
    loaded = config.load(written(tmp_path, HEAD + '[inference.delegate]\nlibrary = "libedgetpu.so.1"\n'))

    assert loaded.inference.delegate is not None
    assert loaded.inference.delegate.library == "libedgetpu.so.1"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["key 'board' is missing"]),
        ('board = "pi-1"\n', ["key 'fleet' is missing"]),
        (HEAD + "[mqt]\nport = 1\n", ["unknown key 'mqt'", "did you mean 'mqtt'?"]),
        (HEAD + "[mqtt]\nprot = 1\n", ["agent.toml: mqtt: unknown key 'prot'", "did you mean 'port'?"]),
        (HEAD + "[mqtt]\nxyzzy = 1\n", ["unknown key 'xyzzy'", "allowed are ca_file, host"]),
        (HEAD + '[mqtt]\nport = "1883"\n', ["agent.toml: mqtt.port", '"1883" is not allowed', "a whole number"]),
        (HEAD + "[mqtt]\nport = 70000\n", ["agent.toml: mqtt: port must be 1..65535, not 70000"]),
        (HEAD + '[mqtt]\nprotocol = "4"\n', ["mqtt.protocol", 'one of "auto", "5", "3.1.1"']),
        (HEAD + '[inference]\nruntime = "tensorflow"\n', ["inference.runtime", '"tflite-runtime"', '"ai-edge-litert"']),
        (HEAD + "[inference]\nnum_threads = 0\n", ["num_threads must be 1..64, not 0"]),
        (HEAD + "[inference]\nxnnpack = 1\n", ["inference.xnnpack", "true or false"]),
        (HEAD + '[source]\nkind = "webcam"\n', ["source.kind", '"webcam" is not a source', '"folder"', '"synthetic"']),
        (HEAD + '[source]\nkind = "../evil"\n', ["kind '../evil' is not the name of a source"]),
        (HEAD + "[source]\ninterval_ms = nan\n", ["source.interval_ms", "a finite number"]),
        (HEAD + "[reporting]\nwindow_s = 0\n", ["window_s must be 0.05..3600"]),
        (HEAD + '[reporting]\nconfirm = "nobody"\n', ["reporting.confirm", '"broker", "collector"']),
        (HEAD + "[reporting]\nwindow_s = 2020-01-01\n", ["reporting.window_s", "2020-01-01", "a number"]),
        ('board = "Pi 1"\nfleet = "farm"\n', ["board name 'Pi 1'", "lower-case letters"]),
        ('board = "pi-1"\nfleet = "a/#"\n', ["fleet name 'a/#'"]),
        ("board = \n", ["not valid TOML", "line 1"]),
        (b'board = "\xff"\n', ["not UTF-8", "byte 9"]),
        (b"#" * (2 << 20), ["larger than 1 MiB"]),
    ],
)
def test_an_error_names_file_key_and_what_is_allowed(tmp_path: Path, text: str | bytes, parts: list[str]) -> None:
    path = written(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        config.load(path)

    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_an_absent_file_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agent\.toml: can't be read \(No such file.*bootstrap"):
        config.load(tmp_path / "agent.toml")


def test_what_is_named_and_absent_is_a_warning_because_it_may_come_later(tmp_path: Path) -> None:
    text = HEAD + '[source]\nkind = "folder"\npath = "images"\n[inference.delegate]\nlibrary = "./mine.so"\n'
    path = written(tmp_path, text)

    library, source = sorted(config.warnings(config.load(path), path))

    assert library == f"{path}: inference.delegate.library: {tmp_path / 'mine.so'} does not exist"
    assert source == f"{path}: source.path: {tmp_path / 'images'} does not exist"


def test_more_threads_than_cores_are_cut_to_the_cores_and_said(tmp_path: Path) -> None:
    asked = config.load(written(tmp_path, HEAD + "[inference]\nnum_threads = 64\n"))

    fitted, warning = config.fitted(asked, cores=2)

    assert fitted.inference.num_threads == 2
    assert warning == "inference.num_threads: 64 is more than this board has cores; 2 are used"
    assert config.fitted(asked, cores=64) == (asked, None)


def test_processors_that_are_not_there_are_left_out_and_said(tmp_path: Path) -> None:
    asked = config.load(written(tmp_path, HEAD + "[inference]\nnum_threads = 3\naffinity = [1, 2, 7]\n"))

    fitted, warning = config.fitted(asked, cores=2, processors=(0, 1))

    assert (fitted.inference.num_threads, fitted.inference.affinity) == (1, (1,))
    assert warning == (
        "inference.num_threads: 3 is more than this board has cores; 2 are used; "
        "inference.affinity: this board has no processor 2, 7; inference.affinity: 2 threads share 1; 1 is used"
    )
    assert config.fitted(asked, cores=8, processors=range(8)) == (asked, None)


def test_a_configuration_under_another_name_is_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "board config"
    path.write_text(HEAD + "[mqtt]\nport = 0\n")

    with pytest.raises(ConfigError, match=r"board config/agent\.toml: mqtt: port must be"):
        config.load(path)
