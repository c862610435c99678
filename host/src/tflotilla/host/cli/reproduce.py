"""`tflotilla reproduce`: published figures beside what this machine gives."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from tflotilla.host.reproductions.reproduction import Reproduction


def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Cases, or all; without one they are listed.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with real data (MNIST's files, photos, models), found by name. $TFLOTILLA_DATA."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.md", help="Also write the tables to a page.")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="Folder to keep what is trained and converted in.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> int:
    """Reproduce published figures with this tool's own commands: sizes, accuracies, speed. Some cases train.

    Example: tflotilla reproduce mnist-weights --data datasets/

    Exit codes: 0 reproduced, 1 a figure that must hold does not, 2 usage, 3 data are missing, 12 not convertible.
    """
    from tflotilla.host.models import delivery
    from tflotilla.host.reproductions import catalogue, desk, reproduction

    if not names:
        _list(as_json)
        return 0
    chosen = catalogue.choose(names)
    if out is not None:
        delivery.check_writable(out)
    if work is not None:
        delivery.check_writable(work)
        work.mkdir(parents=True, exist_ok=True)
    done: list[Reproduction] = []
    with tempfile.TemporaryDirectory(prefix="tflotilla-reproduce-") as scratch:
        for number, name in enumerate(chosen, 1):
            with output.progress(f"{name} ({number} of {len(chosen)})") as say:
                place = desk.Desk(folder=work or Path(scratch), data=desk.data_folder(data), say=say)
                done.append(catalogue.case(name).run(place))
            if not as_json:
                _show(done[-1])
    if out is not None:
        delivery.deliver(reproduction.markdown(done, _machine()), out)
    if as_json:
        output.emit_json([codec.encode(each) | {"holds": each.holds} for each in done])
    return 0 if all(each.holds for each in done) else 1


def _list(as_json: bool) -> None:
    from tflotilla.host.reproductions import catalogue

    cases = {name: catalogue.case(name) for name in catalogue.CASES}
    if as_json:
        output.emit_json(
            {name: {"title": case.TITLE, "needs": case.NEEDS, "minutes": case.MINUTES} for name, case in cases.items()}
        )
        return
    output.emit_table(
        "Cases",
        ("name", "what", "needs", "minutes"),
        [(name, case.TITLE, case.NEEDS or "nothing", str(case.MINUTES)) for name, case in cases.items()],
        right=("minutes",),
    )


def _show(done: Reproduction) -> None:
    from tflotilla.host.reproductions.reproduction import MARKS

    output.emit_table(
        done.title,
        ("what", "published", "here", "holds"),
        [(row.what, row.published, row.ours, MARKS[row.holds]) for row in done.rows],
    )
    for remark in done.remarks:
        output.note(remark)


def _machine() -> str:
    return f"{os.cpu_count()} cores of a shared {platform.machine()} {platform.system()} machine"
