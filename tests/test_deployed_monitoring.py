"""The dashboard and the alerts ask only for metrics and labels that the service has, and the table lists them all."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from torchlight.app.api.problems import CODES
from torchlight.app.telemetry.metrics import COUNTERS, GAUGES, HISTOGRAMS

DEPLOY = Path(__file__).parents[1] / "deploy"
BY_PROMETHEUS = {"job", "instance"}
LABELS = {
    "up": BY_PROMETHEUS,
    **{f"{one.name}_total": {*one.labels, *BY_PROMETHEUS} for one in COUNTERS},
    **{one.name: {*one.labels, *BY_PROMETHEUS} for one in GAUGES},
    **{f"{one.name}_bucket": {*one.labels, "le", *BY_PROMETHEUS} for one in HISTOGRAMS},
    **{f"{one.name}_{part}": {*one.labels, *BY_PROMETHEUS} for one in HISTOGRAMS for part in ("sum", "count")},
}
SELECTOR = re.compile(r"\b(torchlight_\w+|process_\w+|up)\b(?:\{([^}]*)\})?")


def dashboard() -> Any:
    return json.loads((DEPLOY / "grafana" / "torchlight.json").read_text())


def rules() -> list[Any]:
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    found: list[Any] = group["rules"]
    return found


def expressions() -> Iterator[str]:
    yield from (target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])
    yield from (rule["expr"] for rule in rules())


@pytest.mark.parametrize("expression", list(expressions()))
def test_every_metric_and_label_that_is_asked_for_exists(expression: str) -> None:
    found = SELECTOR.findall(expression)
    assert found
    for name, matchers in found:
        assert set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\"", matchers)) <= LABELS[name], name
    grouped = {label for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(", ")}
    assert grouped <= set.union(*(LABELS[name] for name, _ in found))
    assert expression.count("(") == expression.count(")")


def test_the_codes_that_are_asked_for_exist() -> None:
    asked = {
        code for one in expressions() for codes in re.findall(r'code=~?"([^"]+)"', one) for code in codes.split("|")
    }
    assert asked <= set(CODES)


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    shown = " ".join(target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])
    ours = [one.name for one in (*COUNTERS, *HISTOGRAMS, *GAUGES) if one.name.startswith("torchlight_")]
    assert [name for name in ours if name not in shown] == []


def test_panels_do_not_overlap_and_have_names_of_their_own() -> None:
    panels = dashboard()["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len({panel["title"] for panel in panels}) == len({panel["id"] for panel in panels}) == len(panels)


def test_each_alert_says_how_urgent_it_is_and_what_is_wrong() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]


def test_the_scrape_configuration_loads_the_alerts() -> None:
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (name,) = configuration["rule_files"]
    assert (DEPLOY / "prometheus" / name).is_file()
    assert configuration["scrape_configs"][0]["job_name"] == "torchlight"


def test_the_table_of_metrics_is_as_the_service_has_them() -> None:
    text = (DEPLOY.parent / "docs" / "operations.md").read_text()
    kinds = [(COUNTERS, "counter", "_total"), (HISTOGRAMS, "histogram", ""), (GAUGES, "gauge", "")]
    rows = [
        f"| `{one.name}{suffix}` | {kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
        for metrics, kind, suffix in kinds
        for one in metrics
    ]
    assert [row for row in rows if row not in text.splitlines()] == []
