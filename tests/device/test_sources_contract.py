"""What every source promises, whatever its kind. A new kind is one entry in `_CONFIGS`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.device import running_bundles
from tflotilla.device import sources
from tflotilla.device.sources.folder import FolderSource
from tflotilla.shared.contract.agent_config import SourceConfig
from tflotilla.shared.contract.errors import ConfigError, DatasetError
from tflotilla.shared.contract.tensors import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tflotilla.device.sources import Item, Source

_CONFIGS: dict[str, Callable[[Path], SourceConfig]] = {
    "folder": lambda path: SourceConfig(kind="folder", path=str(running_bundles.write_images(path, range(3)))),
    "synthetic": lambda path: SourceConfig(kind="synthetic", path=str(path)),
}


def _open(kind: str, path: Path) -> Source:
    return sources.open_source(_CONFIGS[kind](path), (running_bundles.IMAGE,))


def _take(source: Source, count: int) -> list[Item]:
    items: list[Item] = []
    while len(items) < count:
        item = source.next_item()
        if item is not None:
            items.append(item)
    return items


def test_every_kind_is_held_to_this_contract() -> None:
    assert sources.kinds() == tuple(sorted(_CONFIGS))


@pytest.mark.parametrize("kind", sources.kinds())
class TestContract:
    def test_an_item_is_an_image_or_tensors_as_the_source_says(self, kind: str, tmp_path: Path) -> None:
        source = _open(kind, tmp_path / "s")

        for item in _take(source, 5):
            assert (item.image is not None) == source.gives_images
            assert (item.tensors is not None) != source.gives_images

    def test_tensors_fit_the_model(self, kind: str, tmp_path: Path) -> None:
        source = _open(kind, tmp_path / "s")

        for item in _take(source, 5):
            for tensor in item.tensors or ():
                assert tensor.shape == running_bundles.IMAGE.shape
                assert tensor.dtype == running_bundles.IMAGE.dtype

    def test_every_item_has_a_name_that_fits_a_message(self, kind: str, tmp_path: Path) -> None:
        for item in _take(_open(kind, tmp_path / "s"), 5):
            assert item.name
            item.name.encode()

    def test_it_goes_on(self, kind: str, tmp_path: Path) -> None:
        assert len(_take(_open(kind, tmp_path / "s"), 50)) == 50

    def test_equal_configurations_give_equal_items(self, kind: str, tmp_path: Path) -> None:
        one, other = (_take(_open(kind, tmp_path / "s"), 7) for _ in range(2))

        for mine, yours in zip(one, other, strict=True):
            assert (mine.name, mine.image) == (yours.name, yours.image)
            for a, b in zip(mine.tensors or (), yours.tensors or (), strict=True):
                np.testing.assert_array_equal(a, b)

    def test_closing_twice_is_harmless(self, kind: str, tmp_path: Path) -> None:
        source = _open(kind, tmp_path / "s")
        source.next_item()

        source.close()
        source.close()


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"source\.kind 'camera' is not known; allowed are folder, synthetic"):
        sources.open_source(SourceConfig(kind="camera"), ())


@pytest.mark.parametrize("kind", ["__init__", "os"])
def test_a_kind_is_no_way_to_import_something_else(kind: str) -> None:
    with pytest.raises(ConfigError):
        sources.open_source(SourceConfig(kind=kind), ())


class TestSynthetic:
    @pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int8", "int16", "int32", "int64", "bool"])
    def test_any_number_can_be_made_up(self, dtype: str) -> None:
        spec = TensorSpec(name="x", shape=(-1, 4, 3), dtype=dtype)  # type: ignore[arg-type]

        item = sources.open_source(SourceConfig(), (spec, spec)).next_item()

        assert item is not None
        assert item.tensors is not None
        assert [tensor.shape for tensor in item.tensors] == [(1, 4, 3)] * 2
        assert [tensor.dtype for tensor in item.tensors] == [np.dtype(dtype)] * 2

    def test_another_seed_gives_other_inputs(self) -> None:
        one, other = (
            sources.open_source(SourceConfig(seed=seed), (running_bundles.IMAGE,)).next_item() for seed in (1, 2)
        )

        assert one is not None
        assert other is not None
        assert one.tensors is not None
        assert other.tensors is not None
        assert (one.tensors[0] != other.tensors[0]).any()

    def test_text_can_not_be_made_up(self) -> None:
        with pytest.raises(ConfigError, match="can't make up text for the model's input 'words'"):
            sources.open_source(SourceConfig(), (TensorSpec(name="words", shape=(1,), dtype="string"),))


class TestFolder:
    """Listing is by a clock that the test holds."""

    def _source(self, folder: Path, *, loop: bool) -> FolderSource:
        return FolderSource(folder, loop=loop, clock=itertools.count().__next__)

    def test_order_is_that_of_the_paths_and_begins_again(self, tmp_path: Path) -> None:
        running_bundles.write_images(tmp_path / "b", range(2))
        running_bundles.write_images(tmp_path / "a", range(1))

        names = [item.name for item in _take(self._source(tmp_path, loop=True), 4)]

        assert names == ["a/0-zero.png", "b/0-zero.png", "b/1-one.png", "a/0-zero.png"]

    def test_a_round_sees_what_came_and_went(self, tmp_path: Path) -> None:
        images = running_bundles.write_images(tmp_path, range(2))
        source = self._source(images, loop=True)
        assert [item.name for item in _take(source, 2)] == ["0-zero.png", "1-one.png"]

        (images / "0-zero.png").unlink()
        running_bundles.write_images(images, range(5, 6))

        assert [item.name for item in _take(source, 2)] == ["1-one.png", "5-five.png"]

    def test_without_loop_a_file_is_given_once(self, tmp_path: Path) -> None:
        source = self._source(running_bundles.write_images(tmp_path, range(2)), loop=False)

        assert len(_take(source, 2)) == 2
        assert [source.next_item() for _ in range(5)] == [None] * 5

    def test_without_loop_a_file_that_changed_is_given_again(self, tmp_path: Path) -> None:
        """A file seen half written was an error; whole, it is an input."""
        source = self._source(running_bundles.write_images(tmp_path, range(1)), loop=False)
        _take(source, 1)

        (tmp_path / "0-zero.png").write_bytes(b"grown since")

        assert [item.name for item in _take(source, 1)] == ["0-zero.png"]

    @pytest.mark.parametrize("loop", [True, False])
    def test_an_empty_folder_is_said_and_not_listed_all_the_time(self, tmp_path: Path, *, loop: bool) -> None:
        now = [0.0]
        source = FolderSource(tmp_path, loop=loop, clock=lambda: now[0])

        with pytest.raises(DatasetError, match="holds no image"):
            source.next_item()
        assert source.next_item() is None
        now[0] += 10
        with pytest.raises(DatasetError, match="holds no image"):
            source.next_item()

    def test_a_file_that_is_no_image_by_its_name_is_left_alone(self, tmp_path: Path) -> None:
        running_bundles.write_images(tmp_path, range(1))
        (tmp_path / "labels.csv").write_text("0,zero")
        (tmp_path / ".hidden.png").write_bytes(b"half written by rsync")

        assert {item.name for item in _take(self._source(tmp_path, loop=True), 3)} == {"0-zero.png"}
