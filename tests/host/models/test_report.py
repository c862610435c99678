"""The report: rendered from made values, and once from real files."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import models_made
from tflotilla.host.models.report import collect, pages
from tflotilla.host.models.report.contents import (
    Answer,
    Box,
    Broken,
    Figures,
    Fit,
    Guess,
    LayerNoise,
    Report,
    Sample,
    Variant,
)
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import DatasetError, ModelError, UsageError
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from pathlib import Path

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE = "<script>alert('x')</script>"


def variant(name: str, scheme: QuantizationScheme, *, value: float, p50_ns: int, size_bytes: int) -> Variant:
    is_float = scheme is QuantizationScheme.FLOAT32
    return Variant(
        name=name,
        sha256="ab" * 32,
        scheme=scheme,
        size_bytes=size_bytes,
        compressed_bytes=size_bytes - 100,
        inputs="float32 1×8×8×1",
        outputs="float32 1×10",
        ops=4,
        float_ops={"CONV_2D": 2} if is_float else {},
        is_reference=is_float,
        figures=(
            Figures(
                runtime="ai-edge-litert==2.3.0",
                metric="accuracy",
                value=value,
                gained=None if is_float else value - 0.98,
                agreement=None if is_float else 0.99,
                samples=1000,
                p50_ns=p50_ns,
                p90_ns=p50_ns + 500,
                runs=100,
            ),
            Figures(runtime="tflite-runtime==2.14.0", refused="FULLY_CONNECTED version 12 | accepts 1..10"),
        ),
        fits=(
            Fit(runtime="ai-edge-litert", version="2.3.0", ok=True),
            Fit(runtime="tflite-runtime", version="2.14.0", ok=False, reason="FULLY_CONNECTED version 12"),
        ),
        layers=()
        if is_float
        else (
            LayerNoise(
                layer="3 CONV_2D", op="CONV_2D", tensor=HOSTILE, sqnr_db=12.0, rmse_over_scale=0.4, saturated_share=0.01
            ),
        ),
        layers_note="" if is_float else "against the float model, 10 samples",
    )


def made() -> Report:
    answers = (
        Answer(variant="float.tflite", top=(Guess(label="seven", score=0.9), Guess(label=HOSTILE, score=0.1))),
        Answer(variant=f"int8{HOSTILE}.tflite", top=(Guess(label="one", score=0.6),), agrees=False),
    )
    box = Box(label="cat", score=0.7, ymin=-0.1, xmin=0.2, ymax=0.5, xmax=1.2)
    return Report(
        title=f"Digits {HOSTILE}",
        data="held-out",
        variants=(
            variant("float.tflite", QuantizationScheme.FLOAT32, value=0.98, p50_ns=20_000, size_bytes=160_000),
            variant(f"int8{HOSTILE}.tflite", QuantizationScheme.INT8, value=0.97, p50_ns=10_000, size_bytes=45_000),
        ),
        broken=(Broken(name="cut.tflite", reason="corrupt TFLite file"),),
        samples=(
            Sample(name="7.png", picture=PIXEL, truth="seven", answers=answers),
            Sample(name="cat.png", picture=PIXEL, truth=None, answers=(Answer(variant="d", boxes=(box,)),)),
        ),
        notes=("no pictures of <b>dogs</b>",),
    )


class Page(HTMLParser):
    """What a page holds, as far as its promises go."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    text = pages.html(made())
    page = Page(text)

    assert [] == page.all("script") + page.all("link") + page.all("iframe")
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:", "#"))
    assert "url(http" not in text
    assert "@import" not in text


def test_the_page_can_be_read_without_seeing_it() -> None:
    page = Page(pages.html(made()))

    assert page.all("img")
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(attributes.get("scope") for attributes in page.all("th"))
    assert all(a.get("aria-label") for a in page.all("svg"))
    assert [{"lang": "en"}] == page.all("html")


def test_what_others_wrote_is_shown_and_not_obeyed() -> None:
    text = pages.html(made())

    assert HOSTILE not in text
    assert HOSTILE in Page(text).words


def test_a_page_says_what_matters_first_and_marks_what_differs() -> None:
    words = " ".join(Page(pages.html(made())).words.split())

    assert "3.6 times smaller than float.tflite" in words
    assert "-1.00 points accuracy" in words
    assert "differs from float" in words
    assert "FULLY_CONNECTED version 12 | accepts 1..10" in words
    assert "~0.011" in words, "100 runs are too few for a p90"
    assert "cut.tflite is not reported on: corrupt TFLite file" in words
    assert "no pictures of <b>dogs</b>" in words


def test_the_same_values_give_the_same_bytes_in_every_form() -> None:
    for render in (pages.html, pages.markdown, pages.as_json):
        assert render(made()) == render(made())
    assert made().title == json.loads(pages.as_json(made()))["title"]


def test_markdown_keeps_texts_in_their_cells() -> None:
    lines = pages.markdown(made()).splitlines()
    rows = [line for line in lines if line.startswith("| float.tflite")]

    assert any("version 12 \\| accepts" in line for line in rows)
    assert all("<script>" not in line for line in lines)
    for header, rule in ((lines[i - 1], lines[i]) for i in range(1, len(lines)) if lines[i].startswith("| ---")):
        assert header.count("|") == rule.count("|")


def test_facts_are_said_only_where_they_are_true() -> None:
    only = dataclasses.replace(made(), variants=made().variants[:1])
    refused = dataclasses.replace(
        only.variants[0], fits=(Fit(runtime="r", version="1", ok=False, reason="x"),), figures=()
    )

    assert not any("Smallest" in fact or "below float" in fact for fact in pages.facts(only))
    assert ["No known runtime runs float.tflite."] == pages.facts(dataclasses.replace(only, variants=(refused,)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    (place / "float.tflite").write_bytes(models_made.read("tiny_classifier_float"))
    (place / "int8.tflite").write_bytes(models_made.read("tiny_classifier"))
    (place / "other").mkdir()
    (place / "other" / "int8.tflite").write_bytes(models_made.read("tiny_classifier"))
    (place / "cut.tflite").write_bytes(models_made.read("tiny_classifier")[:300])
    (place / "labels.txt").write_bytes(models_made.LABELS_TXT)
    images = np.stack([models_made.noisy(label % 10, label) for label in range(30)])
    np.savez(place / "digits.npz", x=images, y=np.arange(30) % 10)
    return place


def test_everything_is_gathered_and_one_broken_file_costs_only_itself(folder: Path) -> None:
    report = collect.collect(
        collect.ReportRequest(
            models=tuple(folder / name for name in ("float.tflite", "int8.tflite", "other/int8.tflite", "cut.tflite")),
            data=folder / "digits.npz",
            preprocess="unit",
            labels=folder / "labels.txt",
            runtimes=("ai-edge-litert",),
            pictures=3,
        )
    )

    names = [each.name for each in report.variants]
    assert 3 == len(set(names)) == len(names), "two files of one name are told apart"
    assert ["cut.tflite"] == [each.name for each in report.broken]
    floating, integer, _ = report.variants
    assert floating.is_reference
    assert "accuracy" == integer.figures[0].metric
    assert integer.figures[0].agreement is not None
    assert integer.figures[0].p50_ns
    assert integer.layers
    assert 3 == len(report.samples)
    assert all(sample.picture.startswith("data:image/png") for sample in report.samples)
    assert all(len(sample.answers) == 3 for sample in report.samples)
    assert report == codec.decode(Report, codec.encode(report), "report")
    pages.html(report)
    pages.markdown(report)


def test_without_data_latency_is_told_and_the_rest_is_said_to_be_missing(folder: Path) -> None:
    report = collect.collect(collect.ReportRequest(models=(folder / "int8.tflite",), runtimes=("ai-edge-litert",)))

    (figure,) = report.variants[0].figures
    assert (None, ()) == (figure.value, report.samples)
    assert figure.p50_ns
    assert any("No data were given" in note for note in report.notes)
    assert any("no float model" in note for note in report.notes)
    assert "No data were given" in pages.html(report)


def test_what_fits_nothing_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("a\nb\n")

    def ask(**fields: object) -> None:
        request = collect.ReportRequest(
            models=(folder / "int8.tflite",), runtimes=("ai-edge-litert",), preprocess="unit"
        )
        collect.collect(dataclasses.replace(request, **fields))  # type: ignore[arg-type]

    with pytest.raises(ModelError, match=r"cut\.tflite"):
        ask(models=(folder / "cut.tflite",))
    with pytest.raises(DatasetError, match="10 outputs and 2 labels"):
        ask(data=folder / "digits.npz", labels=tmp_path / "two.txt")
    with pytest.raises(DatasetError, match="no such folder"):
        ask(data=tmp_path / "absent")
    with pytest.raises(UsageError, match=r"a report is written as \.html, \.md, \.json"):
        pages.renderer(tmp_path / "report.pdf")
