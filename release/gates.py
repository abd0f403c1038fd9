"""Gates: what a bundle must reach before it is published, as configured for each of its models.

A gate is a metric of one model and its limit. Metrics are those that training measured on users held out and wrote into
the lineage; size and contract are read off the manifest. A metric that was not measured does not pass.

The last gate looks back: against the best that was ever published for the dataset (or one publication that is pinned),
because ten declines of two per cent each pass every comparison with the champion alone.

A refreshed catalogue has the models, and the numbers, of a publication that was judged. Of it only what is its own is
asked: size and contract.
"""

from __future__ import annotations

import contextlib
import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from domain.errors import DatasetError
from features.contract import CONTRACT
from release.bundle import Manifest

FILE = "gates.toml"  # in the dataset folder
HISTORY = "published-metrics.jsonl"  # in HOME: it outlives the bundles

AT_LEAST: dict[str, dict[str, float]] = {
    "retrieval": {"recall_at_500": 0.50},
    "dcn_v2": {"hit_at_10": 0.18, "ndcg_at_10": 0.10},
    "logistic": {"ndcg_at_10": 0.05},
    "fairness": {"exposure_equity": 0.60},
}
AT_MOST: dict[str, dict[str, float]] = {
    "dcn_v2": {"calibration_error": 0.02, "latency_p95_ms": 50.0},
    "fairness": {"hit_disparity": 0.10},
    "bundle": {"size_mb": 500.0},
}
TRACKED = (("retrieval", "recall_at_500"), ("dcn_v2", "hit_at_10"), ("dcn_v2", "ndcg_at_10"))
"""What the history is asked about."""
TOLERANCE_RATIO = 0.05
"""Of the best: some hundred held-out users tell no finer difference."""

JUDGED = "judged"
"""In the parameters of a refreshed bundle's lineage: how its models were published, ``{"accepted_because": ...}``."""

Limits: TypeAlias = dict[str, dict[str, float | None]]


@dataclass(frozen=True, slots=True)
class Gates:
    """The limits; None takes a gate away. ``pinned``: the version that the history is compared with, not the best."""

    at_least: Mapping[str, Mapping[str, float | None]]
    at_most: Mapping[str, Mapping[str, float | None]]
    tolerance_ratio: float | None = TOLERANCE_RATIO
    pinned: str | None = None

    @classmethod
    def of(cls, configured: Mapping[str, Any]) -> Gates:
        """The defaults with what is ``configured`` (``as_parameters`` or a TOML table) in their place.

        Raises ``ValueError`` on a gate that does not exist and ``TypeError`` on a limit that is no number.
        """
        history = dict(configured.get("history", {}))
        limits = {model: table for model, table in configured.items() if model not in {"history", "targets"}}
        for model, table in limits.items():
            if not isinstance(table, Mapping):
                raise TypeError(f"{model} must be a table of limits")
            for metric, limit in table.items():
                _check(model, metric, limit)
        least, most = (_replaced(defaults, limits) for defaults in (AT_LEAST, AT_MOST))
        tolerance = _limit(history.pop("tolerance_ratio", TOLERANCE_RATIO))
        pinned = history.pop("pinned", None)
        if history:
            raise ValueError(f"history has no {', '.join(history)}")
        return cls(least, most, tolerance, pinned)

    @classmethod
    def read(cls, folder: Path) -> Gates:
        """From ``gates.toml`` of a dataset folder, the defaults without one; raises ``DatasetError``."""
        path = folder / FILE
        try:
            return cls.of(tomllib.loads(path.read_text("utf-8")) if path.exists() else {})
        except (ValueError, AttributeError, TypeError) as error:
            raise DatasetError([f"{FILE}: {error}"]) from error

    def as_parameters(self) -> dict[str, Any]:
        """For the lineage; ``of`` reads it back."""
        models = {*self.at_least, *self.at_most}
        limits = {model: {**self.at_least.get(model, {}), **self.at_most.get(model, {})} for model in sorted(models)}
        return {**limits, "history": {"tolerance_ratio": self.tolerance_ratio, "pinned": self.pinned}}


def _check(model: str, metric: str, limit: object) -> None:
    if metric not in {**AT_LEAST.get(model, {}), **AT_MOST.get(model, {})}:
        raise ValueError(f"there is no gate {model}.{metric}")
    _limit(limit)


def _limit(value: object) -> float | None:
    """A number, or None or false for no gate."""
    if value is None or value is False:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a limit is a number, or false for none, not {value!r}")
    return float(value)


def _replaced(defaults: Mapping[str, Mapping[str, float]], configured: Mapping[str, Mapping[str, Any]]) -> Limits:
    return {
        model: {metric: _limit(configured.get(model, {}).get(metric, limit)) for metric, limit in table.items()}
        for model, table in defaults.items()
    }


@dataclass(frozen=True, slots=True)
class Verdict:
    """One gate's answer, in words that a table can show."""

    gate: str
    found: str
    wanted: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Past:
    """The metrics of one publication."""

    version: str
    dataset: str
    metrics: Mapping[str, Mapping[str, float]]


def judge(manifest: Manifest, history: Sequence[Past] = ()) -> list[Verdict]:
    """Every gate's verdict over the bundle, in the order of the configuration."""
    gates = Gates.of(manifest.lineage.parameters.get("gates", {}))
    measured, judged = measured_metrics(manifest), judged_before(manifest)
    verdicts = [
        _against(f"{model}.{metric}", measured.get(model, {}).get(metric), limit, least=least)
        for table, least in ((gates.at_least, True), (gates.at_most, False))
        for model, limits in table.items()
        for metric, limit in limits.items()
        if limit is not None and (model == "bundle" or not judged)
    ]
    ours = manifest.contract_hash == CONTRACT.hash
    verdicts.append(Verdict("bundle.contract", manifest.contract_hash, CONTRACT.hash, ours))
    of_dataset = [past for past in history if past.dataset == manifest.dataset.name]
    return verdicts if judged else verdicts + _looking_back(gates, measured, of_dataset)


def judged_before(manifest: Manifest) -> bool:
    """Whether the models are those of an earlier publication: their metrics were judged, and are in the history."""
    return JUDGED in manifest.lineage.parameters


def inherited_reason(manifest: Manifest) -> str | None:
    """Why the models were published although their gates refused them, None where they did not."""
    reason = manifest.lineage.parameters.get(JUDGED, {}).get("accepted_because")
    return None if reason is None else str(reason)


def measured_metrics(manifest: Manifest) -> dict[str, dict[str, float]]:
    """Model -> metric -> value: what training measured, and the size of all files."""
    found = {model: dict(table) for model, table in manifest.lineage.metrics.get("gated", {}).items()}
    size = sum(int(file["bytes"]) for file in manifest.files.values())
    return {**found, "bundle": {"size_mb": size / 1e6}}


def _against(gate: str, value: float | None, limit: float, *, least: bool) -> Verdict:
    wanted = f"{'>=' if least else '<='} {limit:.4g}"
    if value is None:
        return Verdict(gate, "not measured", wanted, passed=False)
    return Verdict(gate, f"{value:.4g}", wanted, value >= limit if least else value <= limit)  # NaN does not pass


def _looking_back(gates: Gates, measured: Mapping[str, Mapping[str, float]], history: Sequence[Past]) -> list[Verdict]:
    """Nothing while there is no history; a pinned version that was never published refuses."""
    if gates.tolerance_ratio is None:
        return []
    if gates.pinned is not None:
        history = [past for past in history if past.version == gates.pinned]
        if not history:
            return [Verdict("history", "never published", gates.pinned, passed=False)]
    verdicts = []
    for model, metric in TRACKED:
        past = [p.metrics[model][metric] for p in history if metric in p.metrics.get(model, {})]
        sound = [value for value in past if math.isfinite(value)]  # accepted without a number: nothing is below NaN
        if sound:
            limit = max(sound) * (1.0 - gates.tolerance_ratio)
            found = measured.get(model, {}).get(metric)
            verdicts.append(_against(f"history: {model}.{metric}", found, limit, least=True))
    return verdicts


def read_history(home: Path) -> list[Past]:
    """Every publication that was recorded, oldest first; a line that is none is passed over."""
    path = home / HISTORY
    return list(_recorded(path.read_text(errors="replace"))) if path.exists() else []


def _recorded(text: str) -> Iterator[Past]:
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # torn, or not a publication
            record = json.loads(line)
            metrics = {
                model: {metric: float(value) for metric, value in table.items()}
                for model, table in record["metrics"].items()
            }
            yield Past(str(record["version"]), str(record["dataset"]), metrics)


def remember(manifest: Manifest, home: Path) -> None:
    """Add the publication to the history; raises ``OSError``."""
    path, past = home / HISTORY, Past(manifest.version, manifest.dataset.name, measured_metrics(manifest))
    torn = path.exists() and not path.read_bytes().endswith(b"\n")  # a line without an end would swallow this one
    with path.open("a") as file:
        file.write("\n" * torn + json.dumps(asdict(past)) + "\n")


def refused(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if not verdict.passed]
