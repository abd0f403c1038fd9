"""What could make Triton cheaper, each beside the default: batching, shared memory, threads, instances, int8.

    python -m benchmarks.triton_options [--bundle FOLDER] [--only NAME ...] [--rate 100] [--seconds 8] [--rounds 3]
                                        [--write]

Method: one Triton holds the reference graph once for each way of serving it. A generator of this process asks each in
turn, open loop, with requests of 500 candidates as training encoded them, over gRPC as the service does; counted are
the CPU of Triton with its backend's processes, that of this process (which only makes, sends and reads the call), and
the p95 from the moment a call was due. Told are medians over the rounds, in ratios to the default of the same run.
What int8 does to the order is told for the reference graph and for the model that its bundle was trained with: NDCG@20
by float32's scores, and the chance that one of float32's top 20 is above another candidate (AUC).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as sync_triton
import tritonclient.grpc.aio as triton
import uvloop
from numpy.typing import NDArray

from benchmarks.cpu import cpu_seconds
from benchmarks.machine import headline, measured_on
from benchmarks.reference import reference_bundle
from benchmarks.results import write_block
from benchmarks.rig import Rig, newest_bundle, running, streamrec_home
from benchmarks.shared_tensors import SharedTensors
from domain.arrays import Floats
from ranking.triton import CHANNEL_ARGS, TYPES
from release.bundle import Bundle, ParityTables
from release.graph import run
from release.triton_repository import SOURCE, TritonRepository, link_or_copy

CALL_SECONDS = 5.0
LOAD_SECONDS = 60.0
WARM_CALLS = 40
TOP = 20
THREADS = "intra_op_num_threads = 1"
BATCHING = "dynamic_batching { }"

Tensors = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Option:
    """One way of serving the graph."""

    name: str
    batching: bool = True
    threads: int = 1  # within a run
    instances: int = 1
    int8: bool = False
    shared_memory: bool = False  # for the tensors of a request

    @property
    def model(self) -> str:
        """Its name in Triton."""
        return f"option_{self.name}"

    def write(self, repository: TritonRepository, bundle: Bundle) -> None:
        """Into the repository, as version 1 of a model of its own; raises ``ValueError`` where a text has changed."""
        folder = repository.root / self.model / "1"
        folder.mkdir(parents=True)
        given = TritonRepository(repository.home, instances=self.instances)
        text = exchanged(given.config(bundle), 'name: "dcn_v2"', f'name: "{self.model}"')
        (folder.parent / "config.pbtxt").write_text(text if self.batching else exchanged(text, BATCHING, ""))
        program = (SOURCE / "1" / "model.py").read_text()
        threads = THREADS.replace("1", str(self.threads))
        (folder / "model.py").write_text(exchanged(program, THREADS, threads))
        (folder / "__pycache__").touch()  # keeps Triton from reloading, as in release/triton_repository.py
        if self.int8:
            quantise(bundle.model_path, folder / "dcn_v2.onnx")
        else:
            link_or_copy(bundle.model_path, folder / "dcn_v2.onnx")


DEFAULT = Option("default")
OPTIONS = (
    DEFAULT,
    Option("no_batching", batching=False),
    Option("shared_memory", shared_memory=True),
    Option("two_threads", threads=2),
    Option("two_instances", instances=2),
    Option("int8", int8=True),
)


def exchanged(text: str, old: str, new: str) -> str:
    """``text`` with its one ``old`` exchanged; raises ``ValueError`` if it is not there once."""
    if text.count(old) != 1:
        raise ValueError(f"{old!r} is there {text.count(old)} times, not once")
    return text.replace(old, new)


def quantise(model: Path, out: Path) -> None:
    """Weights of the matrix products as int8, inputs quantised as they come: ONNX Runtime's dynamic quantisation."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(model, out, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU milliseconds a call, and the p95 in milliseconds."""

    triton_ms: float
    client_ms: float
    p95_ms: float

    def over(self, other: Cost) -> tuple[float, float, float]:
        """All CPU, Triton's CPU and the p95, as ratios."""
        both, others = self.triton_ms + self.client_ms, other.triton_ms + other.client_ms
        return both / others, self.triton_ms / other.triton_ms, self.p95_ms / other.p95_ms


def measure(rig: Rig, options: Sequence[Option], rate: float, seconds: float, rounds: int) -> dict[str, Cost]:
    """Each option's cost, the median over rounds of turns."""
    bundle = Bundle.load(rig.settings.bundle)
    repository = TritonRepository(rig.settings.home)
    for option in options:
        option.write(repository, bundle)
    requests = [tensors_of(bundle.tables.parity, row) for row in range(len(bundle.tables.parity.user))]
    taken: dict[str, list[Cost]] = {option.name: [] for option in options}
    with _models(rig, options), SharedTensors(rig.settings.triton_address, requests) as shared:
        for at in range(rounds + 1):
            for option in options:
                ways = shared.inputs if option.shared_memory else _sent
                n = int(rate * seconds) if at else WARM_CALLS
                cost = _asked(rig, option.model, requests, ways, rate, n)
                taken[option.name] += [cost] if at else []
    return {name: _median(costs) for name, costs in taken.items()}


@contextmanager
def _models(rig: Rig, options: Sequence[Option]) -> Iterator[None]:
    client = sync_triton.InferenceServerClient(rig.settings.triton_address, channel_args=list(CHANNEL_ARGS))
    try:
        for option in options:
            client.load_model(option.model, client_timeout=LOAD_SECONDS)
        yield
    finally:
        client.close()


def tensors_of(parity: ParityTables, row: int) -> Tensors:
    """One request as the service sends it: a batch of one."""
    names = ("user", "codes", "item_row", "columns")
    return {name: np.ascontiguousarray(getattr(parity, name)[row : row + 1]) for name in names}


def _sent(number: int, tensors: Tensors) -> list[Any]:
    """The tensors within the message."""
    del number
    inputs = [triton.InferInput(name, values.shape, TYPES[values.dtype]) for name, values in tensors.items()]
    for given, values in zip(inputs, tensors.values(), strict=True):
        given.set_data_from_numpy(values)
    return inputs


def _asked(
    rig: Rig, model: str, requests: Sequence[Tensors], inputs: Callable[[int, Tensors], list[Any]], rate: float, n: int
) -> Cost:
    """``n`` calls at ``rate``, due whether or not the last ones were answered; a call that fails ends the run."""
    took: list[float] = []

    async def one(client: Any, number: int, due: float) -> None:
        tensors = requests[number % len(requests)]
        answer = await client.infer(model, inputs(number, tensors), client_timeout=CALL_SECONDS)
        took.append(time.monotonic() - due)
        if answer.as_numpy("score").shape != tensors["item_row"].shape:
            raise RuntimeError(f"{model} answered with another shape")

    async def all_of_them() -> None:
        client = triton.InferenceServerClient(rig.settings.triton_address, channel_args=list(CHANNEL_ARGS))
        began = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            for number in range(n):
                due = began + number / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                calls.create_task(one(client, number, due))
        await client.close()

    before, ours = cpu_seconds(rig.triton), time.process_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(all_of_them())
    theirs, ours = cpu_seconds(rig.triton) - before, time.process_time() - ours
    return Cost(theirs / n * 1000, ours / n * 1000, float(np.percentile(took, 95)) * 1000)


def _median(costs: Sequence[Cost]) -> Cost:
    names = ("triton_ms", "client_ms", "p95_ms")
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in names))


def agreement(exact: Floats, approximate: Floats) -> tuple[float, float]:
    """NDCG@20 and AUC of the second scores ``(p, n)`` by the first, means over the requests."""
    discount = 1.0 / np.log2(np.arange(2, TOP + 2))
    ndcg, auc = [], []
    for true, told in zip(exact, approximate, strict=True):
        best, found = np.argsort(-true, kind="stable"), np.argsort(-told, kind="stable")
        ndcg.append(float(true[found[:TOP]] @ discount) / float(true[best[:TOP]] @ discount))
        top, rest = told[best[:TOP], None], told[best[TOP:]]
        auc.append(float(np.mean((top > rest) + 0.5 * (top == rest))))
    return float(np.mean(ndcg)), float(np.mean(auc))


def int8_agreement(folder: Path, scratch: Path) -> tuple[str, float, float]:
    """A bundle's version, and what int8 keeps of its model's order on the requests that it carries."""
    bundle = Bundle.load(folder)
    quantise(bundle.model_path, scratch)
    parity = bundle.tables.parity
    told = run(scratch, {name: getattr(parity, name) for name in ("user", "codes", "item_row", "columns")})
    return bundle.version, *agreement(parity.score, told)


def markdown(
    costs: Mapping[str, Cost], kept: Sequence[tuple[str, float, float]], rate: float, where: dict[str, str]
) -> str:
    """The section for RESULTS.md."""
    rows = [
        f"| {name} | {cost.triton_ms:.2f} | {cost.client_ms:.2f} | {cost.p95_ms:.1f} | "
        + " | ".join(f"{ratio:.2f}" for ratio in cost.over(costs[DEFAULT.name]))
        + " |"
        for name, cost in costs.items()
    ]
    orders = [f"| {version} | {ndcg:.5f} | {auc:.5f} |" for version, ndcg, auc in kept]
    heads = ("", "Triton's CPU ms", "client's CPU ms", "p95 ms", "CPU, of the default", "Triton's CPU", "p95")
    return (
        "## Ways of serving the graph in Triton\n\n"
        f"`make triton-options`: {rate:g} calls/s of 500 candidates each, in turn; the last three columns are ratios.\n"
        f"{headline(where)}\n| " + " | ".join(heads) + " |\n|" + "---|" * len(heads) + "\n" + "\n".join(rows)
        + "\n\nint8 against float32:\n\n| model of | NDCG@20 | AUC of float32's top 20 |\n|---|---|---|\n"
        + "\n".join(orders) + "\n"
    )  # fmt: skip


def main() -> int:
    asking = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asking.add_argument("--bundle", type=Path, help="default: the newest one's data under the reference graph")
    asking.add_argument("--only", nargs="+", choices=[option.name for option in OPTIONS[1:]], help="beside the default")
    asking.add_argument("--rate", type=float, default=100.0)
    asking.add_argument("--seconds", type=float, default=8.0)
    asking.add_argument("--rounds", type=int, default=3)
    asking.add_argument("--write", action="store_true", help="put the table into benchmarks/RESULTS.md")
    asked = asking.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # advice of ONNX Runtime's with each quantisation
    where, bundle = measured_on(), reference_bundle(asked.bundle)
    options = [option for option in OPTIONS if not asked.only or option.name in {DEFAULT.name, *asked.only}]
    with running(bundle) as rig:
        costs = measure(rig, options, asked.rate, asked.seconds, asked.rounds)
        trained = [] if asked.bundle else [newest_bundle(streamrec_home())]
        kept = [int8_agreement(folder, rig.settings.home / "int8.onnx") for folder in (bundle, *trained)]
    report = markdown(costs, kept, asked.rate, where)
    print(report)
    if asked.write:
        write_block("triton_options", report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
