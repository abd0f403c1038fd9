"""What is wrong with a dataset folder, doubtful about it, or worth knowing, in plain words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from domain.request import MAX_ID_BYTES
from features.contract import GENRE_SLOTS
from training.folder import (
    EVENTS,
    ITEMS,
    RATINGS,
    SETTINGS,
    USERS,
    Report,
    Settings,
    Tables,
    genres_by_frequency,
    log_of,
    open_tables,
    read_settings,
    seconds_of,
)

CONTROL_CHARACTERS = r"[\x00-\x1f\x7f]"
ORPHANS_SHARE = 0.5
"""Items leave a catalogue and their events stay in the log; where most events have no item, the ids do not match."""
MILLISECONDS_FROM = 1e11
"""A number of seconds that large lies in the year 5138; it is a number of milliseconds."""


def validate(folder: Path) -> Report:
    """Everything that is wrong, doubtful or worth knowing about the folder; raises nothing for what it contains."""
    report = Report(str(folder))
    settings = read_settings(folder, report)
    tables = open_tables(folder, report)
    if ITEMS in tables:
        _check_items(tables[ITEMS], report)
    log = log_of(tables)
    if log is not None:
        _check_events(log, settings, report)
    if not report.problems and log is not None:
        _check_references(tables, report)
        report.untrained += _untrained(tables[ITEMS], log)
    return report


def _check_usable(name: str, table: pa.Table, column: str, report: Report) -> None:
    """Ids must be there, and such that a request can carry them."""
    ids = table[column].fill_null("")
    size = pc.binary_length(ids)
    sound = pc.and_(pc.greater(size, 0), pc.less_equal(size, MAX_ID_BYTES))
    wrong = pc.or_(pc.invert(sound), pc.match_substring_regex(ids, CONTROL_CHARACTERS))
    unusable = pc.sum(wrong).as_py()
    if unusable:
        why = f"missing, empty, over {MAX_ID_BYTES} bytes or with control characters"
        report.problems.append(f"{name}: {unusable:,} rows have no usable {column} ({why})")


def _check_ids(name: str, table: pa.Table, column: str, report: Report) -> None:
    """An id column that must be full and unique."""
    _check_usable(name, table, column, report)
    repeated = len(table) - len(pc.unique(table[column]))
    if repeated:
        report.problems.append(f"{name}: {repeated:,} rows repeat the {column} of another row")


def _check_items(items: pa.Table, report: Report) -> None:
    report.counts["items"] = len(items)
    if not len(items):
        report.problems.append(f"{ITEMS} has no rows")
        return
    _check_ids(ITEMS, items, "item_id", report)
    if items["title"].null_count:
        report.warnings.append(f"{ITEMS}: {items['title'].null_count:,} items have no title")
    if "year" in items.column_names and items["year"].null_count:
        report.warnings.append(f"{ITEMS}: {items['year'].null_count:,} items have no year")
    if "genres" not in items.column_names:
        report.warnings.append(f"{ITEMS}: there are no genres; content and diversity have less to go by")
        return
    distinct = len(genres_by_frequency(items))
    if distinct > GENRE_SLOTS:
        report.warnings.append(f"{ITEMS}: {distinct:,} genres, of which the {GENRE_SLOTS} most frequent are kept")


def _check_events(log: pa.Table, settings: Settings | None, report: Report) -> None:
    name = RATINGS if "rating" in log.column_names else EVENTS
    report.counts["events"] = len(log)
    if not len(log):
        report.problems.append(f"{name} has no rows")
        return
    report.counts = {"users": len(pc.unique(log["user_id"])), **report.counts}
    for column in ("user_id", "item_id"):
        _check_usable(name, log, column, report)
    _check_times(name, log, report)
    if name == RATINGS:
        _check_ratings(log, report)
    elif settings is not None and not settings.positive_events:
        report.problems.append(f"{SETTINGS}: positive.events must say which words of {EVENTS} are positive")


def _check_times(name: str, log: pa.Table, report: Report) -> None:
    if log["timestamp"].null_count:
        report.problems.append(f"{name}: {log['timestamp'].null_count:,} rows have no timestamp")
        return
    seconds = seconds_of(log["timestamp"])
    if not np.isfinite(seconds).all() or seconds.min() < 0:
        report.problems.append(f"{name}: there are timestamps before 1970 or not finite")
    elif seconds.max() >= MILLISECONDS_FROM:
        report.problems.append(f"{name}: timestamps must be seconds; these look like milliseconds")
    elif (np.diff(seconds) < 0).any():
        report.warnings.append(f"{name}: rows are not in the order of time; they are sorted when read")


def _check_ratings(log: pa.Table, report: Report) -> None:
    stars = log["rating"].cast(pa.float32()).to_numpy()
    outside = int(((stars < 0) | (stars > 5)).sum())
    if outside:
        report.problems.append(f"{RATINGS}: {outside:,} ratings lie outside 0 to 5")
    missing = int(np.isnan(stars).sum())
    if missing:
        report.warnings.append(f"{RATINGS}: {missing:,} rows have no rating and count as positive")


def _check_references(tables: Tables, report: Report) -> None:
    """Ids in one file that another file should know, and events told twice."""
    log = log_of(tables)
    if log is None:
        return
    orphans = pc.sum(pc.invert(pc.is_in(log["item_id"], pc.unique(tables[ITEMS]["item_id"])))).as_py()
    if orphans > ORPHANS_SHARE * len(log):
        report.problems.append(f"{orphans:,} events name an item that {ITEMS} does not have")
    elif orphans:
        report.warnings.append(f"{orphans:,} events of items that {ITEMS} does not have (any more) are left out")
    if USERS in tables:
        _check_ids(USERS, tables[USERS], "user_id", report)
        report.counts["users"] = len(
            pc.unique(pa.chunked_array([*log["user_id"].chunks, *tables[USERS]["user_id"].chunks]))
        )
    twice = len(log) - log.group_by(["user_id", "item_id", "timestamp"]).aggregate([]).num_rows
    if twice:
        report.warnings.append(
            f"{twice:,} events repeat another of the same user, item and second; one of each is kept"
        )


def _untrained(items: pa.Table, log: pa.Table) -> list[str]:
    """Features of the contract that this dataset has no column for."""
    missing = ["context_device", "context_surface"]
    if "rating" not in log.column_names:
        missing += ["user_rating_mean_stars", "user_rating_std_stars", "item_rating_mean_stars"]
    if "year" not in items.column_names or items["year"].null_count == len(items):
        missing += ["user_item_age_mean_years", "user_item_age_std_years", "item_age_years"]
    if "genres" not in items.column_names or not genres_by_frequency(items):
        missing += ["user_genre_taste_ratio", "user_genre_recent_ratio", "item_genres_count", "item_genre_flag"]
    return missing
