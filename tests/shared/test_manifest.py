"""The manifest: written canonically, read strictly where it decides what runs."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import pytest

from tests.shared.random_values import value_of
from tflotilla.shared.contract.errors import ContractError
from tflotilla.shared.contract.manifest import GOLDENS, MODEL, Manifest


def _manifest(seed: int = 1) -> Manifest:
    return value_of(Manifest, random.Random(seed))  # noqa: S311 - a test wants the same manifest each time


def _changed(**changes: Any) -> bytes:  # noqa: ANN401 - any JSON
    document = json.loads(_manifest().to_bytes())
    return json.dumps(document | changes).encode()


def test_a_manifest_survives_the_way_into_a_file_and_back() -> None:
    for seed in range(300):
        manifest = _manifest(seed)

        assert Manifest.from_bytes(manifest.to_bytes()) == manifest
        assert Manifest.from_bytes(manifest.to_bytes()).to_bytes() == manifest.to_bytes()


def test_what_a_newer_minor_writer_adds_is_ignored() -> None:
    assert Manifest.from_bytes(_changed(invented={"x": 1})) == _manifest()


@pytest.mark.parametrize("schema", [0, 2, "1", None, 1.5])
def test_another_schema_is_refused_by_its_number(schema: object) -> None:
    with pytest.raises(ContractError, match="can't be read; this version reads schema 1"):
        Manifest.from_bytes(_changed(schema=schema))


@pytest.mark.parametrize("data", [b"[]", b"3", b"null", b'"text"'])
def test_a_document_of_another_kind_has_no_schema(data: bytes) -> None:
    with pytest.raises(ContractError, match="schema None can't be read"):
        Manifest.from_bytes(data)


@pytest.mark.parametrize(
    "name", ["", "a/b", "../x", "A", "a b", "-a", "a.", "$(reboot)", "a\n", "x" * 65, ".hidden", "käse"]
)
def test_a_name_that_could_leave_a_folder_or_confuse_a_shell_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match="use lower-case letters"):
        Manifest.from_bytes(_changed(name=name))


@pytest.mark.parametrize("version", ["", "1/2", "../1", "1 2", "-1", "$(x)", "1" * 65, "1\n"])
def test_a_version_that_could_leave_a_folder_is_refused(version: str) -> None:
    with pytest.raises(ContractError, match="version"):
        Manifest.from_bytes(_changed(version=version))


@pytest.mark.parametrize("release", [0, -1])
def test_a_release_counts_from_one(release: int) -> None:
    with pytest.raises(ContractError, match=f"release must be at least 1, it is {release}"):
        Manifest.from_bytes(_changed(release=release))


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "a/b", "", ".profile", "manifest.json", "manifest.json.sig", "a\n", "a b"],
)
def test_a_file_name_that_is_not_plain_is_refused(name: str) -> None:
    files = json.loads(_manifest().to_bytes())["files"]
    files[name] = files[MODEL]

    with pytest.raises(ContractError, match="is not a plain file name"):
        Manifest.from_bytes(_changed(files=files))


@pytest.mark.parametrize("missing", [MODEL, GOLDENS])
def test_a_bundle_without_a_model_or_goldens_is_no_bundle(missing: str) -> None:
    files = json.loads(_manifest().to_bytes())["files"]
    del files[missing]

    with pytest.raises(ContractError, match=f"'{missing}' is missing"):
        Manifest.from_bytes(_changed(files=files))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"size": -1, "sha256": "0" * 64}, "size must not be negative"),
        ({"size": 1, "sha256": "0" * 63}, "is not a SHA-256 digest"),
        ({"size": 1, "sha256": "A" * 64}, "is not a SHA-256 digest"),
        ({"size": 1.5, "sha256": "0" * 64}, "expected a whole number"),
        ({"size": 1}, "key 'sha256' is missing"),
    ],
)
def test_a_file_entry_that_can_not_be_is_refused_at_its_place(entry: dict[str, object], said: str) -> None:
    files = json.loads(_manifest().to_bytes())["files"] | {MODEL: entry}

    with pytest.raises(ContractError) as caught:
        Manifest.from_bytes(_changed(files=files), "here.json")

    assert str(caught.value).startswith(f"here.json: files.{MODEL}")
    assert said in str(caught.value)


def test_every_field_but_those_with_a_default_must_be_there() -> None:
    document = json.loads(_manifest().to_bytes())
    for field in dataclasses.fields(Manifest):
        data = json.dumps({key: value for key, value in document.items() if key != field.name}).encode()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            with pytest.raises(ContractError, match=field.name):
                Manifest.from_bytes(data)
        else:
            assert Manifest.from_bytes(data).name == _manifest().name


def test_a_manifest_cut_anywhere_is_refused() -> None:
    data = _manifest().to_bytes().rstrip()
    for end in range(0, len(data), 7):
        with pytest.raises(ContractError):
            Manifest.from_bytes(data[:end])
