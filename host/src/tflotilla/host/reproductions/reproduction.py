"""What a reproduction found, beside what was published: values, and their page in Markdown. No work is done here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure."""

    what: str
    #: As it was published; "" where nothing was.
    published: str
    ours: str
    #: Whether it holds what must hold; None where the figure is only told.
    holds: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """One case, done."""

    name: str
    title: str
    rows: tuple[Row, ...]
    #: What differs from the publication and why: data, weights, machine.
    remarks: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether no figure that must hold fails to."""
        return all(row.holds is not False for row in self.rows)


MARKS = {True: "yes", False: "NO", None: ""}


def markdown(done: Iterable[Reproduction], machine: str) -> str:
    """Render a whole page; `machine` says what it was measured on."""
    parts = [
        "# Published figures, reproduced",
        "What `tflotilla reproduce NAME` gave; `--output` writes this page. Sizes are in MB of 10^6 bytes unless "
        f"otherwise said. Measured on {machine}.",
    ]
    for each in done:
        parts += [
            f"## {each.title}",
            f"`tflotilla reproduce {each.name}`",
            "\n".join(
                [
                    "| what | published | here | holds |",
                    "| --- | --- | --- | --- |",
                    *(
                        f"| {_cell(row.what)} | {_cell(row.published)} | {_cell(row.ours)} | {MARKS[row.holds]} |"
                        for row in each.rows
                    ),
                ]
            ),
        ]
        if each.remarks:
            parts.append("\n".join(f"- {remark}" for remark in each.remarks))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def megabytes(size_bytes: float) -> str:
    """Spell a size as the publications do."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"  # noqa: PLR2004 - one MB
