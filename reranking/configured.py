"""Which rules run, in which order and with which numbers: the text of ``STREAMREC_RULES``, read.

``filters, promotion, diversity window=4 most=2, exposure`` names rules by their names, in order, each followed by those
of its fields that differ from the defaults. A later rule may undo what an earlier one did, save for pinned places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from domain.errors import StartError
from domain.stages import Rule
from reranking.creators import CreatorCap
from reranking.diversity import GenreWindow
from reranking.dpp import Dpp
from reranking.exposure import MinimumExposure
from reranking.filters import BusinessFilters
from reranking.freshness import Freshness
from reranking.memory import Memory
from reranking.mmr import Mmr
from reranking.promotion import Promotion

DEFAULT = "filters,memory,promotion,freshness,diversity,creators,exposure"
KINDS = (BusinessFilters, Memory, Promotion, Freshness, GenreWindow, Mmr, Dpp, CreatorCap, MinimumExposure)
RULES: dict[str, Callable[..., Rule]] = {kind().name: kind for kind in KINDS}


def configured(text: str = DEFAULT) -> tuple[Rule, ...]:
    """The rules that ``text`` names; raises ``StartError`` on what it cannot mean. ``none`` is no rule at all."""
    if text.strip() == "none":
        return ()
    rules = tuple(_rule(part.split()) for part in text.split(","))
    names = [rule.name for rule in rules]
    if len(set(names)) < len(names):
        raise StartError("STREAMREC_RULES names a rule twice")
    return rules


def _rule(words: list[str]) -> Rule:
    if not words or words[0] not in RULES:
        named = words[0] if words else "an empty place"
        raise StartError(f"STREAMREC_RULES has {named!r}; the rules are {', '.join(RULES)}")
    name, made = words[0], RULES[words[0]]
    known = {part.name: part.default for part in fields(made()) if part.name != "name"}  # type: ignore[arg-type]  # a dataclass
    given = {}
    for word in words[1:]:
        field, sign, value = word.partition("=")
        if field not in known or not sign:
            raise StartError(f"STREAMREC_RULES: {name} has no {word!r}; it has {', '.join(known) or 'no fields'}")
        given[field] = _value(f"{name} {field}", value, type(known[field]))
    try:
        return made(**given)
    except ValueError as error:
        raise StartError(f"STREAMREC_RULES: {name}: {error}") from error


def _value(what: str, text: str, kind: type) -> object:
    try:
        if kind is bool:
            return {"0": False, "1": True}[text]
        return kind(text)
    except (KeyError, ValueError) as error:
        wanted = {"bool": "0 or 1", "int": "a whole number"}.get(kind.__name__, "a number")
        raise StartError(f"STREAMREC_RULES: {what} must be {wanted}, not {text!r}") from error
