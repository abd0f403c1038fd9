"""What each stage of a request costs, in units of a no-op FastAPI + orjson endpoint measured in the same run.

    python -m benchmarks.stages [--bundle FOLDER] [--rounds 9] [--write | --check] [--json FILE] [--markdown FILE]

Method: a real Redis and a real Triton on free ports, the bundle published to them, the service's own wiring in this
process. One request is answered while every stage's input is written down; then each stage is run alone on what it was
given. Stages and unit take turns, ``rounds`` times; told are medians: CPU of this process (of the server's process for
the unit), wall time, and CPU over the unit of the same round. ``--write`` keeps the ratios in benchmarks/baseline.json;
``--check`` ends with status 1 if one is more than 20 % above.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from redis.asyncio import Redis

from app.metrics import answered
from app.pipeline import Pipeline
from app.recommend import recommend
from app.serving import open_serving
from app.wire import answer_to_json, query_from_json
from benchmarks.machine import headline, measured_on
from benchmarks.recording import Recorded, recording
from benchmarks.rig import Rig, running
from benchmarks.turns import Cost, Server, Stage, in_turns
from domain.deadline import Deadline
from fallbacks.popular_list import PopularList
from features.online import ClientLimits, connect
from loadtests.open_loop import HttpDoor
from loadtests.traffic import Traffic, users_of
from ranking.triton import encode_inputs
from release.bundle import Bundle
from retrieval.filters import allowed
from retrieval.merge import merge

BASELINE = Path(__file__).with_name("baseline.json")
TOLERATED = 1.20
SMALL = 0.05  # units; below that a ratio says more about the clock than about the code
PATIENCE_SECONDS = 30.0


def stages_of(pipeline: Pipeline, seen: Recorded, body: bytes, client: Redis) -> list[Stage]:
    """Every stage on its own, on the inputs of one real request."""
    query, answer, request, user = seen.query, seen.answer, seen.request, seen.user
    found = [seen.found[source.name] for source in pipeline.sources]
    ranked_from = seen.candidates

    def late() -> Deadline:
        return Deadline.after(PATIENCE_SECONDS)

    async def source(number: int) -> None:
        await pipeline.sources[number].retrieve(request, seen.user_task, late())

    def filters() -> Any:
        return allowed(pipeline.items.eligible, user.seen, request.exclude)

    keep = filters()
    store = replace(pipeline.reader.store, client=client)  # type: ignore[type-var]  # the Protocol hides a dataclass
    popular = next(rung for rung in pipeline.fallbacks if isinstance(rung, PopularList))
    return [
        Stage.plain("decode", lambda: query_from_json(body, "benchmark")),
        Stage.plain("ids to rows", lambda: pipeline.resolve(query)),
        Stage("Redis read", lambda: store.read(str(query.user_id))),
        Stage("user's read", lambda: pipeline.reader.read(request, late())),
        *(
            Stage(f"source {part.name}", lambda number=number: source(number))  # type: ignore[misc]
            for number, part in enumerate(pipeline.sources)
        ),
        Stage.plain("filters", filters),
        Stage.plain("merge", lambda: merge(found, pipeline.quotas, keep, pipeline.budget.candidates)),
        Stage.plain(
            "ranker's input",
            lambda: encode_inputs(user, ranked_from, pipeline.items),
        ),
        Stage("Triton call", lambda: pipeline.ranker.score(user, ranked_from, late())),
        Stage("simple ranker", lambda: pipeline.simple_ranker.score(user, ranked_from, late())),
        *(
            Stage.plain(f"rule {rule.name}", lambda rule=rule: rule.apply(seen.slates[rule.name]))  # type: ignore[misc]
            for rule in pipeline.rules
        ),
        Stage.plain("popular list", lambda: popular.slate(request, user.seen)),
        Stage.plain("metrics of an answer", lambda: answered(answer)),
        Stage.plain("encode", lambda: answer_to_json(answer, debug=False)),
        Stage("whole request in process", lambda: recommend(pipeline, query, late())),
    ]


async def measure(rig: Rig, rounds: int) -> dict[str, Cost]:
    """The median cost of each stage, and of the unit under ``"unit"``."""
    noop, port = rig.unit("noop")
    users = users_of(rig.settings.bundle)
    body = json.dumps({"user_id": typical_user(rig.settings.bundle), "limit": 20}).encode()
    door = HttpDoor("127.0.0.1", port, Traffic(users))
    client = connect(rig.settings.redis_address, ClientLimits(answer_seconds=5))  # a busy machine is no reason to stop
    serving = await open_serving(rig.settings)
    try:
        query = query_from_json(body, "benchmark")
        seen = await recording(serving.pipeline, query)
        if seen.answer.level.name != "FULL" or seen.answer.ranked != serving.pipeline.budget.candidates:
            raise SystemExit(f"the measured request is {seen.answer.level.name}, {seen.answer.ranked} ranked")
        return await in_turns(stages_of(serving.pipeline, seen, body, client), Server(noop, door), rounds)
    finally:
        await door.close()
        await client.aclose()
        await serving.close()


def typical_user(bundle: Path) -> str:
    """The user with the median number of events among those with any: neither a stranger nor the keenest."""
    users = Bundle.load(bundle).tables.users
    events = np.diff(users.indptr)
    known = np.flatnonzero(events)
    return users.ids.text(int(known[np.argsort(events[known])[len(known) // 2]]))


def regressions(ratios: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    """The stages that cost over 20 % more units than the baseline says, a line each."""
    return [
        f"{name}: {ratios[name]:.3f} units, was {was:.3f}"
        for name, was in baseline.items()
        if name in ratios and ratios[name] > was * TOLERATED and ratios[name] - was > SMALL
    ]


def markdown(costs: Mapping[str, Cost], where: dict[str, str]) -> str:
    """The section for RESULTS.md."""
    rows = [f"| {name} | {cost.cpu_us:.1f} | {cost.wall_us:.1f} | {cost.units:.3f} |" for name, cost in costs.items()]
    head = "| stage | CPU us | wall us | units |\n|---|---|---|---|"
    return f"## Stages of a request\n\n`make bench`. {headline(where)}\n{head}\n" + "\n".join(rows) + "\n"


def main() -> int:
    asked = _arguments()
    where = measured_on()
    with running(asked.bundle) as rig, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        costs = runner.run(measure(rig, asked.rounds))
    print(markdown(costs, where))
    ratios = {name: round(cost.units, 4) for name, cost in costs.items()}
    document = {"measured": where, "rounds": asked.rounds, "units": ratios,
                "costs": {name: asdict(cost) for name, cost in costs.items()}}  # fmt: skip
    if asked.json:
        asked.json.write_text(json.dumps(document, indent=1) + "\n")
    if asked.markdown:
        asked.markdown.write_text(markdown(costs, where))
    if asked.write:
        BASELINE.write_text(json.dumps({"measured": where, "units": ratios}, indent=1) + "\n")
    if not asked.check:
        return 0
    if not BASELINE.exists():
        print(f"there is no {BASELINE.name} to compare with: run `make baseline` on a quiet machine", file=sys.stderr)
        return 1
    worse = regressions(ratios, json.loads(BASELINE.read_text())["units"])
    print(*(f"REGRESSED: {line}" for line in worse), sep="\n")
    return 1 if worse else 0


def _arguments() -> argparse.Namespace:
    asking = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asking.add_argument("--bundle", type=Path, help="default: the newest under STREAMREC_HOME")
    asking.add_argument("--rounds", type=int, default=9)
    asking.add_argument("--json", type=Path, help="write everything measured here")
    asking.add_argument("--markdown", type=Path, help="write the table here")
    kept = asking.add_mutually_exclusive_group()
    kept.add_argument("--write", action="store_true", help="make this run the baseline")
    kept.add_argument("--check", action="store_true", help="fail where a ratio is over 20 % above the baseline")
    return asking.parse_args()


if __name__ == "__main__":
    sys.exit(main())
