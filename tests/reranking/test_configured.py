import pytest

from app.settings import Settings
from domain.errors import StartError
from reranking.configured import DEFAULT, RULES, configured
from reranking.diversity import GenreWindow
from reranking.filters import BusinessFilters
from reranking.mmr import Mmr


def test_the_default_of_the_setting_is_the_default_here() -> None:
    assert Settings().rules == DEFAULT
    assert [rule.name for rule in configured()] == DEFAULT.split(",")


def test_rules_stand_in_the_order_of_the_text_with_the_numbers_it_gives() -> None:
    rules = configured("mmr relevance_weight=0.5 reach=20, filters admit_unrated=1,diversity most=2")
    assert rules == (Mmr(relevance_weight=0.5, reach=20), BusinessFilters(admit_unrated=True), GenreWindow(most=2))


def test_no_rule_at_all_is_a_choice() -> None:
    assert configured("none") == ()


@pytest.mark.parametrize("name", RULES)
def test_every_rule_goes_by_its_name(name: str) -> None:
    assert configured(name)[0].name == name


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("filters,novelty", "'novelty'; the rules are"),
        ("filters,,mmr", "an empty place"),
        ("mmr,dpp,mmr", "twice"),
        ("mmr weight=1", "mmr has no 'weight=1'"),
        ("mmr name=x", "mmr has no 'name=x'"),
        ("mmr reach", "mmr has no 'reach'"),
        ("mmr reach=1.5", "reach must be a whole number"),
        ("filters admit_unrated=yes", "must be 0 or 1"),
        ("mmr relevance_weight=2", "relevance_weight must be from 0 to 1"),
    ],
)
def test_a_text_that_cannot_be_meant_is_refused_with_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(StartError, match=why):
        configured(text)
