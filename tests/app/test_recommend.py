"""The request path over a real bundle: which level each failure leads to, and what every answer keeps."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.falling_back import precomputed
from app.pipeline import Pipeline
from app.recommend import recommend
from app.serving import Serving
from app.settings import Settings
from app.wiring import Process, build
from domain.candidates import Candidates
from domain.catalogue import Facets
from domain.deadline import Deadline
from domain.degradation import DegradationLevel as Level
from domain.errors import BadAnswer, Late, Unreachable
from domain.request import Context, Query
from domain.slate import Campaign
from features.contract import CONTRACT
from release.bundle import Bundle, Publication
from tests.app.fake_stages import Ranker, Source, Store, with_store

KNOWN = "user-3"


@pytest.fixture
async def process(tmp_path: Path):
    process = Process.of(Settings(home=tmp_path))
    yield process
    await process.close()


@pytest.fixture
def pipeline(tiny_bundle: Bundle, process: Process) -> Pipeline:
    """The wired tiny bundle with a store that knows user-3 and a ranker that keeps the order."""
    bundle = Bundle(tiny_bundle.path, tiny_bundle.manifest, tiny_bundle.tables, Publication(1, 0.0))
    return with_store(replace(build(bundle, process), ranker=Ranker()), Store(KNOWN))


async def ask(pipeline: Pipeline, query: Query | None = None, seconds: float = 5.0):
    patient = replace(pipeline, budget=replace(pipeline.budget, features=seconds, retrieval=seconds, ranking=seconds))
    return await recommend(patient, query or Query(KNOWN, limit=5), Deadline.after(seconds))


async def test_all_well_is_full_with_every_source_named(pipeline: Pipeline) -> None:
    answer = await ask(pipeline, Query(KNOWN, limit=30))
    assert (answer.level, answer.reasons) == (Level.FULL, ())
    assert {source for item in answer.items for source in item.sources} == {
        "two_tower", "collaborative", "content", "popularity", "preference",
    }  # fmt: skip
    assert set(answer.timing) == {"features", "retrieval", "ranking", "reranking", "total"}
    assert answer.items[0].title.startswith("Title")


async def test_what_was_seen_excluded_or_removed_never_comes_back(pipeline: Pipeline) -> None:
    users, items = pipeline.reader.users, pipeline.items
    seen = {items.ids.text(row) for row in users.history(users.ids.row(KNOWN)).item_row}
    recent = Store(KNOWN, recent=("item-10", "no longer known"))
    answer = await ask(with_store(pipeline, recent), Query(KNOWN, limit=50, exclude_item_ids=("item-11", "who?")))
    shown = {item.item_id for item in answer.items}
    assert shown
    assert not shown & (seen | {"item-10", "item-11", "item-49"})  # item-49 is removed from the catalogue
    assert len(shown) == len(answer.items)


async def test_a_late_source_is_partial_retrieval(pipeline: Pipeline) -> None:
    late = Source("popularity", Late("popularity"))
    answer = await ask(replace(pipeline, sources=(*pipeline.sources[:3], late, *pipeline.sources[4:])))
    assert (answer.level, answer.reasons) == (Level.PARTIAL_RETRIEVAL, ("popularity.timeout",))


async def test_no_features_means_the_bundles_and_says_so(pipeline: Pipeline) -> None:
    answer = await ask(with_store(pipeline, Store(error=Unreachable("redis"))))
    assert (answer.level, answer.reasons) == (Level.STALE_FEATURES, ("features.unavailable",))


async def test_the_last_features_seen_are_preferred_to_the_bundles(pipeline: Pipeline) -> None:
    await ask(with_store(pipeline, Store("new", recent=("item-10",))), Query("new", limit=5))
    answer = await ask(with_store(pipeline, Store(error=Unreachable("redis"))), Query("new", limit=50))
    assert answer.level is Level.STALE_FEATURES
    assert "item-10" not in {item.item_id for item in answer.items}


async def test_a_known_users_missing_row_is_stale_and_an_unknown_user_is_not(pipeline: Pipeline) -> None:
    nobody = with_store(pipeline, Store())
    assert (await ask(nobody)).reasons == ("features.missing",)
    stranger = await ask(nobody, Query("stranger", limit=5))
    assert (stranger.level, stranger.reasons) == (Level.FULL, ("cold_start",))
    assert len(stranger.items) == 5


class Streamed(Store):
    """Has lost the batch features of everybody."""

    async def read(self, user_id):
        row = await super().read(user_id)
        return None if row is None else replace(row, has_batch=False)


async def test_a_known_user_whose_row_was_lost_keeps_what_was_last_seen(pipeline: Pipeline) -> None:
    await ask(with_store(pipeline, Store(KNOWN, recent=("item-10",))))
    answer = await ask(with_store(pipeline, Store()), Query(KNOWN, limit=50))
    assert (answer.level, answer.reasons) == (Level.STALE_FEATURES, ("features.missing",))
    assert "item-10" not in {item.item_id for item in answer.items}


async def test_and_what_the_stream_wrote_since_comes_on_top(pipeline: Pipeline) -> None:
    good = np.full_like(CONTRACT.user.defaults, 3.0)
    for store in (Store(KNOWN, recent=("item-10",)), Streamed(KNOWN, recent=("item-11",)), Store()):
        store.features = good if not isinstance(store, Streamed) else store.features
        answer = await ask(with_store(pipeline, store), Query(KNOWN, limit=50))
    assert not {"item-10", "item-11"} & {item.item_id for item in answer.items}
    kept = pipeline.reader.last_seen.last(pipeline.reader.project, KNOWN)
    assert kept is not None
    assert kept.features is good
    assert kept.recent.item_ids == ("item-10", "item-11")


async def test_a_user_who_is_in_neither_store_nor_bundle_is_forgotten(pipeline: Pipeline) -> None:
    await ask(with_store(pipeline, Store("met", recent=("item-10",))), Query("met", limit=5))
    assert (await ask(with_store(pipeline, Store()), Query("met", limit=5))).reasons == ("cold_start",)
    assert pipeline.reader.last_seen.last(pipeline.reader.project, "met") is None


async def test_a_user_whom_only_the_stream_knows_is_new_to_the_models_but_not_to_the_sources(
    pipeline: Pipeline,
) -> None:
    met = with_store(pipeline, Streamed("met", KNOWN, recent=("item-01", "item-02")))
    answer = await ask(met, Query("met", limit=10))
    assert (answer.level, answer.reasons) == (Level.FULL, ("cold_start",))
    assert "collaborative" in {source for item in answer.items for source in item.sources}
    assert (await ask(met)).reasons == ("features.missing",)


async def test_recent_items_alone_make_a_personal_slate(pipeline: Pipeline) -> None:
    answer = await ask(pipeline, Query(None, limit=10, recent_item_ids=("item-01", "item-02", "item-03")))
    assert answer.level is Level.FULL
    assert {source for item in answer.items for source in item.sources} > {"popularity"}
    assert not {"item-01", "item-02", "item-03"} & {item.item_id for item in answer.items}


@pytest.mark.parametrize(
    ("ranker", "reason"),
    [
        (Ranker(Unreachable("triton")), "ranking.unavailable"),
        (Ranker(Late("triton")), "ranking.timeout"),
        (Ranker(BadAnswer("triton")), "ranking.bad_answer"),
        (Ranker(lambda c: np.full(len(c), np.nan, np.float32)), "ranking.bad_answer"),
        (Ranker(lambda c: np.full(len(c) + 1, 0.5, np.float32)), "ranking.bad_answer"),
        (Ranker(lambda c: np.full(len(c), 0.5, np.float32)), "ranking.bad_answer"),
    ],
)
async def test_scores_that_cannot_be_had_or_trusted_mean_simple_ranking(
    pipeline: Pipeline, ranker: Ranker, reason: str
) -> None:
    answer = await ask(replace(pipeline, ranker=ranker))
    assert (answer.level, answer.reasons) == (Level.SIMPLE_RANKING, (reason,))
    assert len({item.score for item in answer.items}) > 1


async def test_redis_and_triton_both_gone_is_still_a_ranked_slate(pipeline: Pipeline) -> None:
    answer = await ask(with_store(replace(pipeline, ranker=Ranker(Late("x"))), Store(error=Late("x"))))
    assert (answer.level, answer.reasons) == (Level.SIMPLE_RANKING, ("features.timeout", "ranking.timeout"))
    assert len(answer.items) == 5


async def test_no_source_at_all_is_the_users_list_and_popular_items_for_a_stranger(pipeline: Pipeline) -> None:
    names = [source.name for source in pipeline.sources]
    down = replace(pipeline, sources=tuple(Source(name, Unreachable(name)) for name in names))
    known, stranger = await ask(down), await ask(down, Query("stranger", limit=5))
    assert (known.level, stranger.level) == (Level.BATCH_LIST, Level.POPULAR)
    assert len(known.items) == len(stranger.items) == 5
    assert known.items != stranger.items


async def test_a_deadline_that_has_passed_asks_nobody(pipeline: Pipeline) -> None:
    asked = []

    class Asked(Source):
        async def retrieve(self, request, user, deadline):
            asked.append(self.name)
            return Candidates.none()

    idle = replace(pipeline, sources=tuple(Asked(source.name, []) for source in pipeline.sources))
    answer = await recommend(idle, Query(KNOWN, limit=5), Deadline.after(-1))
    assert answer.level is Level.BATCH_LIST
    assert answer.reasons == ("deadline.expired",)
    assert len(answer.items) == 5
    assert asked == []


async def test_seen_items_stay_out_of_precomputed_lists_too(pipeline: Pipeline) -> None:
    answer = precomputed(pipeline, Query(KNOWN, limit=50), "why.not")
    users, items = pipeline.reader.users, pipeline.items
    seen = {items.ids.text(row) for row in users.history(users.ids.row(KNOWN)).item_row}
    assert answer.items
    assert not seen & {item.item_id for item in answer.items}


async def test_the_answer_leaves_by_the_deadline_whatever_hangs(pipeline: Pipeline) -> None:
    class Hanging(Store):
        async def read(self, user_id):
            await asyncio.Event().wait()

    class HangingRanker(Ranker):
        async def score(self, user, candidates, deadline):
            await asyncio.Event().wait()

    hung = with_store(replace(pipeline, ranker=HangingRanker()), Hanging())
    deadline = Deadline.after(0.3)
    answer = await recommend(hung, Query(KNOWN, limit=5), deadline)
    assert not deadline.expired
    assert answer.level is Level.SIMPLE_RANKING
    assert len(answer.items) == 5


async def test_a_promoted_item_is_shown_at_its_slot_and_says_so(pipeline: Pipeline) -> None:
    users = pipeline.reader.users
    unseen = np.setdiff1d(np.arange(40), users.history(users.ids.row(KNOWN)).item_row)[-1:].astype(np.int32)
    campaign = Campaign("spring", unseen, (2,), 0.0, 9e9)
    answer = await ask(replace(pipeline, campaigns=(campaign,)))
    assert answer.items[2].item_id == pipeline.items.ids.text(int(unseen[0]))
    assert answer.items[2].rule == "promotion"


@pytest.mark.parametrize("seconds", [5.0, 0.001], ids=["ranked", "precomputed"])
async def test_what_an_audience_may_not_see_is_on_no_rung(pipeline: Pipeline, seconds: float) -> None:
    n = len(pipeline.items)
    even = np.arange(n) % 2 == 0
    unknown = np.full(n, -1, np.int32)
    ages = np.where(even, 6, 18).astype(np.float32)
    facets = Facets(unknown, (), unknown, (), ages, True, np.zeros((n, 0), np.bool_), (), np.full(n, np.nan))
    rated = replace(pipeline, items=replace(pipeline.items, facets=facets))
    query = Query(KNOWN, limit=10, context=Context(max_age_rating=12.0))
    answer = await ask(rated, query, seconds)
    assert (answer.level >= Level.BATCH_LIST) == (seconds < 1)
    assert len(answer.items) == 10
    assert all(int(item.item_id.removeprefix("item-")) % 2 == 0 for item in answer.items)


async def test_a_bug_is_counted_and_still_answered(pipeline: Pipeline, process: Process, tiny_bundle: Bundle) -> None:
    broken = replace(pipeline, sources=(Source("popularity", ZeroDivisionError()), *pipeline.sources[1:]))
    serving = Serving(process, tiny_bundle, broken, lambda _: None)
    answer = await serving.recommend(Query(KNOWN, limit=5), Deadline.after(1))
    assert answer.level is Level.BATCH_LIST
    assert answer.reasons == ("service.bug",)
    assert len(answer.items) == 5


async def test_what_the_stream_told_stays_out_of_precomputed_lists_too(pipeline: Pipeline) -> None:
    listed = [item.item_id for item in precomputed(pipeline, Query(KNOWN, limit=5), "why.not").items]
    streamed = with_store(pipeline, Store(KNOWN, recent=tuple(listed[:2])))
    await ask(streamed)
    after = {item.item_id for item in precomputed(streamed, Query(KNOWN, limit=50), "why.not").items}
    assert not after & set(listed[:2])


async def test_a_user_whom_the_store_forgot_is_forgotten_here(pipeline: Pipeline) -> None:
    await ask(with_store(pipeline, Store("gone", recent=("item-10",))), Query("gone", limit=5))
    await ask(with_store(pipeline, Store()), Query("gone", limit=5))
    answer = await ask(with_store(pipeline, Store(error=Unreachable("redis"))), Query("gone", limit=50))
    assert "item-10" in {item.item_id for item in answer.items}


async def test_features_kept_from_another_project_are_not_used(pipeline: Pipeline) -> None:
    await ask(with_store(pipeline, Store("new", recent=("item-10",))), Query("new", limit=5))
    away = with_store(pipeline, Store(error=Unreachable("redis")))
    other = replace(away, reader=replace(away.reader, project="another"))
    assert "item-10" in {item.item_id for item in (await ask(other, Query("new", limit=50))).items}


async def test_a_list_filled_up_with_popular_items_says_popular(pipeline: Pipeline) -> None:
    assert precomputed(pipeline, Query(KNOWN, limit=5), "why.not").level is Level.BATCH_LIST
    assert precomputed(pipeline, Query(KNOWN, limit=40), "why.not").level is Level.POPULAR


async def test_a_stranger_whom_no_ranker_was_asked_about_tells_nothing_of_load(
    pipeline: Pipeline, process: Process, tiny_bundle: Bundle
) -> None:
    patient = replace(pipeline, budget=replace(pipeline.budget, features=5.0, retrieval=5.0, ranking=5.0))
    serving = Serving(process, tiny_bundle, patient, lambda _: None)
    process.admission.limit.clock = lambda: 1.0  # what succeeded once has succeeded just now
    stranger = await serving.recommend(Query("stranger", limit=5), Deadline.after(5))
    assert (stranger.level, stranger.ranked > 5) == (Level.FULL, True)
    assert not process.admission.limit.succeeding
    await serving.recommend(Query(KNOWN, limit=5), Deadline.after(5))
    assert process.admission.limit.succeeding
