"""A run as JUnit XML: a test suite for each board and model, a test case for each cell.

A cell fails when it has no figures or when they may not be quoted; a board that did not finish is an error. What it
does NOT do: regressions, which are `comparison`'s.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from tflotilla.host.benchmarks.rendering import foreign, words

if TYPE_CHECKING:
    from tflotilla.host.benchmarks.results import BoardRun, Run
    from tflotilla.shared.contract.benchmark import BenchmarkCell


def render(run: Run) -> str:
    """Return the document."""
    root = ET.Element("testsuites", name=words.title(run))
    for board in run.boards:
        root.append(_suite(board))
    if run.foreign:
        root.append(_foreign(run))
    tests = failures = errors = 0
    seconds = 0.0
    for suite in root:
        tests += int(suite.attrib["tests"])
        failures += int(suite.attrib["failures"])
        errors += int(suite.attrib["errors"])
        seconds += float(suite.attrib["time"])
    root.attrib |= {"tests": f"{tests}", "failures": f"{failures}", "errors": f"{errors}", "time": f"{seconds:.3f}"}
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _foreign(run: Run) -> ET.Element:
    """Return a suite whose cases are skipped: nobody here can say whether such figures are right."""
    suite = ET.Element("testsuite", name=run.tool)
    for each in run.foreign:
        case = ET.SubElement(
            suite, "testcase", classname=words.name(each.model), name=foreign.choices(each), time="0.000"
        )
        properties = ET.SubElement(case, "properties")
        for name, value in foreign.figures(each):
            ET.SubElement(properties, "property", name=name, value=value)
        ET.SubElement(case, "skipped", message=foreign.NOTE)
    count = str(len(suite))
    suite.attrib |= {"tests": count, "failures": "0", "errors": "0", "skipped": count, "time": "0.000"}
    return suite


def _suite(board: BoardRun) -> ET.Element:
    suite = ET.Element("testsuite", name=words.subject(board))
    named: dict[str, int] = {}
    for cell in board.cells:
        name = words.configuration(cell)
        named[name] = named.get(name, 0) + 1
        # Who reads JUnit files knows a case by its name.
        unique = name if named[name] == 1 else f"{name} ({named[name]})"
        suite.append(_case(board, cell, unique))
    if board.error is not None:
        case = ET.SubElement(suite, "testcase", classname=words.subject(board), name="the board finished", time="0")
        said = words.sentence(board.error)
        ET.SubElement(case, "error", type=words.name(board.error_kind or "error"), message=said).text = said
    suite.attrib |= {
        "tests": str(len(suite)),
        "failures": str(len(suite.findall("testcase/failure"))),
        "errors": str(len(suite.findall("testcase/error"))),
        "time": f"{sum(float(case.attrib['time']) for case in suite):.3f}",
    }
    return suite


def _case(board: BoardRun, cell: BenchmarkCell, name: str) -> ET.Element:
    measurement = cell.measurement
    seconds = 0.0 if measurement is None else max(words.real(measurement.seconds), 0.0)
    case = ET.Element("testcase", classname=words.subject(board), name=name, time=f"{seconds:.3f}")
    if measurement is not None:
        properties = ET.SubElement(case, "properties")
        for key, value in (
            ("p50", _figure(cell, 50)),
            ("p90", _figure(cell, 90)),
            ("p99", _figure(cell, 99)),
            ("samples_per_second", words.number(measurement.samples_per_second)),
            ("peak_rss", words.mebibytes(measurement.peak_rss_bytes)),
            ("correctness", words.correctness(measurement.correctness)),
        ):
            ET.SubElement(properties, "property", name=key, value=value)
    standing = words.standing(cell)
    why = "; ".join(words.reasons(cell)) or "the board gave no reason"
    if standing != "VALID":
        kind = cell.error.kind if cell.error is not None else "invalid"
        ET.SubElement(case, "failure", type=kind, message=why).text = f"{standing}: {why}"
    return case


def _figure(cell: BenchmarkCell, percent: float) -> str:
    if cell.measurement is None:
        return words.NOTHING
    figure = words.found(cell.measurement.latency, percent)
    if figure is None:
        return words.NOTHING
    if figure.value_ns is None:
        return words.shortage(cell.measurement.latency, figure)
    bound = "" if figure.bound_ns is None else f" ({words.bound_sign(figure)} {words.duration(figure.bound_ns)})"
    return words.duration(figure.value_ns) + bound
