"""Every failure mode's alert rule speaks of metrics that exist and points at a page of the runbook that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from app.metrics import REGISTRY
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
GROUPS = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())["groups"]
RULES = {rule["alert"]: rule for group in GROUPS if group["name"] != "feature-skew" for rule in group["rules"]}
TABLE = (ROOT / "docs" / "failure-modes.md").read_text()


def anchors() -> set[str]:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def metric_names() -> set[str]:
    return {family.name + ("_total" if family.type == "counter" else "") for family in REGISTRY.collect()}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_asks_for_metrics_that_exist_and_has_its_page(name: str) -> None:
    rule = RULES[name]
    asked = set(re.findall(r"streamrec_\w+", rule["expr"]))
    assert asked
    assert asked <= metric_names()
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["runbook"].removeprefix("docs/runbook.md#") in anchors()


def test_the_table_of_failure_modes_names_only_rules_that_exist() -> None:
    named = {name for cell in re.findall(r"alerts? (`\w+`(?:, `\w+`)*)", TABLE) for name in re.findall(r"\w+", cell)}
    assert {"BundleRefused", "ModelStale", "FeatureStoreAway", "EventLagLong"} <= named <= set(RULES)


def test_the_age_that_alerts_is_the_age_that_answers_tell() -> None:
    assert RULES["ModelStale"]["expr"].endswith(f"> {Settings().max_model_age_seconds:.0f}")
