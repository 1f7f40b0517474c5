"""Looks the pinned requirements up in a database of known vulnerabilities, where one can be reached.

    python .ci/audit.py pip-audit requirements.txt

Ends with 1 if one is known. Without data it says so and ends with 0, so that the other checks can be made without a
network. What counts is what pip-audit says of each package: where a mirror has no such data, it ends with 0 and finds
"no known vulnerabilities" in none.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SERVICES = ("pypi", "osv")
TIMEOUT_S = 600


def main(command: str, requirements: Path) -> int:
    """Audit with the first service that has data on one of the requirements; return the exit status."""
    reasons = []
    for service in SERVICES:
        reason = why_not(command, service, requirements)
        if not reason:
            return report(ask(command, service, requirements))
        reasons.append(f"{service}: {reason}")
    print("audit: NOT DONE, no vulnerability data can be had from here:", *reasons, sep="\n  ")
    return 0


def why_not(command: str, service: str, requirements: Path) -> str:
    """Return why the service cannot be used, found out with one package; empty if it can."""
    first = re.search(r"^[\w.-]+==[\w.]+", requirements.read_text(), re.MULTILINE)
    assert first, f"{requirements} pins nothing"
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.txt"
        probe.write_text(f"{first[0]}\n")
        answer = ask(command, service, probe)
    return answer if isinstance(answer, str) else next((one["skip_reason"] for one in answer if is_skipped(one)), "")


def ask(command: str, service: str, requirements: Path) -> list[dict[str, Any]] | str:
    """Return what pip-audit says of each package, or why it says nothing."""
    options = ["--disable-pip", "--no-deps", "--format", "json", "--progress-spinner", "off"]
    full = [command, *options, "--vulnerability-service", service, "--requirement", str(requirements)]
    try:
        done = subprocess.run(full, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT_S} s"
    if not done.stdout.startswith("{"):
        return (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
    packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    return packages


def report(answer: list[dict[str, Any]] | str) -> int:
    """Print what was found and what was not looked at; return the exit status."""
    if isinstance(answer, str):
        print(f"audit: NOT DONE, it broke off: {answer}")
        return 0
    found = [(one, hole) for one in answer for hole in one.get("vulns", [])]
    for package, hole in found:
        fixed = ", ".join(hole["fix_versions"]) or "no version yet"
        print(f"audit: {package['name']} {package['version']} has {hole['id']}; fixed in {fixed}")
    for package in filter(is_skipped, answer):
        print(f"audit: NOT DONE for {package['name']}: {package['skip_reason']}")
    print(f"audit: {sum(not is_skipped(one) for one in answer)} packages looked up, {len(found)} vulnerabilities known")
    return int(bool(found))


def is_skipped(package: dict[str, Any]) -> bool:
    """Whether there was no data on it."""
    return "skip_reason" in package


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
