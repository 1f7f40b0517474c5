"""What comes from others: no version with a known hole is allowed, all of it is pinned, audited and listed."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
DEPENDENCIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
ALLOWED = {requirement.name: requirement.specifier for requirement in map(Requirement, DEPENDENCIES)}
FILES = ("requirements.txt", "requirements-dev.txt")
# The last release with a hole that a client of ours, or a file given to us, could reach.
LAST_WITH_A_HOLE = {
    "starlette": ("1.3.0", "CVE-2026-54283: limits of forms ignored; CVE-2026-48710: the header Host poisons paths"),
    "python-multipart": ("0.0.26", "CVE-2026-42561: headers of a form's parts are unbounded"),
    "pillow": ("12.2.0", "CVE-2026-59199, -59203, -59204, -59205: writes, loops and memory while decoding"),
    "torch": ("2.9.1", "GHSA-63cw-57p8-fm3p and CVE-2025-32434: weights_only loading ran code"),
}


def pinned(file: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / file).read_text(), re.MULTILINE))


@pytest.mark.parametrize(("name", "last", "hole"), [(name, *hole) for name, hole in LAST_WITH_A_HOLE.items()])
def test_no_version_with_a_known_hole_is_allowed_pinned_or_installed(name: str, last: str, hole: str) -> None:
    assert not ALLOWED[name].contains(last), hole
    assert Version(version(name)) > Version(last), hole
    for file in FILES:
        assert Version(pinned(file)[name]) > Version(last), hole


@pytest.mark.parametrize("file", FILES)
def test_every_requirement_is_pinned_with_hashes_and_names_no_index(file: str) -> None:
    text = (ROOT / file).read_text()
    entries = re.split(r"^(?=[\w])", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 30
    assert [
        entry for entry in entries if not re.match(r"[\w.-]+==[\w.+]+.*\\\n +--hash=sha256:[0-9a-f]{64}", entry)
    ] == []
    assert "://" not in text


def test_what_the_project_needs_is_pinned() -> None:
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in ALLOWED}
    assert names <= set(pinned("requirements.txt"))


HOLE = {"id": "CVE-2026-0001", "fix_versions": ["2.0"]}
GOOD = {"name": "a", "version": "1.0", "vulns": []}
BAD = {"name": "b", "version": "1.0", "vulns": [HOLE]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found"}


@pytest.fixture
def audit(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the audit with a pip-audit that says of the probe, and then of everything, what it is told to."""

    def run(probe: str, everything: str = "") -> subprocess.CompletedProcess[str]:
        (tmp_path / "probe").write_text(probe)
        (tmp_path / "all").write_text(everything)
        (tmp_path / "requirements.txt").write_text("a==1.0 --hash=sha256:0\nb==1.0\nc==1.0\n")
        fake = tmp_path / "pip-audit"
        fake.write_text(f'#!/bin/sh\ncase "$*" in *probe.txt) cat {tmp_path}/probe;; *) cat {tmp_path}/all;; esac\n')
        fake.chmod(0o755)
        command = [sys.executable, ".ci/audit.py", str(fake), str(tmp_path / "requirements.txt")]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    return run


def saying(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_a_known_vulnerability_fails_the_check(audit: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = audit(saying(GOOD), saying(GOOD, BAD, SKIPPED))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "audit: b 1.0 has CVE-2026-0001; fixed in 2.0",
        "audit: NOT DONE for c: Dependency not found",
        "audit: 2 packages looked up, 1 vulnerabilities known",
    ]


def test_nothing_known_is_a_success(audit: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = audit(saying(GOOD), saying(GOOD, GOOD))
    assert (done.returncode, done.stdout) == (0, "audit: 2 packages looked up, 0 vulnerabilities known\n")


@pytest.mark.parametrize("answer", ["", "no network", saying({**SKIPPED, "name": "a"})])
def test_without_data_the_audit_says_that_it_was_not_done(
    audit: Callable[..., subprocess.CompletedProcess[str]], answer: str
) -> None:
    done = audit(answer)
    assert done.returncode == 0
    assert done.stdout.startswith("audit: NOT DONE, no vulnerability data can be had from here:\n  pypi: ")


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., Path]:
    """Write a program that appends its arguments to ``tmp_path/calls`` and fails if the first one is told to."""

    def write(name: str, failing: str = "nothing") -> Path:
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\ntest "$1" != {failing}\n')
        program.chmod(0o755)
        return program

    return write


@pytest.mark.parametrize(
    ("failing", "calls"),
    [("nothing", ["check", "test"]), ("check", ["check"]), ("test", ["check", "test"])],
)
def test_continuous_integration_checks_and_tests_and_fails_with_either(
    failing: str, calls: list[str], fake: Callable[..., Path], tmp_path: Path
) -> None:
    fake("make", failing)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([ROOT / ".ci" / "run"], env=environment, timeout=60, check=False)
    assert (tmp_path / "calls").read_text().split() == calls
    assert (done.returncode == 0) is (failing == "nothing")


def test_with_an_index_of_cpu_builds_nothing_comes_for_gpus_and_all_else_with_its_hash(
    fake: Callable[..., Path], tmp_path: Path
) -> None:
    fake("pip").write_text(
        f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\ntest "$5" && cat "$5" >>{tmp_path}/others; true\n'
    )
    command = [ROOT / ".ci" / "install-requirements", tmp_path / "pip", ROOT / "requirements.txt"]
    subprocess.run(command, timeout=60, check=True)
    assert (tmp_path / "calls").read_text() == f"install --require-hashes --requirement {ROOT}/requirements.txt\n"
    (tmp_path / "calls").unlink()
    subprocess.run([*command, "cpu-builds"], timeout=60, check=True)
    first, second, last = (tmp_path / "calls").read_text().splitlines()
    assert first.startswith("install --require-hashes --no-deps --requirement ")
    torch, torchvision = (pinned("requirements.txt")[name] for name in ("torch", "torchvision"))
    assert second == f"install --no-deps --index-url cpu-builds torch=={torch} torchvision=={torchvision}"
    assert last == "check"
    others = set(re.findall(r"^([\w.-]+)==", (tmp_path / "others").read_text(), re.MULTILINE))
    left_out = set(pinned("requirements.txt")) - others
    assert {"torch", "torchvision"} <= left_out
    assert all(re.match("torch|torchvision|triton|cuda-|nvidia-", name) for name in left_out)


@pytest.mark.slow
def test_the_bill_of_materials_lists_every_pinned_package_with_its_version(tmp_path: Path) -> None:
    made = tmp_path / "sbom.cdx.json"
    command = ["make", f"--old-file={sys.prefix}/.dev", "sbom", f"SBOM={made}", f"VENV={sys.prefix}"]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=True)
    bill = json.loads(made.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert {part["name"]: part["version"] for part in bill["components"]} == pinned("requirements.txt")


def test_the_composed_container_may_do_nothing_that_it_need_not() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges"]
        assert service["pids_limit"] > 0
        assert all(volume.endswith(":ro") for volume in service["volumes"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert "privileged" not in service


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert all(int(number) >= 10_000 for number in user)
