"""Experiments: users in buckets, layer by layer, and what an arm changes about the pipeline.

A user's bucket in a layer is a hash of the user and of the layer's salt, so that it stays the same on every worker and
after every restart, and the layers are independent of each other. A small share of users is held out of all layers.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from app.pipeline import Pipeline
from domain.deadline import Deadline
from domain.errors import StartError
from domain.stages import Rule
from reranking.configured import configured
from retrieval.gather import Attempt
from retrieval.silent import Silent

CONTROL, HOLDOUT = "control", "holdout"
MAX_HOLDOUT = 0.2

_NAME = re.compile(r"[a-z0-9_-]{1,32}", re.ASCII)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """What is different for the users in it: other rules, other quotas of sources, sources left out."""

    name: str
    share: float  # of the users who are not held out
    rules: tuple[Rule, ...] | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)
    without: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Arms of which a user is in one; who is in none is in the control."""

    name: str
    salt: str
    arms: tuple[Arm, ...]

    def arm(self, user_id: str) -> Arm | None:
        left = bucket(self.salt, user_id)
        for arm in self.arms:
            left -= arm.share
            if left < 0:
                return arm
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Experiments:
    """All layers. Without a file there are none."""

    layers: tuple[Layer, ...] = ()
    holdout: float = 0.0
    salt: str = ""

    def arms(self, user_id: str | None) -> Mapping[str, str]:
        """Layer -> arm. Nobody is in one without a user id."""
        if user_id is None or not self.layers:
            return {}
        return _names(self._drawn(user_id))

    def applied(self, pipeline: Pipeline, user_id: str | None) -> Pipeline:
        """The pipeline as this user's arms have it."""
        if user_id is None or not self.layers:
            return pipeline
        drawn = self._drawn(user_id)
        treated = replace(pipeline, arms=_names(drawn))
        for arm in drawn.values():
            if isinstance(arm, Arm):
                treated = _under(treated, arm)
        return treated

    def uses(self, rule: str) -> bool:
        """Whether some arm has the rule."""
        return any(part.name == rule for layer in self.layers for arm in layer.arms for part in arm.rules or ())

    def _drawn(self, user_id: str) -> Mapping[str, Arm | str]:
        if bucket(self.salt, user_id) < self.holdout:
            return {layer.name: HOLDOUT for layer in self.layers}
        return {layer.name: layer.arm(user_id) or CONTROL for layer in self.layers}


def _names(drawn: Mapping[str, Arm | str]) -> Mapping[str, str]:
    return {layer: arm.name if isinstance(arm, Arm) else arm for layer, arm in drawn.items()}


def bucket(salt: str, user_id: str) -> float:
    """Where the user stands between 0 and 1, the same for ever; even over users, and another under another salt."""
    text = f"{salt}\0{user_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64


def _under(pipeline: Pipeline, arm: Arm) -> Pipeline:
    names = [source.name for source in pipeline.sources]
    quotas = tuple(arm.quotas.get(name, quota) for name, quota in zip(names, pipeline.quotas, strict=True))
    silent = pipeline.silent | arm.without
    changed = replace(pipeline, quotas=quotas, silent=silent)
    if arm.without:
        sources = tuple(Silent(source.name) if source.name in silent else source for source in pipeline.sources)
        changed = replace(changed, sources=sources, attempt=_past(pipeline.attempt, arm.without))
    return changed if arm.rules is None else replace(changed, rules=arm.rules)


def _past(attempt: Attempt, silent: frozenset[str]) -> Attempt:
    """The guard, past which silent sources go: their empty answers must not tell a breaker that all is well."""

    async def guarded(name: str, work: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        return await (work() if name in silent else attempt(name, work, deadline))

    return guarded


def read_experiments(path: Path | None, sources: Collection[str]) -> Experiments:
    """The experiments of a TOML file; raises ``StartError`` on what it cannot mean.

    ``holdout`` (a share) and ``salt`` on top, then ``[[layer]]`` tables with ``name``, ``salt`` and ``[[layer.arm]]``
    tables: ``name``, ``share``, and ``rules`` (as ``STREAMREC_RULES``), ``quotas`` (source -> places) or ``without``
    (sources). Who is in none of a layer's arms is in its ``control``.
    """
    if path is None:
        return Experiments()
    try:
        return _experiments(tomllib.loads(path.read_text()), frozenset(sources))
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StartError(f"experiment file {path}: {type(error).__name__}: {error}") from error
    except StartError as error:
        raise StartError(f"experiment file {path}: {error}") from error


def _experiments(given: Mapping[str, Any], sources: frozenset[str]) -> Experiments:
    _known(given, {"salt", "holdout", "layer"})
    layers = tuple(_layer(table, sources) for table in given["layer"])
    holdout, salt = _share(given.get("holdout", 0.0)), str(given["salt"])
    if holdout > MAX_HOLDOUT:
        raise ValueError(f"holdout is at most {MAX_HOLDOUT:g}")
    _different([layer.name for layer in layers], "layers of one name")
    _different([salt, *(layer.salt for layer in layers)], "salts that are the same, so their buckets are too")
    touched = [what for layer in layers for what in _touched(layer)]
    _different(touched, "layers that change the same thing")
    return Experiments(layers, holdout, salt)


def _layer(table: Mapping[str, Any], sources: frozenset[str]) -> Layer:
    _known(table, {"name", "salt", "arm"})
    arms = tuple(_arm(arm, sources) for arm in table["arm"])
    _different([CONTROL, HOLDOUT, *(arm.name for arm in arms)], f"arms of one name, or one named {CONTROL}, {HOLDOUT}")
    if sum(arm.share for arm in arms) > 1 + 1e-9:
        raise ValueError("the shares of a layer's arms come to more than 1")
    return Layer(_name(table["name"]), str(table["salt"]), arms)


def _arm(table: Mapping[str, Any], sources: frozenset[str]) -> Arm:
    _known(table, {"name", "share", "rules", "quotas", "without"})
    quotas, without = dict(table.get("quotas", {})), frozenset(table.get("without", ()))
    if strangers := (quotas.keys() | without) - sources:
        raise ValueError(f"no source {', '.join(sorted(strangers))}")
    if any(type(quota) is not int or quota < 0 for quota in quotas.values()):
        raise ValueError("a quota is a whole number of places")
    if without >= sources:
        raise ValueError("an arm without any source")
    rules = configured(table["rules"]) if "rules" in table else None
    return Arm(_name(table["name"]), _share(table["share"]), rules, quotas, without)


def _touched(layer: Layer) -> set[str]:
    """What the layer changes: two layers that change one thing would undo each other."""
    rules = {"rules"} if any(arm.rules is not None for arm in layer.arms) else set()
    return rules | ({"sources"} if any(arm.quotas or arm.without for arm in layer.arms) else set())


def _known(table: Mapping[str, Any], keys: set[str]) -> None:
    if not table.keys() <= keys:
        raise ValueError(f"unknown key; known are {', '.join(sorted(keys))}")


def _different(names: list[str], what: str) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"two {what}")


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("names are 1 to 32 of a-z, 0-9, - and _")
    return value


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("a share is a number from 0 to 1")
    return float(value)
