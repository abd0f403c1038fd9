"""`streamrec evaluate`, and what `streamrec train` does after the training: gates and the record of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings
from app.table import table
from evaluation import of_bundle, report
from evaluation.protocol import Evaluation, Part, evaluate
from evaluation.targets import Target, read_absolute, targets
from evaluation.tracking import track
from release.bundle import Bundle
from release.gates import Verdict, judge, read_history, refused
from reranking.configured import configured
from training.dataset import read
from training.train import commit

Echo = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command. Without ``seeds`` it is the bundle's, or 0."""

    data: Path
    bundle: Path | None = None
    seeds: tuple[int, ...] = ()
    part: Part = "test"
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What came out, and where the report lies."""

    evaluation: Evaluation
    targets: list[Target]
    notes: list[str]
    report: Path


def evaluate_and_report(asked: Asked, settings: Settings, echo: Echo) -> Evaluated:
    """Evaluate, and write the report beside the bundle, or under HOME; raises ``StreamRecError``."""
    absolute = read_absolute(asked.data)
    bundle = Bundle.load(asked.bundle) if asked.bundle else None
    if bundle is not None:
        of_bundle.check_same_data(bundle, read(asked.data).sha256)
    seeds = asked.seeds or ((of_bundle.seed_of(bundle),) if bundle else (0,))
    found = evaluate(asked.data, configured(settings.rules), part=asked.part, seeds=seeds, echo=echo)
    judged = targets(found, absolute) if found.users else []
    notes = of_bundle.notes(bundle, found, commit()) if bundle else []
    beside = bundle.path.with_name(f"{bundle.path.name}-evaluation") if bundle else None
    folder = asked.out or beside or settings.home / "evaluation" / f"{found.dataset}-{found.part}"
    return Evaluated(found, judged, notes, report.write(found, judged, notes, folder))


def gate_and_track(bundle: Bundle, settings: Settings, echo: Echo) -> list[Verdict]:
    """Judge a new bundle by its gates and record its training; the verdicts. The caller says what follows."""
    verdicts = judge(bundle.manifest, read_history(settings.home))
    echo(gates_table(verdicts))
    tracked = track(bundle, verdicts, settings.home, settings.mlflow_uri)
    echo(f"recorded in MLflow as run {tracked.run_id}, {tracked.model} version {tracked.version}")
    return verdicts


def gates_table(verdicts: Sequence[Verdict]) -> str:
    rows = [(part.gate, part.wanted, part.found, "passed" if part.passed else "REFUSED") for part in verdicts]
    return table(["gate", "wanted", "found", "verdict"], rows)


def told(verdicts: Sequence[Verdict], folder: Path) -> str:
    """The last words of a training."""
    if refused(verdicts):
        return f"refused by its gates; to publish it all the same: streamrec publish {folder} --accept-because REASON"
    return f"publish it with: streamrec publish {folder}"
