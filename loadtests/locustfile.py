"""Scenarios for locust: people who ask over HTTP, some whom nobody knows, and back ends that ask over gRPC.

    locust -f loadtests/locustfile.py --headless --users 50 --run-time 60s --host http://127.0.0.1:8080 [Person ...]

Locust is a closed loop: a slow answer delays the next request of that user, so its percentiles flatter a service that
stalls. Gates use ``loadtests.open_loop``. Users come from the bundle of the ``STREAMREC_*`` settings.
"""

from __future__ import annotations

import itertools
import os
import random
import time

import grpc
import grpc.experimental.gevent as grpc_gevent
from locust import FastHttpUser, User, between, constant_throughput, task

from app.proto.streamrec.v1 import recommender_pb2 as proto
from app.settings import Settings
from loadtests.grpc_door import METHOD
from loadtests.traffic import Traffic, users_of

grpc_gevent.init_gevent()

SETTINGS = Settings.from_environment(os.environ)
ASKING = itertools.cycle(Traffic(users_of(SETTINGS.bundle), cold=0.05).drawn())


class Person(FastHttpUser):
    """Opens the home page, sometimes a second one at once; a prefetch of the application now and then."""

    weight = 8
    wait_time = between(0.5, 2.0)

    @task(8)
    def home(self) -> None:
        self._ask("home", {"user_id": next(ASKING), "context": {"surface": "home", "device": "tv"}})

    @task(2)
    def after_something(self) -> None:
        self._ask("recent", {"user_id": next(ASKING), "recent_item_ids": ["296", "318"], "limit": 10})

    @task(1)
    def prefetch(self) -> None:
        self._ask("prefetch", {"user_id": next(ASKING)}, {"x-request-priority": "prefetch"})

    def _ask(self, name: str, body: dict[str, object], headers: dict[str, str] | None = None) -> None:
        with self.client.post(
            "/v1/recommendations", json=body, headers=headers or {}, name=name, catch_response=True
        ) as answer:
            level = answer.json()["degradation"]["level"] if answer.status_code == 200 else ""
            if level and level != "FULL":  # a degraded answer is a success with a name of its own
                answer.request_meta["name"] = f"{name} {level}"


class BackEnd(User):
    """Another service that asks over gRPC at a steady pace."""

    weight = 1
    wait_time = constant_throughput(5)

    def on_start(self) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{SETTINGS.grpc_port}")
        self._call = self._channel.unary_unary(
            METHOD,
            request_serializer=proto.RecommendRequest.SerializeToString,
            response_deserializer=proto.RecommendResponse.FromString,
        )

    def on_stop(self) -> None:
        self._channel.close()

    @task
    def recommend(self) -> None:
        started, error, size = time.perf_counter(), None, 0
        try:
            answer = self._call(proto.RecommendRequest(user_id=next(ASKING), limit=random.choice((10, 20))), timeout=1)
            size = answer.ByteSize()
        except grpc.RpcError as failure:
            error = failure
        self.environment.events.request.fire(
            request_type="gRPC",
            name="Recommend",
            response_time=(time.perf_counter() - started) * 1000,
            response_length=size,
            exception=error,
            context={},
        )
