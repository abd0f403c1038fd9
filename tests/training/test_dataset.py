"""A dataset folder is judged in plain words and read as columns."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from domain.errors import DatasetError
from tests.training.conftest import ITEMS, RATINGS, TOML, MakeFolder
from training.dataset import Dataset, read, validate


def test_a_sound_folder_has_no_problems_and_is_counted(make_folder: MakeFolder) -> None:
    report = validate(make_folder())
    assert report.usable
    assert report.counts == {"users": 2, "items": 3, "events": 3}
    assert {"context_device", "context_surface"} <= set(report.untrained)
    assert "item_age_years" not in report.untrained
    assert "3 items" in str(report)
    assert str(report).endswith("usable")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"toml": None}, "dataset.toml is missing"),
        ({"toml": "name = "}, "dataset.toml cannot be read"),
        ({"toml": 'name = "x"\nclock = "sundial"\n[positive]\nrating = 4\n'}, "clock must be one of live, replay"),
        ({"toml": 'name = "x"\nclock = "live"\n'}, "[positive] must give rating"),
        ({"toml": 'name = "x"\nclock = "live"\n[positive]\nrating = true\n'}, "positive.rating must be a number"),
        ({"items": None, "ratings": RATINGS}, "items.parquet is missing"),
        ({"users": {"user_id": ["1"]}}, "neither ratings.parquet nor events.parquet is there"),
        ({"items": {"item_id": ["a"]}}, "column title is missing"),
        ({"items": {**ITEMS, "item_id": [1, 2, 3]}}, "column item_id must be text, it is int64"),
        ({"items": {**ITEMS, "genres": ["Comedy", "Action", ""]}}, "column genres must be a list of text"),
        ({"items": {**ITEMS, "item_id": ["a", "a", "c"]}}, "1 rows repeat the item_id of another row"),
        ({"items": {**ITEMS, "item_id": ["a", None, "c"]}}, "1 rows have no usable item_id"),
        ({"ratings": {**RATINGS, "item_id": ["x", "b", "zebra"]}}, "2 events name an item that items.parquet"),
        ({"ratings": {**RATINGS, "user_id": ["1", "", "2"]}}, "1 rows have no usable user_id"),
        ({"items": {**ITEMS, "item_id": ["a", "b" * 257, "c\0"]}}, "2 rows have no usable item_id"),
        ({"ratings": {**RATINGS, "rating": [5.0, 11.0, 1.0]}}, "1 ratings lie outside 0 to 5"),
        ({"ratings": {**RATINGS, "timestamp": ["x", "y", "z"]}}, "column timestamp must be a timestamp or a number"),
        ({"ratings": {**RATINGS, "timestamp": [1, 2, 1_600_000_000_000]}}, "these look like milliseconds"),
        ({"ratings": {**RATINGS, "timestamp": [1, 2, None]}}, "1 rows have no timestamp"),
        ({"ratings": {**RATINGS, "timestamp": [-5, 2, 3]}}, "timestamps before 1970"),
        ({"ratings": {key: [] for key in RATINGS}}, "column user_id must be text"),
        ({"ratings": RATINGS, "users": {"user_id": ["9", "9"]}}, "1 rows repeat the user_id"),
    ],
)
def test_each_defect_is_told_in_plain_words_and_refused(
    make_folder: MakeFolder, changes: dict[str, Any], told: str
) -> None:
    folder = make_folder(**changes)
    report = validate(folder)
    assert not report.usable
    assert any(told in problem for problem in report.problems), report.problems
    with pytest.raises(DatasetError) as refused:
        read(folder)
    assert refused.value.problems == tuple(report.problems)


def test_all_problems_are_told_at_once(make_folder: MakeFolder) -> None:
    report = validate(make_folder(toml=None, items={"item_id": [1]}))
    assert len(report.problems) == 3


def test_doubtful_things_are_warnings_and_do_not_forbid_training(make_folder: MakeFolder) -> None:
    twice = {key: [*values, values[0]] for key, values in RATINGS.items()}
    report = validate(make_folder(ratings=twice))
    assert report.usable
    told = " ".join(report.warnings)
    assert "1 items have no title" in told
    assert "1 items have no year" in told
    assert "not in the order of time" in told
    assert "1 events repeat another" in told
    assert len(read(make_folder(name="again", ratings=twice)).item_row) == 3


def test_a_file_that_is_no_parquet_is_a_problem(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "items.parquet").write_bytes(b"not this")
    assert any("not a readable Parquet file" in problem for problem in validate(folder).problems)


def columns(dataset: Dataset) -> list[tuple[str, str, float]]:
    return [
        (dataset.user_ids.text(user), dataset.item_ids.text(item), time)
        for user, item, time in zip(
            dataset.user_row.tolist(), dataset.item_row.tolist(), dataset.timestamp.tolist(), strict=True
        )
    ]


def test_events_are_by_user_and_time_whatever_the_order_of_the_files(make_folder: MakeFolder) -> None:
    dataset = read(make_folder())
    backwards = {key: values[::-1] for key, values in RATINGS.items()}
    reversed_items = {**ITEMS, "item_id": ["c", "b", "a"]}
    assert columns(dataset) == [("1", "a", 100.0), ("1", "b", 200.0), ("2", "c", 150.0)]
    assert columns(read(make_folder(items=reversed_items, name="b", ratings=backwards))) == columns(dataset)


def test_ties_are_in_the_order_of_the_digest_of_user_and_item(make_folder: MakeFolder) -> None:
    items = [f"i{n}" for n in range(20)]
    ratings = {"user_id": ["u"] * 20, "item_id": items, "rating": [4.0] * 20, "timestamp": [7] * 20}
    dataset = read(make_folder(items={"item_id": items, "title": items}, ratings=ratings))
    expected = sorted(items, key=lambda item: hashlib.sha256(f"u:{item}".encode()).hexdigest())
    assert [item for _, item, _ in columns(dataset)] == expected


def test_timestamps_of_any_unit_become_utc_seconds(make_folder: MakeFolder) -> None:
    stamped = {**RATINGS, "timestamp": pa.array([100_000, 200_500, 150_000], pa.timestamp("ms", "UTC"))}
    assert read(make_folder(ratings=stamped)).timestamp.tolist() == [100.0, 200.5, 150.0]


def test_null_years_empty_genres_and_other_scripts_are_kept(make_folder: MakeFolder) -> None:
    dataset = read(make_folder())
    assert dataset.titles.text(0) == "Amélie"
    assert dataset.titles.text(1) == "七人の侍"
    assert dataset.titles.text(2) == ""
    assert np.isnan(dataset.year[2])
    assert dataset.genre_names == ("Action", "Comedy", "Drama")
    assert dataset.genres[:, :3].tolist() == [[False, True, False], [True, False, True], [False, False, False]]


def test_of_too_many_genres_the_most_frequent_are_kept(make_folder: MakeFolder) -> None:
    names = [f"g{n:02d}" for n in range(30)]
    items = {"item_id": ["a", "b", "c"], "title": ["", "", ""], "genres": [names, names[3:], names[5:]]}
    dataset = read(make_folder(items=items))
    assert dataset.genre_names == tuple(names[5:29])


def test_a_dataset_without_years_and_genres_names_what_stays_untrained(make_folder: MakeFolder) -> None:
    bare = {"item_id": ["a", "b", "c"], "title": ["x", "y", "z"]}
    dataset = read(make_folder(items=bare))
    assert {"item_age_years", "item_genre_flag", "user_genre_taste_ratio"} <= set(dataset.untrained)
    assert dataset.genre_names == ()
    assert np.isnan(dataset.year).all()


def test_events_instead_of_ratings_are_positive_by_their_word(make_folder: MakeFolder) -> None:
    events = {key: values for key, values in RATINGS.items() if key != "rating"} | {"event": ["watch", "skip", "watch"]}
    toml = TOML.replace("rating = 4.0", 'events = ["watch"]')
    dataset = read(make_folder(toml=toml, events=events))
    assert np.isnan(dataset.rating).tolist() == [True, False, True]
    assert "user_rating_mean_stars" in dataset.untrained
    told = validate(make_folder(name="silent", events=events)).problems
    assert any("which words of events.parquet are positive" in problem for problem in told)


def test_users_who_did_nothing_yet_are_known(make_folder: MakeFolder) -> None:
    dataset = read(make_folder(ratings=RATINGS, users={"user_id": ["0", "1"]}))
    assert [dataset.user_ids.text(row) for row in range(3)] == ["0", "1", "2"]
    assert len(dataset.history(0)) == 0
    assert dataset.history(1).timestamp.tolist() == [100.0, 200.0]


def test_the_digest_follows_the_content(make_folder: MakeFolder) -> None:
    one, same = read(make_folder()), read(make_folder(name="same"))
    other = read(make_folder(name="other", toml=TOML.replace("4.0", "3.5")))
    assert one.sha256 == same.sha256 != other.sha256


def test_the_optional_columns_of_the_items_reach_the_item_table_in_row_order(make_folder: MakeFolder) -> None:
    more = {
        "item_id": ["c", "b", "a"],  # not in the order of the item table
        "creator_id": ["y", "x", None],
        "age_rating": pa.array([12, 0, None], pa.int8()),
        "regions": [["FR", "DE"], ["DE"], None],
        "published_at": [1e6, 2e6, None],
    }
    facets = read(make_folder(items={**ITEMS, **more})).facets
    assert facets is not None
    assert facets.creator_names == ("x", "y")
    assert facets.creator.tolist() == [-1, 0, 1]
    assert facets.rated
    np.testing.assert_equal(facets.age_rating, [np.nan, 0, 12])
    np.testing.assert_equal(facets.published_at, [np.nan, 2e6, 1e6])
    assert facets.region_names == ("DE", "FR")
    assert facets.regions.tolist() == [[False, False], [True, False], [True, True]]
    assert facets.language.tolist() == [-1, -1, -1]


def test_a_dataset_without_optional_columns_has_no_facets(make_folder: MakeFolder) -> None:
    assert read(make_folder()).facets is None
