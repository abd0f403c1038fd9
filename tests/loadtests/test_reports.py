"""What a chaos run concludes from samples, and that its table, page and pictures can be made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.machine import measured_on
from domain.degradation import DegradationLevel as Level
from loadtests.chaos import PLAYS, joined, parted
from loadtests.chaos_report import BEGIN, END, chaos_table, draw, show_in, write_report
from loadtests.load_result import LoadResult, Sample
from loadtests.open_loop import budget
from loadtests.scenarios import Outcome, Scenario, judged, nothing, recovery_seconds
from loadtests.special_scenarios import _overload_broken
from loadtests.sweep import draw_sweep, sweep_table

PROMISES = budget("chaos")
WHERE = measured_on() | {"date": "1970-01-01"}
SIMPLE = Scenario("triton_dead", Level.SIMPLE_RANKING, nothing)


def load(*levels: str, seconds: float = 0.01, rate: float = 10) -> LoadResult:
    return LoadResult(rate, len(levels) / rate, [Sample(i / rate, seconds, 200, at) for i, at in enumerate(levels)])


def test_the_level_that_was_expected_keeps_the_promise_and_better_ones_with_it() -> None:
    assert judged(SIMPLE, load("FULL", "SIMPLE_RANKING"), 0.5, PROMISES) == []


@pytest.mark.parametrize(
    ("during", "recovery", "told"),
    [
        (load("SIMPLE_RANKING", "BATCH_LIST"), 0.5, "1 answers below SIMPLE_RANKING, down to BATCH_LIST"),
        (load("FULL"), 0.5, "not felt"),
        (load("SIMPLE_RANKING", seconds=0.3), 0.5, "p95 300 ms"),
        (load("SIMPLE_RANKING"), 3.5, "FULL again after 3.5 s"),
        (LoadResult(1, 2, [Sample(0, 0.1, 200, "SIMPLE_RANKING"), Sample(1, 0.1, 429, "")]), 0.5, "429: 1"),
    ],
)
def test_each_promise_can_be_broken(during: LoadResult, recovery: float, told: str) -> None:
    (broken,) = judged(SIMPLE, during, recovery, PROMISES)
    assert told in broken


def test_a_scenario_with_a_tail_of_its_own_is_held_to_it() -> None:
    scenario = Scenario("both_dead", Level.SIMPLE_RANKING, nothing)
    assert judged(scenario, load("SIMPLE_RANKING", seconds=0.05), 0.0, PROMISES) == ["p99 50.0 ms, promised 40"]


def test_recovered_means_twenty_in_a_row() -> None:
    flapping = ["SIMPLE_RANKING", "FULL"] * 5 + ["FULL"] * 30
    assert recovery_seconds(load(*flapping)) == pytest.approx(0.91)
    assert recovery_seconds(load(*["FULL"] * 19)) == float("inf")


def test_recovery_counts_from_the_moment_of_mending_not_from_the_end_of_the_load_around_it() -> None:
    """Ten a second, mended in the middle of a part: four answers of that part were still worse."""
    whole = joined([load(*["SIMPLE_RANKING"] * 14), load(*["FULL"] * 30)])
    whole = LoadResult(10, 4.4, [part._replace(due=at / 10) for at, part in enumerate(whole.samples)])
    during, after = parted(whole, 1.0)
    assert (len(during.samples), len(after.samples)) == (10, 34)
    assert [during.seconds, after.seconds] == pytest.approx([1.0, 3.4])
    assert recovery_seconds(after) == pytest.approx(0.41)


def test_overload_is_judged_by_what_came_in_time_on_the_full_path() -> None:
    wanted = PROMISES["overload"] | {"capacity": 10}
    assert _overload_broken(load(*["FULL"] * 9, "BATCH_LIST", seconds=0.004), wanted) == []
    late = load(*["FULL"] * 9, "BATCH_LIST", seconds=0.25)
    assert len(_overload_broken(late, wanted)) == 2


def test_the_table_the_page_and_the_pictures_are_made(tmp_path: Path) -> None:
    during = joined([load(*["FULL"] * 5), load(*["SIMPLE_RANKING"] * 5)])
    outcome = Outcome("triton_dead", "SIMPLE_RANKING", during, 0.4, (), whole=during)
    assert "triton_dead" in chaos_table([outcome])
    draw([outcome], tmp_path / "img" / "chaos.png")
    write_report([outcome], tmp_path / "CHAOS.md", WHERE, tmp_path)
    page = (tmp_path / "CHAOS.md").read_text()
    assert "Every promise was kept" in page
    assert "1970-01-01" in page
    draw_sweep([load("FULL"), load("FULL", rate=20)], tmp_path / "sweep.png")
    assert "20" in sweep_table([load("FULL", rate=20)])
    assert (tmp_path / "sweep.png").stat().st_size > 1000


def test_the_readme_shows_the_last_run_between_its_marks(tmp_path: Path) -> None:
    during = load(*["FULL"] * 5)
    outcome = Outcome("calm", "FULL", during, 0.1, (), whole=during, told="no cloud")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        show_in(readme, [outcome], WHERE)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert text.count("FULL 100.0%; no cloud") == 1
    assert "old" not in text


def test_the_readme_has_the_marks() -> None:
    show = Path(__file__).resolve().parents[2] / "README.md"
    assert show.read_text().index(BEGIN) < show.read_text().index(END)


def test_fewer_candidates_are_still_the_full_path_and_a_list_is_not() -> None:
    wanted = PROMISES["overload"] | {"capacity": 10}
    narrowed = [Sample(i / 10, 0.05, 200, "PARTIAL_RETRIEVAL", ("narrowed",)) for i in range(10)]
    assert _overload_broken(LoadResult(10, 1.0, narrowed), wanted) == []
    without = [part._replace(reasons=("narrowed", "content.timeout")) for part in narrowed]
    assert len(_overload_broken(LoadResult(10, 1.0, without), wanted)) == 1


def test_every_tail_in_the_budget_belongs_to_a_scenario() -> None:
    assert set(PROMISES["p99_ms"]) <= set(PLAYS)
