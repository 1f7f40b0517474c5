"""Findings about a source -> ``check.html``, one file in which a person looks at photos and decides about them.

Like the report it asks nobody for anything: pictures, style and script are in it, and its content security policy
forbids all others. ``check.html.j2`` is the page, ``check.js`` keeps the decisions. This module computes the values.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torchlight.training.data.corrections import Correction
from torchlight.training.evaluation.data_findings import TITLES, DataFindings, Finding, Kind
from torchlight.training.report.markup import jpeg_uri
from torchlight.training.report.report import STYLE, render_page

TEMPLATE, CHECK_STYLE, SCRIPT = (Path(__file__).with_name(name) for name in ("check.html.j2", "check.css", "check.js"))
MAX_PHOTOS = 300  # on the page, about 15 kB each
MAX_OF_KIND = 80
MAX_FILES = 200  # of each list of files without a picture
EXPLANATIONS: dict[Kind, str] = {
    "two_labels": "The same picture lies in two classes: at least one of the two labels is wrong.",
    "label": "A network that had not learnt from the photo surely takes it for another class. The surest comes first.",
    "one_colour": "Nothing is seen on them. A network learns from them that nothing is a sign of the class.",
    "unlike_all": "No other photo shows anything like it. It may be in the wrong folder, or a rare view worth keeping.",
    "unlike_class": "Other photos of the class show something else. It may be none of it, or an unusual one.",
    "blurred": "Much less detail than the other photos have. Leave out what you cannot recognise yourself.",
    "tiny": "They are enlarged for the network, which sees no detail in them.",
    "copy": "Copies add nothing, and count double. They are never learnt from and judged at the same time.",
}


def render_check(findings: DataFindings, source: str, earlier: Mapping[str, Correction]) -> str:
    """Return the page. Equal findings and decisions give equal pages.

    Args:
        source: what the user called it, for the command at the end of the page.
        earlier: decisions by file, which the page begins with.
    """
    style = STYLE.read_text(encoding="utf-8") + CHECK_STYLE.read_text(encoding="utf-8")
    script = SCRIPT.read_text(encoding="utf-8")
    sections = list(_describe_sections(findings, earlier))
    shown = {photo["file"] for section in sections for photo in section["photos"]}
    listed, unreadable = len(findings.by_photo()), findings.source.unreadable
    shown |= {note.file for note in unreadable[:MAX_FILES]}
    values = {
        "source": source,
        "name": Path(source).name,
        "style": style,
        "style_hash": _hash(style),
        "script": script,
        "script_hash": _hash(script),
        "page_id": _name_page(shown, earlier),
        "class_names": findings.source.class_names,
        "num_photos": len(findings.source.photos),
        "num_listed": listed,
        "num_shown": sum(len(section["photos"]) for section in sections),
        "sections": sections,
        "confused": [
            {
                "one": findings.source.class_names[pair.one],
                "other": findings.source.class_names[pair.other],
                "mistakes": pair.mistakes,
                "photos": pair.photos,
            }
            for pair in findings.confused
        ],
        "notes": findings.notes,
        "unreadable": [(note, earlier.get(note.file)) for note in unreadable[:MAX_FILES]],
        "num_unreadable": len(unreadable),
        "left_out": findings.source.left_out[:MAX_FILES],
        "num_left_out": len(findings.source.left_out),
        "other_decisions": [one for file, one in earlier.items() if file not in shown],
    }
    return render_page(TEMPLATE.read_text(encoding="utf-8"), values)


def _describe_sections(findings: DataFindings, earlier: Mapping[str, Correction]) -> Iterator[dict[str, Any]]:
    """Yield a section for each kind that has photos; a photo is in that of its most urgent finding."""
    room = MAX_PHOTOS
    by_photo = findings.by_photo()
    for kind, title in TITLES.items():
        found = {index: ones for index, ones in by_photo.items() if ones[0].kind == kind}
        chosen = list(found.items())[: min(room, MAX_OF_KIND)]
        room -= len(chosen)
        if found:
            yield {
                "id": kind.replace("_", "-"),
                "title": title,
                "explanation": EXPLANATIONS[kind],
                "total": len(found),
                "photos": [_describe_photo(findings, index, ones, earlier) for index, ones in chosen],
            }


def _describe_photo(
    findings: DataFindings, index: int, found: list[Finding], earlier: Mapping[str, Correction]
) -> dict[str, Any]:
    """Return what the page shows of a photo.

    Its menu of classes begins with the decision made earlier, or the suggestion; without either, with no class.
    """
    photos, class_names = findings.source.photos, findings.source.class_names
    file, given = photos.names[index], int(photos.labels[index])
    decision = earlier.get(file)
    suggested = next((class_names[one.suggestion] for one in found if one.suggestion is not None), "")
    is_changed = decision is not None and decision.action == "change class"
    likes = [one.like for one in found if one.like is not None]
    return {
        "file": file,
        "given": class_names[given],
        "suggested": decision.label if decision is not None and is_changed else suggested,
        "action": decision.action if decision is not None else "",
        "reasons": [one.reason for one in found],
        "why": "; ".join(one.reason for one in found),
        "image": jpeg_uri(photos.images[index]),
        "like": {"file": photos.names[likes[0]], "image": jpeg_uri(photos.images[likes[0]])} if likes else None,
    }


def _name_page(shown: set[str], earlier: Mapping[str, Correction]) -> str:
    """Return what the browser keeps decisions under: another page, or others to begin with, begins anew."""
    decided = [f"{one.file}\0{one.action}\0{one.label}" for one in earlier.values()]
    return hashlib.sha256("\0".join([*sorted(shown), *decided]).encode(errors="replace")).hexdigest()[:16]


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
