"""Every setting, in one table: the fields of ``Settings``. This is the only reader of the environment.

A setting ``http_port`` comes from ``STREAMREC_HTTP_PORT``; one in seconds inside comes in milliseconds from outside,
and its variable says so (``STREAMREC_DEADLINE_MS``). Nothing is read at import.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from urllib.parse import parse_qsl, urlencode, urlsplit

from domain.errors import StartError
from features.sentinel import SentinelAddress, is_sentinel

PREFIX = "STREAMREC_"
Platform = Literal["python", "onnxruntime"]
TritonDevice = Literal["cpu", "gpu", "tensorrt"]
SearchDevice = Literal["cpu", "gpu"]
EventLogForm = Literal["redis", "kafka"]
OfflineForm = Literal["parquet", "delta"]
LOG_LEVELS = ("debug", "info", "warning", "error")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return read


def _milliseconds(low: float, high: float) -> Callable[[str], float]:
    """Read milliseconds, give seconds."""
    wanted = f"a number of milliseconds from {low:g} to {high:g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(wanted) from None
        if not low <= value <= high:  # also what is not a number
            raise ValueError(wanted)
        return value / 1000

    return read


def _flag(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError("0 or 1")
    return text == "1"


def _word(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return read


def _words(*words: str) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        given = tuple(part.strip() for part in text.split(","))
        if not set(given) <= set(words) or len(set(given)) < len(given):
            raise ValueError(f"some of {', '.join(words)}, with commas between")
        return given

    return read


def _share(text: str) -> float:
    if not re.fullmatch(r"0(\.[0-9]+)?", text) or float(text) > 0.25:
        raise ValueError("a share from 0 to 0.25")
    return float(text)


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("some text")
    return text.strip()


def _redis_url(text: str) -> str:
    if is_sentinel(text):
        SentinelAddress.parse(text)
    elif urlsplit(text).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("a URL that begins with redis://, rediss://, unix:// or redis+sentinel://")
    return text


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ValueError("host:port of Triton's gRPC endpoint, without a scheme")
    return text


def _path(text: str) -> Path:
    return Path(_text(text)).expanduser().absolute()  # not resolved: the bundle may be a link that moves


def _key(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("an API key as `streamrec key` shows it")
    return text


def _ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("a number from 0 to 1") from None
    if not 0 <= value <= 1:  # also what is not a number
        raise ValueError("a number from 0 to 1")
    return value


_PORT = _whole(1, 65535)
_SECRET = frozenset({"redis_url", "key", "cursor_key"})
_REDIS_TLS = {"redis_ca": "ssl_ca_certs", "redis_cert": "ssl_certfile", "redis_key": "ssl_keyfile"}


@dataclass(frozen=True, slots=True)
class Setting:
    """How a field is read from its variable, and what it means. ``variable`` is the field's name unless given."""

    read: Callable[[str], object]  # raises ``ValueError`` with what it wants, to follow "must be"
    text: str
    variable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator may change. Seconds inside, ``STREAMREC_..._MS`` outside; relative paths start at the cwd."""

    home: Annotated[Path, Setting(_path, "Everything the service writes goes under this folder")] = Path(".streamrec")
    host: Annotated[str, Setting(_text, "Address that HTTP and gRPC listen on")] = "127.0.0.1"
    http_port: Annotated[int, Setting(_PORT, "Port of the HTTP API")] = 8080
    grpc_port: Annotated[int, Setting(_PORT, "Port of the gRPC API")] = 8081
    http_fd: Annotated[
        int | None, Setting(_whole(0, 65535), "Listening socket that a worker inherits; set by `serve`")
    ] = None
    workers: Annotated[int, Setting(_whole(1, 256), "Worker processes")] = 1

    api_keys: Annotated[
        Path | None, Setting(_path, "File of API keys; unset: callers need none, which only loopback may do")
    ] = None
    trusted_proxy: Annotated[
        bool, Setting(_flag, "1: no API keys although others can connect, because a proxy in front checks callers")
    ] = False
    key: Annotated[str | None, Setting(_key, "API key that `streamrec` sends when it asks the running service")] = None
    page: Annotated[bool | None, Setting(_flag, "1: a page for people at /, 0: none; unset: on loopback only")] = None
    grpc_cert: Annotated[Path | None, Setting(_path, "gRPC's certificate chain (PEM); unset: gRPC without TLS")] = None
    grpc_key: Annotated[Path | None, Setting(_path, "Private key of that certificate (PEM)")] = None
    grpc_client_ca: Annotated[
        Path | None, Setting(_path, "Authority (PEM) whose certificate gRPC's callers must show; unset: none")
    ] = None

    redis_url: Annotated[
        str | None,
        Setting(_redis_url, "Redis to use, or redis+sentinel://HOST:PORT,.../NAME; unset: `serve` starts one"),
    ] = None
    redis_port: Annotated[int, Setting(_PORT, "Port of the Redis that `serve` starts")] = 8082
    redis_ca: Annotated[
        Path | None, Setting(_path, "Authority (PEM) of the certificate of a rediss:// Redis; unset: the system's")
    ] = None
    redis_cert: Annotated[Path | None, Setting(_path, "Certificate (PEM) that Redis is shown")] = None
    redis_key: Annotated[Path | None, Setting(_path, "Private key of that certificate (PEM)")] = None
    redis_server: Annotated[Path | None, Setting(_path, "redis-server program to start; unset: looked for")] = None

    triton_url: Annotated[
        str | None, Setting(_address, "host:port of Triton's gRPC; unset: `serve` starts one of its own")
    ] = None
    triton_grpc_port: Annotated[int, Setting(_PORT, "gRPC port of the Triton that `serve` starts")] = 8083
    triton_http_port: Annotated[int, Setting(_PORT, "HTTP port of the Triton that `serve` starts")] = 8084
    triton_metrics_port: Annotated[int, Setting(_PORT, "Metrics port of the Triton that `serve` starts")] = 8085
    triton_venv: Annotated[Path, Setting(_path, "Environment with tritonserver in it; unset: in HOME")] = Path(
        "venv-triton"
    )
    triton_platform: Annotated[
        Platform, Setting(_word("python", "onnxruntime"), "Backend that runs the model; onnxruntime: NVIDIA's image")
    ] = "python"
    triton_instances: Annotated[int, Setting(_whole(1, 256), "Requests that Triton ranks at once, a thread each")] = 1
    triton_device: Annotated[
        TritonDevice,
        Setting(_word("cpu", "gpu", "tensorrt"), "What the model runs on; a GPU needs the platform onnxruntime"),
    ] = "cpu"
    search_device: Annotated[
        SearchDevice, Setting(_word("cpu", "gpu"), "What FAISS searches on; gpu needs faiss-gpu and a card")
    ] = "cpu"
    require_triton: Annotated[bool, Setting(_flag, "1: refuse to start where Triton cannot run")] = False
    mlflow_uri: Annotated[
        str | None, Setting(_text, "MLflow's tracking and registry URI for `train`; unset: SQLite under HOME/mlflow")
    ] = None

    event_log: Annotated[EventLogForm, Setting(_word("redis", "kafka"), "Where events lie until they are consumed")] = (
        "redis"
    )
    kafka_brokers: Annotated[
        str | None, Setting(_text, "Kafka's host:port, several with commas between; for the event log kafka")
    ] = None
    kafka_topic: Annotated[
        str, Setting(_text, "Topic of the events; dead letters go to the topic of this name with .dead after it")
    ] = "streamrec.events"
    event_shards: Annotated[
        int, Setting(_whole(1, 1024), "Streams that events are spread over, by user; change it only on an empty log")
    ] = 4
    event_backlog: Annotated[
        int, Setting(_whole(1, 100_000_000), "Events that a shard holds until consumed; full, the door says 503")
    ] = 250_000
    consumers: Annotated[
        int, Setting(_whole(0, 256), "Processes that turn events into session features; 0: they run elsewhere")
    ] = 1
    max_event_lag_seconds: Annotated[
        float,
        Setting(
            _milliseconds(1000, 86_400_000), "Consumers further behind make answers STALE_FEATURES", "MAX_EVENT_LAG_MS"
        ),
    ] = 600.0

    max_model_age_seconds: Annotated[
        float,
        Setting(
            _milliseconds(1000, 31_536_000_000),
            "Models trained longer ago are told as `model_stale`",
            "MAX_MODEL_AGE_MS",
        ),
    ] = 259_200.0
    bundle: Annotated[Path, Setting(_path, "Bundle to serve; unset: in HOME, where publishing puts it")] = Path(
        "current"
    )
    data: Annotated[Path, Setting(_path, "Dataset folder to train on")] = Path("data/movielens-small")
    offline_store: Annotated[
        OfflineForm,
        Setting(_word("parquet", "delta"), "How published features are kept for training: files or Delta Lake"),
    ] = "parquet"
    campaigns: Annotated[Path | None, Setting(_path, "Promotion file; unset: no campaigns")] = None
    rules: Annotated[
        str, Setting(_text, "Re-ranking rules in order, each with what differs from its defaults; none: no rule")
    ] = "filters,memory,promotion,freshness,diversity,creators,exposure"
    exposure_share: Annotated[
        float, Setting(_share, "Share of the places promised to underserved groups and new items", "EXPOSURE_SHARE")
    ] = 0.05
    exposure_columns: Annotated[
        tuple[str, ...], Setting(_words("creator", "language", "genre", "decade"), "Columns that make groups of items")
    ] = ("genre",)
    cursor_key: Annotated[
        str | None, Setting(_text, "Secret that signs cursors, the same on every machine; unset: one kept in HOME")
    ] = None
    experiments: Annotated[Path | None, Setting(_path, "Experiment file; unset: no experiments")] = None
    replay_ratio: Annotated[
        float, Setting(_ratio, "Share of requests, 0 to 1, kept under HOME/replay for `streamrec replay`")
    ] = 0.01
    candidates: Annotated[int, Setting(_whole(1, 2000), "Candidates ranked for one request")] = 500

    deadline_seconds: Annotated[
        float, Setting(_milliseconds(1, 60_000), "Time for an answer when the caller names none", "DEADLINE_MS")
    ] = 0.150
    max_deadline_seconds: Annotated[
        float, Setting(_milliseconds(1, 60_000), "Longest time a caller may name", "MAX_DEADLINE_MS")
    ] = 1.0
    features_seconds: Annotated[
        float, Setting(_milliseconds(0.1, 10_000), "Ceiling for reading the user's features", "FEATURES_MS")
    ] = 0.025
    retrieval_seconds: Annotated[
        float, Setting(_milliseconds(0.1, 10_000), "Ceiling for retrieval", "RETRIEVAL_MS")
    ] = 0.040
    ranking_seconds: Annotated[float, Setting(_milliseconds(0.1, 10_000), "Ceiling for ranking", "RANKING_MS")] = 0.080
    reranking_seconds: Annotated[
        float, Setting(_milliseconds(0.1, 10_000), "Ceiling for re-ranking", "RERANKING_MS")
    ] = 0.010
    reserve_seconds: Annotated[
        float, Setting(_milliseconds(0, 10_000), "Kept back before the deadline for the fallback", "RESERVE_MS")
    ] = 0.020

    slow_features_seconds: Annotated[
        float,
        Setting(_milliseconds(0.1, 10_000), "A read of features slower than this counts as failed", "SLOW_FEATURES_MS"),
    ] = 0.020
    slow_retrieval_seconds: Annotated[
        float, Setting(_milliseconds(0.1, 10_000), "A source slower than this counts as failed", "SLOW_RETRIEVAL_MS")
    ] = 0.035
    slow_ranking_seconds: Annotated[
        float, Setting(_milliseconds(0.1, 10_000), "A ranking slower than this counts as failed", "SLOW_RANKING_MS")
    ] = 0.070

    max_full_path: Annotated[
        int, Setting(_whole(4, 10_000), "Most requests that a worker ranks at once; the adaptive limit stays below")
    ] = 200
    max_requests: Annotated[
        int, Setting(_whole(4, 100_000), "Requests in a worker at once beyond which it refuses with 429")
    ] = 1000
    max_delay_seconds: Annotated[
        float,
        Setting(_milliseconds(1, 60_000), "Standing delay of a worker's loop beyond which it refuses", "MAX_DELAY_MS"),
    ] = 0.1
    shadow_ratio: Annotated[
        float, Setting(_ratio, "Share of requests, 0 to 1, beside which every rung of the ladder is run")
    ] = 0.01

    stop_seconds: Annotated[
        float, Setting(_milliseconds(0, 600_000), "Time for requests in flight when a worker stops", "STOP_MS")
    ] = 10.0
    drain_seconds: Annotated[
        float,
        Setting(
            _milliseconds(0, 600_000), "A stopping worker is unready so long before it stops accepting", "DRAIN_MS"
        ),
    ] = 0.0
    log_level: Annotated[str, Setting(_word(*LOG_LEVELS), "How much is logged")] = "info"

    def __post_init__(self) -> None:
        home = self.home.expanduser().absolute()
        places = {
            "home": home,
            "triton_venv": home / self.triton_venv,  # an absolute one stays itself
            "bundle": home / self.bundle,
            "data": self.data.absolute(),
        }
        for name, place in places.items():
            object.__setattr__(self, name, place)
        self._check()

    def _check(self) -> None:
        ports = ["http_port", "grpc_port"]
        ports += ["redis_port"] if self.redis_url is None else []
        ports += ["triton_grpc_port", "triton_http_port", "triton_metrics_port"] if self.triton_url is None else []
        holders: dict[int, str] = {}
        for name in ports:
            port = getattr(self, name)
            if port in holders:
                raise StartError(f"{variable_of(name)} and {variable_of(holders[port])} are both {port}")
            holders[port] = name
        if self.event_log == "kafka" and self.kafka_brokers is None:
            raise StartError(f"{variable_of('event_log')} is kafka, so {variable_of('kafka_brokers')} must be set")
        for first, second in (("grpc_cert", "grpc_key"), ("redis_cert", "redis_key")):
            if (getattr(self, first) is None) != (getattr(self, second) is None):
                raise StartError(f"{variable_of(first)} and {variable_of(second)} go together")
        if self.grpc_client_ca is not None and self.grpc_cert is None:
            raise StartError(f"{variable_of('grpc_client_ca')} needs {variable_of('grpc_cert')}")
        if self._redis_tls and urlsplit(self.redis_url or "").scheme != "rediss":
            raise StartError(f"{variable_of(next(iter(self._redis_tls)))} needs a rediss:// {variable_of('redis_url')}")
        if self.deadline_seconds > self.max_deadline_seconds:
            raise StartError(f"{variable_of('deadline_seconds')} exceeds {variable_of('max_deadline_seconds')}")
        if self.reserve_seconds >= self.deadline_seconds:
            raise StartError(f"{variable_of('reserve_seconds')} leaves nothing of {variable_of('deadline_seconds')}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """What these variables ask for; an empty one counts as unset. Raises ``StartError``, naming the variable."""
        names = {variable_of(name): name for name in _table()}
        held: dict[str, Any] = {}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or not text:
                continue
            if variable not in names:
                raise StartError(_unknown(variable, tuple(names)))
            held[names[variable]] = _read(names[variable], variable, text)
        return cls(**held)

    @property
    def redis_address(self) -> str:
        """The Redis to talk to: the one given, or the one that ``serve`` starts. TLS's files are in the query."""
        given = self.redis_url or f"redis://127.0.0.1:{self.redis_port}/0"
        if not self._redis_tls:
            return given
        address = urlsplit(given)
        files = {_REDIS_TLS[name]: str(path) for name, path in self._redis_tls.items()}
        return address._replace(query=urlencode(dict(parse_qsl(address.query)) | files)).geturl()

    @property
    def _redis_tls(self) -> dict[str, Path]:
        return {name: path for name in _REDIS_TLS if (path := getattr(self, name)) is not None}

    @property
    def triton_address(self) -> str:
        """``host:port`` of the Triton to talk to: the one given, or the one that ``serve`` starts."""
        return self.triton_url or f"127.0.0.1:{self.triton_grpc_port}"

    @property
    def http_address(self) -> str:
        """Where a client on this machine finds the HTTP API."""
        return f"http://{client_host(self.host)}:{self.http_port}"

    @property
    def workers_folder(self) -> Path:
        """One ``<pid>.json`` a living worker: ``{"pid": ..., "number": <publication in use>}``."""
        return self.home / "workers"


@dataclass(frozen=True, slots=True)
class Description:
    """One row of the table that ``streamrec settings`` prints."""

    variable: str
    value: str
    default: str
    text: str


def describe(settings: Settings | None = None) -> list[Description]:
    """All settings as they would be written in the environment; passwords are left out."""
    shown = settings or Settings()
    defaults = {part.name: part.default for part in fields(Settings)}
    return [
        Description(
            variable_of(name), _written(name, getattr(shown, name)), _written(name, defaults[name]), setting.text
        )
        for name, setting in _table().items()
    ]


def variable_of(name: str) -> str:
    """The environment variable of the field ``name``."""
    return PREFIX + (_table()[name].variable or name.upper())


def client_host(host: str) -> str:
    """The host part of a URL that reaches a server listening on ``host``."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  # read, not bound
    return f"[{here}]" if ":" in here else here


@functools.cache
def _table() -> Mapping[str, Setting]:
    """The ``Setting`` of each field, in order."""
    hints = get_type_hints(Settings, include_extras=True)
    return {part.name: hints[part.name].__metadata__[0] for part in fields(Settings)}


def _read(name: str, variable: str, text: str) -> object:
    try:
        return _table()[name].read(text)
    except ValueError as error:
        said = "" if name in _SECRET else f", not {text!r}"  # a URL may carry a password
        raise StartError(f"{variable} must be {error}{said}") from None


def _unknown(variable: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(variable, known, n=1)
    return f"{variable} is not a setting" + (f"; did you mean {close[0]}?" if close else "; see `streamrec settings`")


def _written(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(value)
    if name.endswith("_seconds") and isinstance(value, float):
        return f"{value * 1000:.12g}"
    if name in {"key", "cursor_key"}:
        return "***"
    if name == "redis_url":
        return _without_password(str(value))
    return str(value)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]).geturl()
