"""Day one is quiet, and what the contract's range check cannot see is found within a thousand requests."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from domain.arrays import Codes, Floats
from domain.user import UserFeatures
from features.contract import CONTRACT, Category
from features.counts import Bins, FeatureCounts, code_spans
from monitoring.psi import ALERT, WARN
from monitoring.skew import MIN_REQUESTS, Skew, Verdict, judge
from release.bundle import ReferenceTables

HOUR = 3600.0
ELAPSED = [1.0, 600.0, 1799.0, 1801.0, 3 * HOUR, 26.4 * HOUR, 100 * HOUR]


def psi_of(skew: Skew, name: str) -> float:
    return next(part.psi for part in skew.features if part.feature == name)


def worst(skew: Skew) -> float:
    return max(part.psi for part in skew.features if not math.isnan(part.psi))


@pytest.mark.parametrize("elapsed", ELAPSED)
async def test_replayed_traffic_is_quiet_at_every_hour(quick_start, everybody, elapsed: float) -> None:
    skew = await quick_start.serve(everybody, elapsed)
    assert worst(skew) < 0.02
    assert (skew.verdict, skew.alerts) == (Verdict.OK, ())
    assert (skew.hit_ratio, skew.reads) == (1.0, len(everybody))


@pytest.mark.parametrize("elapsed", [1.0, 3 * HOUR])
async def test_a_thousand_requests_by_chance_are_quiet_too(quick_start, thousand, elapsed: float) -> None:
    skew = await quick_start.serve(thousand, elapsed)
    assert worst(skew) < WARN
    assert skew.verdict is Verdict.OK


def in_other_unit(name: str, factor: float):
    """What a reader of another unit would give the rankers; it must lie in the contract's range."""
    columns, span = CONTRACT.numeric, CONTRACT.numeric.slices[name]

    def change(user: UserFeatures) -> UserFeatures:
        numeric = user.numeric.copy()
        numeric[span] *= factor
        assert (numeric[span] >= columns.low[span]).all()
        assert (numeric[span] <= columns.high[span]).all()
        return replace(user, numeric=numeric)

    return change


@pytest.mark.parametrize(
    ("name", "factor", "elapsed"),
    [
        ("session_length_seconds", 1 / 60, 60.0),  # minutes for seconds
        ("user_since_last_event_hours", 60.0, 600.0),  # minutes for hours
        ("user_since_last_event_hours", 1 / 24, 3 * HOUR),  # days for hours
    ],
)
async def test_a_unit_mix_up_inside_the_range_alerts_by_name(
    quick_start, thousand, name: str, factor: float, elapsed: float
) -> None:
    skew = await quick_start.serve(thousand, elapsed, in_other_unit(name, factor))
    assert psi_of(skew, name) > ALERT
    assert skew.alerts == (name,)


async def test_a_batch_step_that_writes_another_unit_alerts_by_name(quick_start, thousand) -> None:
    name = "user_item_age_mean_years"
    stored = quick_start.users.features.copy()
    stored[:, CONTRACT.user.slices[name]] /= 10  # decades: every one of them a credible number of years
    skew = await quick_start.with_stored(stored).serve(thousand, HOUR)
    assert skew.alerts == (name,)


async def test_a_column_read_by_position_alerts_by_name(quick_start, thousand) -> None:
    span = CONTRACT.user.slices["user_genre_taste_ratio"]
    stored = quick_start.users.features.copy()
    stored[:, span] = np.roll(stored[:, span], 1, axis=1)
    skew = await quick_start.with_stored(stored).serve(thousand, HOUR)
    assert skew.alerts == ("user_genre_taste_ratio",)


async def test_a_feature_that_is_always_its_default_alerts_by_its_share(quick_start, thousand) -> None:
    stored = quick_start.users.features.copy()
    stored[:, CONTRACT.user.slices["user_rating_mean_stars"]] = 3.5
    skew = await quick_start.with_stored(stored).serve(thousand, HOUR)
    (found,) = [part for part in skew.features if part.feature == "user_rating_mean_stars"]
    assert (found.default_ratio, found.verdict) == (1.0, Verdict.ALERT)


async def test_hours_sorted_as_text_alert_by_name(quick_start, thousand) -> None:
    order = sorted(map(str, range(24)))

    def change(user: UserFeatures) -> UserFeatures:
        codes = user.codes.copy()
        codes[2] = order.index(str(codes[2] - 1)) + 1
        return replace(user, codes=codes)

    skew = await quick_start.serve(thousand, 1000.0, change)
    assert "context_hour" in {part.feature for part in skew.features if part.verdict >= Verdict.WARN}


class TestACategoryOfTheUser:
    """``user_country``: a category that this dataset does not have, with shares as countries have them."""

    COUNTRIES = ("US", "GB", "FR", "DE", "CA", "BR", "AR")  # by their share
    contract = replace(CONTRACT, context=(Category("user_country", COUNTRIES, "Where the user lives"),))
    share = np.array([0.02, 0.4, 0.25, 0.13, 0.1, 0.05, 0.03, 0.02])  # unknown first

    def reference(self) -> ReferenceTables:
        edges = np.zeros((CONTRACT.numeric.width, 1), np.float32)
        nothing = Bins(edges, np.empty(0), self.contract).none()
        codes = np.tile((self.share * 10_000).astype(np.int64), (len(nothing.phases), 1))
        return ReferenceTables(edges, np.empty(0), nothing.bins[None], nothing.defaults[None], codes)

    def served(self, codes: Codes) -> Skew:
        reference, n = self.reference(), len(codes)
        bins = Bins(reference.edges, reference.ages, self.contract)
        numeric = np.zeros((n, CONTRACT.numeric.width), np.float32)
        names = [feature.name for feature in CONTRACT.numeric.features]
        return judge(reference, bins.count(numeric, codes[:, None], np.ones(n), 0), names, self.contract)

    def drawn(self) -> Codes:
        return np.random.default_rng(3).choice(len(self.share), 1000, p=self.share).astype(np.int32)

    def test_is_quiet_as_it_was_trained(self) -> None:
        assert self.served(self.drawn()).verdict is Verdict.OK

    def test_alerts_when_its_encoding_changed(self) -> None:
        by_name = sorted(self.COUNTRIES)
        changed = np.array([0, *(by_name.index(name) + 1 for name in self.COUNTRIES)], np.int32)
        skew = self.served(changed[self.drawn()])
        assert psi_of(skew, "user_country") > ALERT
        assert skew.alerts == ("user_country",)

    def test_alerts_when_a_third_is_unknown(self) -> None:
        codes = self.drawn()
        codes[::3] = 0
        skew = self.served(codes)
        assert skew.alerts == ("user_country",)
        assert skew.features[-1].default_excess > 0.2


class TestJudgement:
    def counted(self, quick_start, n: int) -> FeatureCounts:
        numeric: Floats = np.tile(CONTRACT.numeric.defaults, (n, 1))
        codes = np.zeros((n, len(CONTRACT.context)), np.int32)
        return Bins(quick_start.reference.edges, quick_start.reference.ages).count(numeric, codes, np.ones(n), 0)

    def test_waits_for_enough_requests(self, quick_start) -> None:
        skew = judge(quick_start.reference, self.counted(quick_start, MIN_REQUESTS - 1))
        assert {part.verdict for part in skew.features} == {Verdict.UNJUDGED}
        assert math.isnan(skew.features[0].psi)
        assert skew.alerts == ()

    def test_says_nothing_of_what_was_never_trained(self, quick_start) -> None:
        names = [part.name for part in CONTRACT.numeric.features] + list(code_spans(CONTRACT))
        skew = judge(quick_start.reference, self.counted(quick_start, MIN_REQUESTS), names)
        assert skew.verdict is Verdict.UNJUDGED

    @pytest.mark.parametrize(
        ("hits", "verdict"), [(1000, Verdict.OK), (980, Verdict.WARN), (940, Verdict.ALERT)], ids=str
    )
    def test_holds_the_hit_rate_to_its_target(self, quick_start, hits: int, verdict: Verdict) -> None:
        counted = self.counted(quick_start, 1)
        counted.reads[...] = (1000, hits)
        assert judge(quick_start.reference, counted).hit_verdict is verdict
