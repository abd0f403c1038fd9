"""Every failure mode's alert rule speaks of series that the code emits and points at a page of the runbook."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields

import pytest

from app.access import Outcome
from app.admission import Path as Admitted
from app.admission import Priority
from app.metrics import BREAKER_STATES, REGISTRY
from app.ranking import RANKING
from app.settings import Settings
from app.user_reader import PART as FEATURES
from app.wiring import SOURCES
from domain.degradation import DegradationLevel
from domain.errors import DependencyError
from monitoring.exposure import ExposureReport
from tests.alert_rules import ROOT, RULES, selectors

TABLE = (ROOT / "docs" / "failure-modes.md").read_text()


def causes(error: type[DependencyError] = DependencyError) -> Iterator[str]:
    yield error.cause
    for kind in error.__subclasses__():
        yield from causes(kind)


CAUSES = set(causes())
PARTS = {FEATURES, RANKING, *SOURCES}
EMITTED: dict[tuple[str, str], set[str]] = {
    ("streamrec_calls_total", "part"): PARTS,
    ("streamrec_calls_total", "outcome"): {"ok", "cancelled", "bug", *CAUSES},
    ("streamrec_reasons_total", "part"): PARTS,
    ("streamrec_reasons_total", "cause"): CAUSES,
    ("streamrec_breaker_workers", "part"): PARTS,
    ("streamrec_breaker_workers", "state"): set(BREAKER_STATES),
    ("streamrec_answers_total", "level"): {level.name for level in DegradationLevel},
    ("streamrec_admissions_total", "path"): set(Admitted),
    ("streamrec_admissions_total", "priority"): set(Priority),
    ("streamrec_access_total", "outcome"): {outcome.value for outcome in Outcome},
    ("streamrec_shadow_runs_total", "level"): {level.name for level in DegradationLevel},
    ("streamrec_shadow_runs_total", "outcome"): {"ok", "empty", "dropped", "timeout", "bug", *CAUSES},
    ("streamrec_exposure_slates_total", "outcome"): {"counted", "lost"},
    ("streamrec_exposure_ratio", "measure"): {
        part.name.removesuffix("_ratio") for part in fields(ExposureReport) if part.name.endswith("_ratio")
    },
}


def anchors() -> set[str]:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def metric_names() -> set[str]:
    return {family.name + ("_total" if family.type == "counter" else "") for family in REGISTRY.collect()}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_asks_for_metrics_that_exist_and_has_its_page(name: str) -> None:
    rule = RULES[name]
    asked = {selector.metric for selector in selectors(name)}
    assert asked
    assert asked <= metric_names()
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["runbook"].removeprefix("docs/runbook.md#") in anchors()


@pytest.mark.parametrize("name", RULES)
def test_a_rule_asks_for_labels_that_the_code_can_give(name: str) -> None:
    for selector in selectors(name):
        for matcher in selector.matchers:
            asked = set(matcher.value.split("|") if "~" in matcher.sign else [matcher.value])
            assert asked <= EMITTED[selector.metric, matcher.label]


@pytest.mark.parametrize(("name", "part"), [("FeatureStoreAway", FEATURES), ("RankerAway", RANKING)])
def test_a_breaker_that_probes_is_not_well_yet(name: str, part: str) -> None:
    """A scrape that meets it half open must not begin the minute anew."""
    (selector,) = selectors(name)
    asked = {matcher.label: matcher for matcher in selector.matchers}
    assert asked["part"].value == part
    assert {state for state in BREAKER_STATES if asked["state"].selects(state)} == {"open", "half-open"}


def test_the_table_of_failure_modes_names_only_rules_that_exist() -> None:
    named = {name for cell in re.findall(r"alerts? (`\w+`(?:, `\w+`)*)", TABLE) for name in re.findall(r"\w+", cell)}
    assert {"BundleRefused", "ModelStale", "FeatureStoreAway", "EventLagLong", "Bugs"} <= named <= set(RULES)


def test_the_age_that_alerts_is_the_age_that_answers_tell() -> None:
    assert RULES["ModelStale"]["expr"].endswith(f"> {Settings().max_model_age_seconds:.0f}")


def test_probes_of_a_bad_model_are_not_taken_for_a_rung_that_fails() -> None:
    assert f'level!="{DegradationLevel.FULL.name}"' in RULES["ShadowRungFails"]["expr"]
