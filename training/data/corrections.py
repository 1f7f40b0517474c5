"""Decisions about single photos, in a CSV file that ``torchlight check`` writes and a person, or a page, fills in.

A row decides about one file: its label is right, it is of another class, or it is left out. The photos themselves are
never touched. Knows nothing of pixels.
"""

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from torchlight.model.errors import DataError
from torchlight.model.files.atomic import write_bytes
from torchlight.training.data.sources import Item, numbered_rows, printable, shorten

Action = Literal["", "right", "change class", "leave out"]  # nothing: not decided yet
ACTIONS: tuple[Action, ...] = get_args(Action)
COLUMNS = ("file", "action", "class", "why")
NEEDED = COLUMNS[:3]


@dataclass(frozen=True)
class Correction:
    """A row: what is decided about one file.

    Attributes:
        file: its path within the source.
        label: the class that it is of, if the action is ``change class``; else a suggestion, or nothing.
        why: it is listed; for the reader alone.
        line: of the file that it was read from; 0 if it was not.
    """

    file: str
    action: Action
    label: str = ""
    why: str = ""
    line: int = 0


@dataclass(frozen=True)
class CorrectedItems:
    """The items of a source as decisions leave them.

    Attributes:
        items: all of them, in their order, with the labels that they were given.
        left_out: positions of those that are to be left out.
        counts: files whose class was ``changed``, that were ``left_out``, or found ``right``.
    """

    items: Sequence[Item]
    left_out: frozenset[int]
    counts: Mapping[str, int]


NOTHING: Mapping[str, int] = {"changed": 0, "left_out": 0, "right": 0}


def read_corrections(path: Path) -> dict[str, Correction]:
    """Return the rows of a file, by the file that they are about; those without a decision too.

    UTF-8, with or without a byte order mark. The header names at least ``file``, ``action`` and ``class``, in any
    order; other columns are for the reader.

    Raises:
        DataError: the file cannot be read, a row has an unknown action or no class to change to, or two rows are about
            one file; the message names the line.
    """
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    found: dict[str, Correction] = {}
    with file:
        rows = numbered_rows(file, path.name)
        number, header = next(rows, (1, []))
        columns = [name.strip().lower() for name in header]
        if not set(NEEDED) <= set(columns):
            raise DataError(
                f"{path.name} line {number}: the header is {printable(','.join(header))!r}; it needs the columns "
                f"{', '.join(NEEDED)}, separated by commas"
            )
        for number, row in rows:
            one = _read_row(f"{path.name} line {number}", dict(zip(columns, row, strict=False)), number)
            if one.file in found:
                raise DataError(
                    f"{path.name} lines {found[one.file].line} and {number} are both about {one.file}; keep one of them"
                )
            found[one.file] = one
    return found


def _read_row(where: str, row: Mapping[str, str], number: int) -> Correction:
    file, action, label = (row.get(name, "").strip() for name in NEEDED)
    if not file:
        raise DataError(f"{where}: the column file is empty; name a file, or remove the line")
    for known in ACTIONS:
        if action.lower() == known:
            if known == "change class" and not label:
                raise DataError(f"{where}: change class needs the name of a class in the column class")
            return Correction(file, known, label, row.get("why", "").strip(), number)
    choices = ", ".join(known for known in ACTIONS if known)
    raise DataError(f"{where}: the action is {printable(action)!r}; write one of {choices}, or nothing")


def write_corrections(path: Path, rows: Iterable[Correction]) -> None:
    """Write rows as a file that spreadsheets open and :func:`read_corrections` reads.

    Raises:
        OSError: it cannot be written; an older file is untouched.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((one.file, one.action, one.label, one.why) for one in rows)
    write_bytes(path, text.getvalue().encode("utf-8-sig"))


def check_corrections(
    corrections: Mapping[str, Correction], name: str, files: Collection[str], class_names: Collection[str]
) -> None:
    """Refuse decisions about files, or changes to classes, that a source does not have.

    Args:
        name: of the file of corrections, for messages.
        files: paths within the source.

    Raises:
        DataError: naming the line.
    """
    for one in corrections.values():
        if not one.action:
            continue
        if one.file not in files:
            raise DataError(
                f"{name} line {one.line}: {printable(one.file)} is not in the source; files are named by their path "
                f"within it, such as {shorten(sorted(files), 1)}"
            )
        if one.action == "change class" and one.label not in class_names:
            raise DataError(
                f"{name} line {one.line}: there is no class {printable(one.label)!r}; the classes are "
                f"{shorten(sorted(class_names), 10)}"
            )


def correct_items(items: Sequence[Item], path: Path, class_names: Collection[str] | None = None) -> CorrectedItems:
    """Return the items of a source with the decisions in a file of corrections; their files are not touched.

    Args:
        class_names: that a label may be changed to; by default those of the items.

    Raises:
        DataError: see :func:`read_corrections` and :func:`check_corrections`.
    """
    corrections = read_corrections(path)
    known = {item.label for item in items} | set(class_names or ())
    check_corrections(corrections, path.name, {printable(item.key) for item in items}, known)
    corrected, left_out, counts = [], set(), dict(NOTHING)
    for position, item in enumerate(items):
        decision = corrections.get(printable(item.key))
        if decision is not None and decision.action == "change class":
            counts["changed"] += decision.label != item.label
            item = item._replace(label=decision.label)
        elif decision is not None and decision.action == "leave out":
            counts["left_out"] += 1
            left_out.add(position)
        elif decision is not None and decision.action == "right":
            counts["right"] += 1
        corrected.append(item)
    return CorrectedItems(corrected, frozenset(left_out), counts)


def describe_corrections(counts: Mapping[str, int]) -> str:
    """Return counts of corrections as ``3 labels changed, 1 photo left out, 2 found right``; nothing if all are 0."""
    changed, left_out, right = (counts.get(name, 0) for name in NOTHING)
    parts = [
        f"{changed} {'label' if changed == 1 else 'labels'} changed" * bool(changed),
        f"{left_out} {'photo' if left_out == 1 else 'photos'} left out" * bool(left_out),
        f"{right} found right" * bool(right),
    ]
    return ", ".join(filter(None, parts))
