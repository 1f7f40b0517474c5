"""The laws of who may import whom, read from the source: nothing is run."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    ROOT / "torchlight.py",
    *(file for name in ("app", "model", "training") for file in (ROOT / name).rglob("*.py")),
]
TREES = {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text()) for file in sorted(FILES)}


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(path): path for path in TREES}


def imports(path: str) -> Iterator[str]:
    """Yield every name imported anywhere in the file; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: say where {node.module} is, from the root"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(*packages: str) -> set[str]:
    """Return the files that import one of the packages."""
    return {path for path in TREES for name in imports(path) if name.split(".")[0] in packages}


def in_package(name: str) -> set[str]:
    return {path for path in TREES if path.startswith(f"{name}/")}


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("model", ("app", "training", "torchlight")),
        ("app", ("training", "torchlight")),
        ("training", ("app", "torchlight")),
    ],
)
def test_app_and_training_import_model_and_nothing_else_of_ours(package: str, forbidden: tuple[str, ...]) -> None:
    assert not in_package(package) & importers(*forbidden)


def test_no_module_imports_itself_on_a_detour() -> None:
    def ours(name: str) -> Iterator[str]:
        yield from (candidate for candidate in (name, name.rpartition(".")[0]) if candidate in MODULES)

    graph = {module: {used for name in imports(path) for used in ours(name)} for module, path in MODULES.items()}
    packages = {module for module, path in MODULES.items() if path.endswith("__init__.py")}
    TopologicalSorter({module: used - packages for module, used in graph.items()}).prepare()  # raises CycleError


def test_only_app_knows_http() -> None:
    assert importers("fastapi", "starlette", "uvicorn", "pydantic") <= in_package("app")


def test_the_batcher_and_the_workers_know_neither_torch_nor_http() -> None:
    assert not {"app/batcher.py", "app/workers.py"} & importers("torch", "fastapi", "starlette", "numpy", "PIL")


def test_only_images_and_rendering_use_pillow() -> None:
    assert importers("PIL") == {"model/images.py", "model/rendering.py"}


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


@pytest.mark.parametrize("path", TREES)
def test_importing_a_module_does_nothing_else(path: str) -> None:
    busy = [node.lineno for node in TREES[path].body if not is_declaration(node)]
    assert not busy, f"{path} acts when it is imported, in lines {busy}"


@pytest.mark.parametrize("path", TREES)
def test_no_module_opens_or_starts_anything_in_an_assignment(path: str) -> None:
    assignments = [node for node in TREES[path].body if isinstance(node, ast.Assign | ast.AnnAssign)]
    calls = {ast.unparse(call.func) for node in assignments for call in ast.walk(node) if isinstance(call, ast.Call)}
    harmful = ("open", "read_text", "read_bytes", "mkdir", "Thread", "ThreadPoolExecutor", "Popen", "Settings", "load")
    assert not {call for call in calls if call.split(".")[-1] in harmful}
