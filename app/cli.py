"""``streamrec``: everything a person does with the service from a terminal.

What belongs to training and publishing is imported inside its own command, so that the serving image does without it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from app.access import CLIENT, DEFAULT_RATE, ROLES
from app.commands import ask, make, operate, reports
from app.commands.terminal import UNUSABLE
from app.settings import Settings
from domain.errors import DatasetError, StreamRecError

Command = Callable[[argparse.Namespace, Settings], int]


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """The exit status: 0 done, 1 answered no, 2 could not be done; an error is one line, never a traceback."""
    asked = parser().parse_args(arguments)
    command: Command = asked.command
    try:
        status = command(asked, Settings.from_environment(os.environ if environ is None else environ))
        sys.stdout.flush()
        return status
    except DatasetError as error:
        print(f"streamrec: the dataset cannot be used; {len(error.problems)} problem(s):", file=sys.stderr)
        print(*(f"  {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
    except StreamRecError as error:
        print(f"streamrec: {' '.join(str(error).split())}", file=sys.stderr)
    except ModuleNotFoundError as error:
        print(f"streamrec: this needs {error.name}, which is not installed here", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head`: nobody reads on, and the interpreter must not complain of it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return UNUSABLE


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    whole = argparse.ArgumentParser(prog="streamrec", description="Recommendations that always answer")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    add("validate", make.validate, "Say what is wrong with a dataset folder").add_argument("folder", type=Path)
    training = add("train", make.train, "Train a bundle from a dataset folder")
    training.add_argument("--data", type=Path, help="dataset folder (default: STREAMREC_DATA)")
    training.add_argument("--out", type=Path, help="new folder for the bundle (default: under HOME/training)")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--engine", choices=["embedded", "spark"], default="embedded", help="of the batch features")
    _add_publish(add("publish", make.publish, "Give a bundle to Triton, Redis and every worker"))
    taken = "Take items out of every answer of every worker, within seconds, until they are restored"
    add("remove", operate.remove, taken).add_argument("items", nargs="+", metavar="ITEM", help="item ids")
    back = "Offer removed items again"
    add("restore", operate.restore, back).add_argument("items", nargs="+", metavar="ITEM", help="item ids")
    add("removed", operate.show_removed, "List the items that `remove` took out, and since when")
    _add_synth(add("synth", make.synth, "Write a made-up bundle of any size, or one with DCN-V2 of the reference size"))
    _add_evaluate(add("evaluate", make.evaluate, "Measure models and baselines on what users did last; write a report"))
    add("serve", operate.serve, "Start Redis, Triton and the workers, and keep them running")
    _add_recommend(add("recommend", ask.recommend, "Ask the running service for a slate"))
    bundle = add("bundle", reports.show_bundle, "Show what a bundle is and where it came from")
    bundle.add_argument("verb", choices=["show"])
    bundle.add_argument("folder", type=Path, nargs="?", help="default: the one that is served")
    add("health", operate.health, "Exit 0 if the running service is ready; for sidecars and HEALTHCHECK")
    told = "Make an API key: the line for STREAMREC_API_KEYS on stdout, the key itself on stderr"
    _add_key(add("key", operate.make_key, told))
    timed = add(
        "latency", operate.show_latency, "Ask the running service N times: what each stage took beside its allotment"
    )
    timed.add_argument("--requests", type=int, default=500, metavar="N")
    add("settings", reports.show_settings, "Every setting, its value and what it means")
    add("features", reports.show_features, "The feature contract")
    asking_why = add("why", ask.why, "Say why an item is in a user's slate, or at which step it fell out")
    asking_why.add_argument("user")
    asking_why.add_argument("item")
    asking_why.add_argument("--limit", type=int, default=20)
    again = add(
        "replay", ask.replay_request, "Make a recorded request's slate again; exit 1 where it comes out otherwise"
    )
    again.add_argument("request", metavar="REQUEST_ID")
    again.add_argument("--rank", action="store_true", help="by the ranker itself, not by the scores it gave then")
    watched = add(
        "skew", reports.show_skew, "Compare what the rankers were given lately with training; exit 1 on an alert"
    )
    watched.add_argument(
        "--hours", type=int, default=2, choices=range(1, 49), metavar="N", help="clock hours, this one included"
    )
    shown = add("exposure", reports.show_exposure, "What was shown lately, by group; exit 1 on a promise not kept")
    shown.add_argument("--days", type=int, default=7, choices=range(1, 8), metavar="N", help="UTC days, today included")
    return whole


def _add_synth(making: argparse.ArgumentParser) -> None:
    making.add_argument("--items", type=int, default=1_000_000)
    making.add_argument("--users", type=int, default=1_000_000)
    making.add_argument("--like", type=Path, metavar="BUNDLE", help="this bundle with the reference graph instead")
    making.add_argument("--out", type=Path, required=True, help="new folder for the bundle")
    making.add_argument("--seed", type=int, default=0)


def _add_key(making: argparse.ArgumentParser) -> None:
    making.add_argument("name", help="whose it is: a-z, 0-9 and -, at most 32")
    making.add_argument("--role", choices=ROLES, default=CLIENT, help="what it is for (default: client)")
    making.add_argument("--rate", type=float, default=DEFAULT_RATE, help="requests a second on this machine")
    making.add_argument("--burst", type=float, help="requests at once after a rest (default: one second's)")


def _add_publish(publishing: argparse.ArgumentParser) -> None:
    publishing.add_argument("folder", type=Path, nargs="?", help="the bundle; with --refresh-items the one served now")
    publishing.add_argument(
        "--refresh-items", action="store_true", help="renew the bundle's items from a dataset folder, without training"
    )
    publishing.add_argument("--data", type=Path, help="that dataset folder (default: STREAMREC_DATA)")
    publishing.add_argument("--accept-because", metavar="REASON", help="publish although its gates refuse; is recorded")


def _add_evaluate(evaluating: argparse.ArgumentParser) -> None:
    evaluating.add_argument("--data", type=Path, help="dataset folder (default: STREAMREC_DATA)")
    evaluating.add_argument("--bundle", type=Path, help="say what holds of this bundle, and write beside it")
    evaluating.add_argument("--seeds", type=_seeds, default=(), metavar="0,1,2")
    evaluating.add_argument("--part", choices=["test", "validation"], default="test", help="validation: a rehearsal")
    evaluating.add_argument("--out", type=Path, help="folder of the report")
    evaluating.add_argument("--json", action="store_true", help="print the document instead of tables")


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _add_recommend(asking: argparse.ArgumentParser) -> None:
    asking.add_argument("user", nargs="?", help="user id; may be left out with --recent")
    asking.add_argument("--limit", type=int, default=20)
    asking.add_argument("--recent", default="", metavar="IDS", help="what the user did last, oldest first: 296,318")
    asking.add_argument("--exclude", default="", metavar="IDS", help="items that must not come back")
    asking.add_argument("--device")
    asking.add_argument("--surface")


if __name__ == "__main__":
    sys.exit(main())
