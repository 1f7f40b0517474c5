"""What the documentation names exists: files, functions, links, commands, options, settings, routes, codes, constants.

The tables of metrics (``tests/test_deployed_monitoring.py``), settings (``tests/app/test_settings.py``), forms
(``tests/app/api/test_api_docs.py``) and views (``tests/test_views_page.py``) have tests of their own.
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from torchlight.app.api.problems import CODES, TABLE
from torchlight.app.api.schemas import PredictResponse
from torchlight.app.inference.priority import COMPUTING, DECODING
from torchlight.app.main import create_app
from torchlight.app.middleware.body_limits import PROGRESS_BYTES
from torchlight.app.security.api_keys import MIN_CHARACTERS
from torchlight.app.security.rate_limit import MAX_CLIENTS
from torchlight.app.server.http_protocol import HEAD_TIMEOUT_S
from torchlight.app.server.supervisor import FIRST_PAUSE_S, LONGEST_PAUSE_S
from torchlight.app.settings import KEEP_ALIVE_S, Settings
from torchlight.app.telemetry.metrics import COUNTERS, GAUGES, HISTOGRAMS
from torchlight.command import make_cli
from torchlight.model import canary
from torchlight.model.defaults import MAX_PIXELS, PRETRAINED
from torchlight.model.engines import parity
from torchlight.model.images import MAX_SCANS
from torchlight.model.uncertainty.drift import ALARM_ODDS, LEAST, POWER, RECENT, WINDOW
from torchlight.training.data.duplicates import MAX_PAIRS_PER_IMAGE, MIN_CORRELATION, MIN_EXPLAINED

ROOT = Path(__file__).parents[1]
ROOMS = ("app", "model", "training", "torchlight", "tests", "benchmarks", "stress", "deploy", "docs", ".ci")
GENERATED_NAMES = (
    "drift",
    "faults",
    "hostile",
    "lifecycle",
    "overload",
    "own-photos-results",
    "serving",
    "serving-efficientnet",
    "serving-resnet18",
    "soak",
    "unknown",
)
GENERATED = {f"docs/{name}.md" for name in GENERATED_NAMES}
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("model/**/*.md")])
}
NOT_WRAPPED = {"CHANGELOG.md", "model/pretrained/MODEL_CARD.md"}
CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINE_LENGTH = 120


def code_spans(text: str) -> list[str]:
    """Return what stands between backticks in the prose, and each line of the code blocks."""
    blocks = [line for block in CODE_BLOCK.findall(text) for line in block.splitlines()[1:-1]]
    return blocks + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", CODE_BLOCK.sub("", text))]


def expand(path: str) -> Iterator[str]:
    """Yield the paths that ``a/{b,c}.py`` stands for."""
    if found := re.search(r"\{([^}]*)\}", path):
        for part in found[1].split(","):
            yield from expand(path.replace(found[0], part, 1))
    else:
        yield path


@cache
def defined_in(path: str) -> set[str]:
    """Return the names of the functions, classes, methods, fields and constants of a module, as ``Class.method``."""
    names: set[str] = set()

    def add(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    add(node.body, f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                names.update(prefix + name.id for name in ast.walk(target or node) if target and type(name) is ast.Name)

    add(ast.parse((ROOT / path).read_text()).body, "")
    return names


def test_files_named_on_a_page_exist() -> None:
    start = rf"(?<!\S)(?:{'|'.join(map(re.escape, ROOMS))})/\S*"
    missing = [
        f"{page}: {path}"
        for page, text in PAGES.items()
        for span in code_spans(text)
        for word in re.findall(start, span)
        for path in expand(word.rstrip(".,:;)"))
        if not list(ROOT.glob(path.rstrip("/")))
    ]
    assert missing == []


def test_links_lead_to_pages_and_headings_that_exist() -> None:
    broken = []
    for page, text in PAGES.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", CODE_BLOCK.sub("", text)):
            path, _, anchor = link.partition("#")
            target = (ROOT / page).parent / path if path else ROOT / page
            if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target.read_text()))):
                broken.append(f"{page}: {link}")
    assert broken == []


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of the headings."""
    titles = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_functions_named_in_the_architecture_exist_in_the_file_named_before_them() -> None:
    missing = []
    checked = 0
    for cell in re.split(r"\||\n(?=\n|[|#-])", PAGES["ARCHITECTURE.md"]):  # cells, paragraphs, points of a list
        path = None
        for span in re.findall(r"`([^`]+)`", cell):
            if "/" in span:
                path = span if span.endswith(".py") and "{" not in span else None
            elif path and re.fullmatch(r"[A-Za-z_][\w.]*", span) and not span.startswith("TORCHLIGHT_"):
                checked += 1
                missing += [f"{path} {span}"] * (span not in defined_in(path))
    assert missing == []
    assert checked > 50


def test_modules_and_make_targets_named_on_a_page_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    missing = []
    for page, text in PAGES.items():
        for span in code_spans(text):
            for module in re.findall(r"python -m ([\w.]+)", span):
                path = ROOT / module.replace(".", "/")
                missing += [f"{page}: {module}"] * (not (path.with_suffix(".py").is_file() or path.is_dir()))
            for target in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)", span):
                missing += [f"{page}: {target}"] * (not re.search(rf"^{target}:", makefile, re.MULTILINE))
    assert missing == []


@cache
def commands() -> dict[str, set[str]]:
    """Return the options of each command of ``torchlight``; the name "" stands for the command itself."""
    group = get_command(make_cli())
    assert isinstance(group, TyperGroup)
    options = {
        name: {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for name, command in group.commands.items()
    }
    return {"": {"--help"}, **options}


def test_torchlight_commands_named_on_a_page_exist_and_have_the_options() -> None:
    unknown = []
    for page, text in PAGES.items():
        for span in code_spans(text):
            for line in re.findall(r"(?:^|[\s/])torchlight ((?:[a-z]|--)[^|;&#]*)", span):
                name, *words = [""] * line.startswith("--") + line.split()
                options = commands().get(name, set())
                unknown += [f"{page}: torchlight {line}"] * (name not in commands())
                unknown += [f"{page}: {name} {word}" for word in words if word.startswith("--") and word not in options]
    assert unknown == []


def test_options_named_alone_are_options_of_some_command() -> None:
    of_others = {"--markdown", "--init"}  # of the measuring programs, of docker
    known = set().union(of_others, *commands().values())
    named = {(page, span.split()[0]) for page, text in PAGES.items() for span in code_spans(CODE_BLOCK.sub("", text))}
    assert [f"{page}: {word}" for page, word in named if word.startswith("--") and word not in known] == []


def test_settings_and_metrics_named_on_a_page_exist() -> None:
    settings = {f"TORCHLIGHT_{name.upper()}" for name in Settings.model_fields}
    metrics = {metric.name for metric in (*COUNTERS, *GAUGES, *HISTOGRAMS)}
    unknown = []
    for page, text in PAGES.items():
        unknown += [f"{page}: {name}" for name in re.findall(r"\bTORCHLIGHT_[A-Z_]+", text) if name not in settings]
        for name in re.findall(r"`(torchlight_\w+)", text):
            unknown += [f"{page}: {name}"] * (re.sub(r"_(total|bucket|sum|count)$", "", name) not in metrics)
    assert unknown == []


def test_routes_named_on_a_page_exist(tmp_path: Path) -> None:
    paths = create_app(Settings(store_dir=tmp_path)).openapi()["paths"]
    patterns = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + r"(\.(png|json|npy))?") for path in paths]
    unknown = [
        f"{page}: {path}"
        for page, text in PAGES.items()
        for span in code_spans(text)
        for path in re.findall(r"(?:(?<=\s)|^|:8000|URL)(/v1/[^\s\"'?]+)", span)
        if "*" not in path and not any(pattern.fullmatch(path) for pattern in patterns)
    ]
    assert unknown == []


def test_error_codes_in_the_api_page_are_those_of_the_service() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.+?) \|", PAGES["docs/api.md"], re.MULTILINE)
    listed = [(int(status), code) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)]
    assert sorted(code for _, code in listed) == sorted(CODES)
    assert set(TABLE.values()) <= set(listed)


def test_the_answer_in_the_readme_is_one_of_the_checkpoint_that_ships() -> None:
    (line,) = re.findall(r'^\{"predictions".*$', PAGES["README.md"], re.MULTILINE)
    answer = PredictResponse.model_validate_json(line)
    assert answer.model.digest == f"sha256:{hashlib.sha256(PRETRAINED.read_bytes()).hexdigest()}"
    assert answer.image.id == f"sha256:{hashlib.sha256((ROOT / 'docs/pictures/ship.jpg').read_bytes()).hexdigest()}"


CONSTANTS = {
    f"decoders run at niceness {DECODING} and the network and the views at {COMPUTING}": "docs/operations.md",
    f"| decoders | {DECODING} |": "docs/decisions/serving.md",
    f"| the network and the views | {COMPUTING} |": "docs/decisions/serving.md",
    f"Idle connections stay for {KEEP_ALIVE_S} s": "docs/operations.md",
    f"repeated every {LONGEST_PAUSE_S:g} s": "docs/operations.md",
    f"tried again after {FIRST_PAUSE_S:g}, {2 * FIRST_PAUSE_S:g}, {4 * FIRST_PAUSE_S:g} ... {LONGEST_PAUSE_S:g} s": (
        "docs/operations.md"
    ),
    f"the key itself ({MIN_CHARACTERS} characters or more)": "docs/operations.md",
    f"within {canary.TOLERANCE:g}": "docs/operations.md",
    f"before {LEAST} images are answered": "docs/operations.md",
    f"its part of the {WINDOW} images": "docs/operations.md",
    f"among the last {RECENT} that a process has counted": "docs/operations.md",
    f"is N / {ALARM_ODDS:,.0f} at most": "docs/operations.md",
    f"the odds by `{POWER} * p ** {POWER - 1:.1f}`": "docs/decisions/uncertainty.md",
    f"compares each probability, within {canary.TOLERANCE:g}": "docs/decisions/checkpoint.md",
    f"a key has at least {MIN_CHARACTERS} characters": "docs/decisions/access.md",
    f"At most {MAX_CLIENTS:,} clients are remembered": "docs/decisions/access.md",
    f"have to bring {PROGRESS_BYTES // 1000} kB": "docs/decisions/serving.md",
    f"has {HEAD_TIMEOUT_S:g} seconds for the next request's headers": "docs/decisions/serving.md",
    f"differs by more than {parity.TOLERANCE * 1e4:g}e-4": "docs/decisions/export.md",
    f"a difference above {parity.TOLERANCE * 1e4:g}e-4": "docs/decisions/serving.md",
    f"differs from PyTorch by at most {parity.TOLERANCE * 1e4:g}e-4": "ARCHITECTURE.md",
    f"after {HEAD_TIMEOUT_S:g} s the connection ends": "ARCHITECTURE.md",
    f"dropped**, for {HEAD_TIMEOUT_S:g} s at most": "docs/decisions/serving.md",
    f"JPEGs of more than {MAX_SCANS} scans": "docs/decisions/images.md",
    f"at {MAX_PIXELS / 1e6:g} megapixels by default": "docs/decisions/images.md",
    f"correlate by at least {MIN_CORRELATION:g}": "docs/decisions/data.md",
    f"explains at least {MIN_EXPLAINED:.0%}": "docs/decisions/data.md",
    f"more than {MAX_PAIRS_PER_IMAGE} candidates an image": "docs/decisions/data.md",
}


@pytest.mark.parametrize(("sentence", "page"), CONSTANTS.items())
def test_constants_quoted_on_a_page_are_those_of_the_code(sentence: str, page: str) -> None:
    assert sentence in " ".join(PAGES[page].split())


def test_prose_fits_on_a_screen() -> None:
    """Table rows, code, headings and lines with a link cannot always be broken; everything else can."""
    long = []
    for page in sorted(PAGES.keys() - GENERATED - NOT_WRAPPED):
        lines = CODE_BLOCK.sub("", PAGES[page]).splitlines()
        prose = [line for line in lines if not line.startswith(("|", "#", "![")) and "](" not in line]
        long += [f"{page}: {line}" for line in prose if len(line) > LINE_LENGTH]
    assert long == []


def test_tables_are_whole() -> None:
    """A table is a heading, a line of dashes, and rows with as many cells; a blank line within would end it."""
    broken = []
    for page, text in PAGES.items():
        for table in re.findall(r"(?:^\|.*\n)+", CODE_BLOCK.sub("", text), re.MULTILINE):
            rows = table.splitlines()
            cells = {len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in rows}
            is_whole = len(rows) > 1 and re.fullmatch(r"\|([ :-]+\|)+", rows[1]) is not None
            broken += [f"{page}: {rows[0]}"] * (not is_whole or len(cells) > 1)
    assert broken == []


def test_every_decision_begins_with_the_decision_and_is_listed() -> None:
    pages = {page: text for page, text in PAGES.items() if page.startswith("docs/decisions/")}
    listed = set(re.findall(r"^\| \[\w+\]\((\w+\.md)\)", pages.pop("docs/decisions/README.md"), re.MULTILINE))
    assert listed == {page.rpartition("/")[2] for page in pages}
    bodies = {page: re.sub(r"\A# .*\n+(?:## .*\n+)?", "", text) for page, text in pages.items()}
    assert [page for page, body in bodies.items() if not body.startswith("**")] == []


def test_every_entry_of_the_log_is_in_its_table_and_begins_with_its_conclusion() -> None:
    contents, *entries = re.split(r"(?m)^## ", PAGES["docs/log.md"])
    assert re.findall(r"\(#([^)]+)\)", contents) == [
        re.sub(r"[^\w\- ]", "", entry.splitlines()[0].lower()).replace(" ", "-") for entry in entries
    ]
    assert [entry.splitlines()[0] for entry in entries if not entry.splitlines()[2].startswith("**")] == []
