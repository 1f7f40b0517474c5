"""Tables that can be read in a terminal and written as Markdown, and the limits that a run must keep."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

KEPT, MISSED = "kept", "MISSED"


@dataclass(frozen=True)
class Sheet:
    """A table; every cell is text already."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Check:
    """One thing that must be so."""

    what: str
    measured: str
    limit: str
    is_kept: bool


@dataclass(frozen=True)
class Report:
    """All that a run has to say."""

    title: str
    summary: str
    sheets: Sequence[Sheet]
    checks: Sequence[Check]

    @property
    def exit_code(self) -> int:
        """0 if all limits were kept, else 1."""
        return 0 if all(check.is_kept for check in self.checks) else 1

    def show(self, console: Console) -> None:
        """Print the tables."""
        console.print(self.summary, highlight=False, soft_wrap=True)
        for sheet in self._all():
            table = Table(*map(escape, sheet.head), title=sheet.title, title_justify="left", box=None)
            for row in sheet.rows:
                table.add_row(*(f"[bold red]{cell}[/]" if cell == MISSED else escape(cell) for cell in row))
            console.print(table, "", highlight=False)

    def markdown(self, command: str, picture: str | None = None) -> str:
        """Return the page, which says what made it."""
        parts = [f"# {self.title}", f"Made by `{command}`.", self.summary]
        parts += [f"![{self.title}]({picture})"] if picture else []
        for sheet in self._all():
            parts += [f"## {sheet.title}", "\n".join(_lines(sheet))]
        return "\n\n".join(parts) + "\n"

    def _all(self) -> list[Sheet]:
        verdicts = [(one.what, one.measured, one.limit, KEPT if one.is_kept else MISSED) for one in self.checks]
        return [Sheet("Limits", ("what", "measured", "limit", ""), verdicts), *self.sheets]


def finish(report: Report, console: Console, command: str, markdown: Path | None, picture: Path | None = None) -> int:
    """Print the report, write it where that is wanted, and return the exit code."""
    report.show(console)
    if markdown is not None:
        beside = os.path.relpath(picture, markdown.parent) if picture is not None else None
        markdown.write_text(report.markdown(command, beside))
    for path in filter(None, (markdown, picture)):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    return report.exit_code


def _lines(sheet: Sheet) -> Iterable[str]:
    yield f"| {' | '.join(sheet.head)} |"
    yield "|---" * len(sheet.head) + "|"
    for row in sheet.rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
