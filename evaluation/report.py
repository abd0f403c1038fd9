"""What came out of an evaluation, as Markdown for a person and as a document for a program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.baselines import best
from evaluation.plots import draw
from evaluation.protocol import Evaluation, Run
from evaluation.targets import Target, against_best
from training.fairness import equity, least_served

REPORT, DOCUMENT = "report.md", "evaluation.json"
METRICS = ("recall_at_500", "hit_at_10", "ndcg_at_10", "ndcg_at_20")
HEADINGS = ("model", "Recall@500", "Hit@10", "NDCG@10", "NDCG@20")

PROTOCOL = """Per user, by time with ties broken by a digest: sources are fitted on what lies before the judged part,
rankers and every choice on earlier parts. Positives are what was liked in the judged part, every item that the user has
not met before is a candidate, one ranking a user. **Other users' later events are visible to every model alike**: the
split is by each user's own time, so this compares models; it does not foretell the numbers of a live service."""


def write(evaluation: Evaluation, targets: Sequence[Target], notes: Sequence[str], folder: Path) -> Path:
    """Report, document and pictures into ``folder``; the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw(evaluation, folder)
    (folder / DOCUMENT).write_text(json.dumps(document(evaluation, targets, notes), indent=1) + "\n")
    (folder / REPORT).write_text(markdown(evaluation, targets, notes, pictures))
    return folder / REPORT


def document(evaluation: Evaluation, targets: Sequence[Target], notes: Sequence[str]) -> dict[str, Any]:
    """Everything but the numbers of single users, fit for JSON: NaN has become null."""
    comparison = against_best(evaluation)
    whole = {
        "dataset": evaluation.dataset,
        "data_sha256": evaluation.data_sha256,
        "part": evaluation.part,
        "users": evaluation.users,
        "positives": evaluation.positives,
        "notes": list(notes),
        "baselines": {
            part.name: {**part.quality.means(), "parameters": part.parameters} for part in evaluation.baselines
        },
        "seeds": {str(run.seed): _run(run) for run in evaluation.runs},
        "best_baseline": best(evaluation.baselines).name,
        "over_best_baseline": asdict(comparison),
        "targets": [asdict(target) for target in targets],
    }
    plain: dict[str, Any] = _plain(whole)
    return plain


def _run(run: Run) -> dict[str, Any]:
    return {
        "models": {name: found.means() for name, found in run.models.items()},
        "rankers": {
            name: {
                "auc": numbers.auc,
                "auc_within_user": numbers.auc_within_user,
                "log_loss": numbers.log_loss,
                "calibration_error": numbers.reliability.error,
                "reliability": asdict(numbers.reliability),
            }
            for name, numbers in run.rankers.items()
        },
        "shown": asdict(run.shown),
        "slices": [asdict(part) for part in run.slices],
        "user_groups": {name: [asdict(group) for group in groups] for name, groups in run.user_groups.items()},
        "item_groups": {
            name: [
                {**asdict(group), "exposure_over_merit": group.over_merit, "judged": group.judged} for group in groups
            ]
            for name, groups in run.item_groups.items()
        },
        "hit_disparity": run.hit_disparity,
        "exposure_equity": run.exposure_equity,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    return None if isinstance(value, float) and not np.isfinite(value) else value


def markdown(
    evaluation: Evaluation, targets: Sequence[Target], notes: Sequence[str], pictures: Sequence[str] = ()
) -> str:
    """The whole report; details are those of the first seed."""
    first = evaluation.runs[0]
    seeds = ", ".join(str(run.seed) for run in evaluation.runs)
    of = f"{evaluation.users} users with {evaluation.positives} positives in the {evaluation.part} part"
    parts = [
        f"# {evaluation.dataset}: {of}",
        f"Data `{evaluation.data_sha256[:12]}`, seeds {seeds}.\n\n{PROTOCOL}",
        *([_list(notes)] if notes else []),
        f"## Models\n\nMean over the seeds, with the spread where there are several.\n\n{quality_table(evaluation)}",
        f"Baselines were tuned on validation: {_tuned(evaluation)}.",
        *[f"![{name.removesuffix('.png')}]({name})" for name in pictures],
        f"## Rankers\n\nSeed {first.seed}.\n\n{_rankers(first)}",
        f"## What is shown\n\n{_shown(first)}",
        f"## Cold and warm\n\n{_slices(first)}",
        f"## Users by group\n\n{_users(first)}\n\n{_by_activity(evaluation)}",
        f"## Items by group\n\n{_items(first)}",
        f"## Targets\n\n{targets_table(targets)}",
    ]
    return "\n\n".join(parts) + "\n"


def quality_table(evaluation: Evaluation) -> str:
    """Baselines, sources and orders; for a single source only its recall means something."""
    rows = [(part.name, *(f"{part.quality.means()[name]:.4f}" for name in METRICS)) for part in evaluation.baselines]
    rows += [
        (model, *(_spread(evaluation.by_seed(model, name)) for name in METRICS)) for model in evaluation.runs[0].models
    ]
    return _table(HEADINGS, rows)


def targets_table(targets: Sequence[Target]) -> str:
    rows = [(part.name, part.wanted, part.found, "met" if part.met else "**not met**") for part in targets]
    return _table(("target", "wanted", "found", ""), rows)


def _spread(values: Sequence[float]) -> str:
    """The mean, and the standard deviation over several seeds."""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def _tuned(evaluation: Evaluation) -> str:
    return "; ".join(f"{part.name} with {part.parameters}" for part in evaluation.baselines if part.parameters)


def _rankers(run: Run) -> str:
    rows = [
        (name, *(f"{value:.4f}" for value in (part.auc, part.auc_within_user, part.log_loss, part.reliability.error)))
        for name, part in run.rankers.items()
    ]
    return _table(("ranker", "AUC", "AUC within a user", "log loss", "calibration error"), rows)


def _shown(run: Run) -> str:
    shown = run.shown
    facts = [
        f"coverage: {shown.coverage:.3f} of the eligible items are in a slate",
        f"novelty: {shown.novelty_bits:.2f} bits",
        f"places that go to items with few known events: {shown.cold_item_share:.3f}",
    ]
    return _list(facts)


def _slices(run: Run) -> str:
    rows = [
        (p.name, str(p.size), *(f"{v:.4f}" for v in (p.recall_at_500, p.hit_at_10, p.ndcg_at_10))) for p in run.slices
    ]
    return _table(("after the rules", "size", "Recall@500", "Hit@10", "NDCG@10"), rows)


def _users(run: Run) -> str:
    rows = [
        (f"{column}: {group.name}", str(group.users), f"{group.hit_at_10:.3f}", f"{group.hit_of_one:.3f}")
        for column, groups in run.user_groups.items()
        for group in groups
    ]
    table = _table(("group", "users", "Hit@10", "with one positive a user"), rows)
    return f"{table}\n\nDisparity of Hit@10: {run.hit_disparity:.3f}."


def _by_activity(evaluation: Evaluation) -> str:
    """Every model's Hit@10 by activity: whether a disparity is of a model or of the data."""
    hits = {part.name: part.quality.hit_at_10 for part in evaluation.baselines}
    hits |= {name: evaluation.mean(name, "hit_at_10") for name in evaluation.runs[0].models}
    rows = []
    for name, hit in hits.items():
        means = evaluation.activity.means(hit)
        rows.append((name, *(f"{mean:.3f}" for mean in means), f"{np.ptp(means):.3f}"))
    headings = ("Hit@10 by activity", *(name[2:] for name in evaluation.activity.names), "disparity")
    return _table(headings, rows)


def _items(run: Run) -> str:
    rows = [
        (
            f"{column}: {group.name}",
            f"{group.positives:.0f}",
            f"{group.merit_share:.4f}",
            f"{group.exposure_share:.4f}",
            f"{group.over_merit:.2f}" if group.judged else "too few",
        )
        for column, groups in run.item_groups.items()
        for group in groups
    ]
    table = _table(("group", "positives", "merit", "exposure", "exposure over merit"), rows)
    return f"{_equity(run)}\n\n{table}"


def _equity(run: Run) -> str:
    """The overlap for each set of groups, and who is served least."""
    told = []
    for column, groups in run.item_groups.items():
        line, least = f"{column}: equity {equity(groups):.3f}", least_served(groups)
        told.append(f"{line}; least {least.name}, {least.over_merit:.2f} of its merit" if least else line)
    return _list(told)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)
