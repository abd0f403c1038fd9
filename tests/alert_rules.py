"""The rules of deploy/alerts.yaml, and which series their expressions select."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from app.metrics import REGISTRY

ROOT = Path(__file__).resolve().parents[1]
GROUPS = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())["groups"]
RULES = {rule["alert"]: rule for group in GROUPS if group["name"] != "feature-skew" for rule in group["rules"]}


@dataclass(frozen=True)
class Matcher:
    """``label="value"`` and its kin."""

    label: str
    sign: str
    value: str

    def selects(self, value: str) -> bool:
        found = re.fullmatch(self.value, value) is not None if "~" in self.sign else self.value == value
        return found != self.sign.startswith("!")


@dataclass(frozen=True)
class Selector:
    """One metric in an expression, and what is asked of its labels."""

    metric: str
    matchers: tuple[Matcher, ...]

    def total(self) -> float:
        """The sum of the series in this process that it selects."""
        samples = [sample for family in REGISTRY.collect() for sample in family.samples if sample.name == self.metric]
        return sum(sample.value for sample in samples if all(m.selects(sample.labels[m.label]) for m in self.matchers))


def selectors(name: str) -> list[Selector]:
    """What the rule asks for."""
    asked = re.findall(r"(streamrec_\w+)(?:\{(.*?)\})?", RULES[name]["expr"])
    return [
        Selector(metric, tuple(Matcher(*part) for part in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"(.*?)"', braces)))
        for metric, braces in asked
    ]
