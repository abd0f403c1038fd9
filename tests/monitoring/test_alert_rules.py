"""The alert rules on skew: they parse, speak of metrics that exist, and point at the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.metrics import REGISTRY
from monitoring import psi, skew

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "alerts.yaml"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
LIMITS = {
    "FeatureSkew": ("streamrec_feature_psi", ">=", psi.ALERT),
    "FeatureDrift": ("streamrec_feature_psi", ">=", psi.WARN),
    "FeatureDefaults": ("streamrec_feature_default_excess_ratio", ">=", skew.DEFAULT_ALERT),
    "FeatureHitRate": ("streamrec_feature_hit_ratio", "<", skew.HIT_TARGET),
}


def rules() -> dict[str, dict[str, Any]]:
    (group,) = [group for group in yaml.safe_load(FILE.read_text())["groups"] if group["name"] == "feature-skew"]
    return {rule["alert"]: rule for rule in group["rules"]}


def test_each_limit_of_the_skew_job_has_its_rule() -> None:
    assert set(rules()) == set(LIMITS)


@pytest.mark.parametrize("name", LIMITS)
def test_a_rule_asks_for_a_metric_that_exists_at_the_jobs_own_limit(name: str) -> None:
    metric, sign, limit = LIMITS[name]
    judged = f" and streamrec_feature_watch_requests >= {skew.MIN_REQUESTS}"  # before that the gauge is at zero
    asked = re.fullmatch(rf"(?:max by \(feature\) |min)\((\w+)(?:{judged})?\) (>=|<) ([\d.]+)", rules()[name]["expr"])
    assert asked is not None
    assert (asked[1], asked[2], float(asked[3])) == (metric, sign, limit)
    assert metric in {family.name for family in REGISTRY.collect()}


@pytest.mark.parametrize("name", LIMITS)
def test_a_rule_says_what_moved_how_urgent_it_is_and_where_to_read_on(name: str) -> None:
    rule = rules()[name]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert re.fullmatch(r"\d+m", rule["for"])
    assert "{{ $value" in rule["annotations"]["summary"]
    assert ("$labels.feature" in rule["annotations"]["summary"]) == ("by (feature)" in rule["expr"])
    anchor = rule["annotations"]["runbook"].removeprefix("docs/runbook.md#")
    headings = [heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE)]
    assert anchor in headings


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_agrees() -> None:
    subprocess.run(["promtool", "check", "rules", str(FILE)], check=True)
