"""What can honestly be said of a bundle that exists.

A served bundle knows every event, so it cannot be judged on any of them. What can be judged is the recipe: the same
code, data, parameters and seed without the judged part. The rankers never saw the test part anyway, so the recipe's are
the bundle's very own, if the bundle was made by this code on this data; that is checked, number by number.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from domain.errors import BundleError
from evaluation.protocol import Evaluation
from release.bundle import Bundle


def seed_of(bundle: Bundle) -> int:
    """The seed that the bundle was trained with."""
    return int(bundle.manifest.lineage.parameters.get("seed", 0))


def check_same_data(bundle: Bundle, data_sha256: str) -> None:
    """Raise ``BundleError`` if the bundle was made of other data: then nothing here speaks of it."""
    if bundle.manifest.lineage.data_sha256 != data_sha256:
        raise BundleError(f"{bundle.version} was not trained on this dataset (its digest differs)")


def notes(bundle: Bundle, evaluation: Evaluation, commit: str) -> list[str]:
    """What the report says of its relation to the bundle."""
    lineage = bundle.manifest.lineage
    why = "it was fitted on all events, so what is judged is its recipe, trained anew without the judged part"
    told = [f"Bundle `{bundle.version}`: {why}; not its very files."]
    if lineage.commit != commit:
        told.append(f"The bundle was made by commit {lineage.commit}, this report by {commit}.")
    run = next((run for run in evaluation.runs if run.seed == seed_of(bundle)), None)
    if run is None or evaluation.part != "test":
        told.append(
            "Whether the bundle's rankers are those judged here was not compared: other seeds, or another part."
        )
    else:
        ours, theirs = run.logistic, bundle.tables.logistic
        same = all(np.array_equal(getattr(ours, f.name), getattr(theirs, f.name)) for f in fields(ours))
        told.append(f"Its logistic regression {'is' if same else 'is NOT'} the one that was judged, number by number.")
    return told
