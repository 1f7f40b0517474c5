"""The laws of who may import whom, read from the source: nothing is run but one import in a process of its own."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "model", "training")
COMMAND = ("torchlight.command", "torchlight.commands")
# Rooms from the ground up: a room imports its own modules and those of the floors below it. Rooms of one floor do not
# import each other.
FLOORS = {
    "app": (
        ("errors",),
        ("telemetry",),
        ("security",),
        ("settings",),
        ("inference",),
        ("inspection",),
        ("api",),
        ("middleware",),
        ("main",),
        ("server",),
    ),
    "model": (
        ("errors", "defaults", "versions", "efficientnet_lite"),
        ("files", "named_checkpoints", "uncertainty"),
        ("images", "published_weights"),
        ("network",),
        ("uncertainty",),
        ("checkpoint",),
        ("graph",),
        ("classifier",),
        ("imagenet",),
        ("views",),
        ("canary",),
        ("drawing",),
        ("engines", "checks"),
    ),
    "training": (
        ("config",),
        ("data",),
        ("evaluation",),
        ("optimisation",),
        ("transfer",),
        ("report",),
        ("run_setup", "index_images", "int8_calibration"),
        ("run_folder", "lr_finder"),
        ("run", "run_transfer"),
        ("run_check", "run_calibrate"),
    ),
}
FILES = [file for name in (*PACKAGES, "torchlight") for file in (ROOT / name).rglob("*.py")]
TREES = {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text()) for file in sorted(FILES)}


def module_of(path: str) -> str:
    """Return the name that a file is imported by: ``app/main.py`` is ``torchlight.app.main``."""
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.startswith("torchlight") else f"torchlight.{name}"


MODULES = {module_of(path): path for path in TREES}


def imports(path: str) -> Iterator[str]:
    """Yield every name imported anywhere in the file; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: say where {node.module} is, from the root"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def our_imports(path: str) -> set[str]:
    """Return the modules of ours that a file imports, by their names."""
    return {part for name in imports(path) for part in (name, name.rpartition(".")[0]) if part in MODULES}


def importers(*packages: str) -> set[str]:
    """Return the files that import one of the packages, such as ``numpy`` or ``torchlight.app``."""
    return {path for path in TREES for name in imports(path) if f"{name}.".startswith(tuple(f"{p}." for p in packages))}


def in_package(name: str) -> set[str]:
    return {path for path in TREES if path.startswith(f"{name}/")}


def room_of(module: str) -> tuple[str, str]:
    """Return package and room: ``torchlight.app.api.uploads`` is in ("app", "api")."""
    _, package, *rest = module.split(".")
    return package, rest[0] if rest else ""


@pytest.mark.parametrize(
    ("package", "forbidden"), [("model", ("app", "training")), ("app", ("training",)), ("training", ("app",))]
)
def test_app_and_training_import_model_and_nothing_else_of_ours(package: str, forbidden: tuple[str, ...]) -> None:
    assert not in_package(package) & importers(*(f"torchlight.{name}" for name in forbidden), *COMMAND)


def test_only_the_command_knows_both_app_and_training() -> None:
    both = importers("torchlight.app") & importers("torchlight.training")
    commands = {path for path in in_package("torchlight") if path.startswith("torchlight/command")}
    assert both <= commands
    assert {f"torchlight.{name}" for name in PACKAGES} <= {
        ".".join(used.split(".")[:2]) for path in commands for used in our_imports(path)
    }


def loaded_by(modules: str, packages: set[str]) -> set[str]:
    """Return which of the packages an interpreter has loaded once it has imported the modules."""
    program = f"import sys, {modules}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return packages & set(done.stdout.split())


def test_help_of_the_command_needs_neither_torch_nor_http() -> None:
    assert loaded_by("torchlight.command", {"torch", "numpy", "PIL", "fastapi", "pydantic"}) == set()


def test_no_module_imports_itself_on_a_detour() -> None:
    packages = {module for module, path in MODULES.items() if path.endswith("__init__.py")}
    TopologicalSorter({module: our_imports(path) - packages for module, path in MODULES.items()}).prepare()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_has_a_floor(package: str) -> None:
    rooms = {room_of(module_of(path))[1] for path in in_package(package)} - {""}
    assert rooms == {room for floor in FLOORS[package] for room in floor}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_runs_up(package: str) -> None:
    floor_of = {room: number for number, floor in enumerate(FLOORS[package]) for room in floor}
    upward = [
        f"{path} (floor {floor_of[room]}) imports {used} (floor {floor_of[other]})"
        for path in sorted(in_package(package))
        for room in [room_of(module_of(path))[1]]
        for used in sorted(our_imports(path))
        for used_package, other in [room_of(used) if "." in used else ("", "")]
        if used_package == package and room and other and other != room and floor_of[other] >= floor_of[room]
    ]
    assert not upward, "\n".join(upward)


def test_no_route_module_imports_another() -> None:
    routes = {path for path in TREES if path.startswith("app/api/routes/")}
    others = {path: {one for one in our_imports(path) if ".api.routes." in one} for path in sorted(routes)}
    assert not any(others.values()), others


def test_a_base_name_stands_for_one_thing() -> None:
    counts = Counter(Path(path).stem for path in TREES if not path.startswith("torchlight/"))
    assert {name for name, count in counts.items() if count > 1} == {"__init__", "errors"}


def test_files_of_tests_have_names_of_their_own() -> None:
    """Else pytest collects none of those that share one."""
    counts = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in counts.items() if count > 1] == []


def test_limits_of_http_can_be_imported_without_torch() -> None:
    modules = "torchlight.app.server.http_protocol, torchlight.app.middleware.body_limits"
    assert loaded_by(modules, {"torch", "numpy", "PIL"}) == set()


def test_only_app_knows_http() -> None:
    assert importers("fastapi", "starlette", "uvicorn", "pydantic") <= in_package("app")


def test_inference_knows_no_http() -> None:
    assert not {path for path in TREES if path.startswith("app/inference/")} & importers(
        "fastapi", "starlette", "uvicorn", "http"
    )


def test_only_the_command_imports_the_server() -> None:
    users = {path for path in importers("torchlight.app.server") if not path.startswith("app/server/")}
    assert users == {"torchlight/commands/serve.py"}


def test_the_batcher_knows_neither_torch_nor_http() -> None:
    assert "app/inference/batcher.py" not in importers("torch", "fastapi", "starlette", "numpy", "PIL")


def test_only_images_and_rendering_use_pillow() -> None:
    assert importers("PIL") == {"model/images.py", "model/drawing/rendering.py"}


def test_only_settings_reads_the_environment() -> None:
    def reads_environment(tree: ast.Module) -> bool:
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        return bool(names & {"environ", "environb", "getenv", "putenv", "BaseSettings"})

    assert {path for path, tree in TREES.items() if reads_environment(tree)} == {"app/settings.py"}


def is_declaration(node: ast.stmt) -> bool:
    """Return whether a statement of a module only names things."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)  # a docstring
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return isinstance(node, kinds)


def test_importing_a_module_does_nothing_else() -> None:
    busy = [
        f"{path}:{node.lineno}" for path, tree in TREES.items() for node in tree.body
        if not is_declaration(node)
    ]  # fmt: skip
    assert not busy, f"these act when they are imported: {busy}"


def test_no_module_opens_or_starts_anything_in_an_assignment() -> None:
    harmful = ("open", "read_text", "read_bytes", "mkdir", "Thread", "ThreadPoolExecutor", "Popen", "Settings", "load")
    acting = [
        f"{path}:{call.lineno}"
        for path, tree in TREES.items()
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] in harmful
    ]
    assert not acting
