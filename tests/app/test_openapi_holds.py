"""schemathesis: whatever the OpenAPI document allows or forbids, the answer is one that it documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest
import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from app.access import ADMIN, CLIENT, Access, make_key
from app.edge import Patience, Readiness
from app.http_api import create_app
from app.orders import OrderBook
from tests.app.fake_serving import FakeServing

FOLDER = TemporaryDirectory()
MADE = {role: make_key(role, role, rate=99_999) for role in (CLIENT, ADMIN)}


def documented(home: Path) -> schemathesis.BaseSchema:
    """The whole door, keys on, as its own document describes it."""
    (home / "keys").write_text("".join(f"{key.line}\n" for _, key in MADE.values()))
    serving = FakeServing()
    app = create_app(serving, Readiness(serving), Patience(0.15, 1.0), Access(home / "keys"), OrderBook(home))
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    return schema


@pytest.fixture(scope="module", autouse=True)
def folder() -> Iterator[None]:
    yield
    FOLDER.cleanup()


WHOLE = (("limit",), ("context", "max_age_rating"))


@documented(Path(FOLDER.name)).parametrize()
@hypothesis.settings(max_examples=40)
def test_the_document_tells_what_is_answered(case: schemathesis.Case) -> None:
    hypothesis.assume(not any(_is_float(case.body, name) for name in WHOLE))
    token, _ = MADE[ADMIN if case.path.startswith("/admin/") else CLIENT]
    response = case.call(headers={"Authorization": f"Bearer {token}"})
    assert response.status_code < 500
    assert response.status_code < 400 or len(response.content) < 2048
    case.validate_response(response, excluded_checks=_excluded(case, response.status_code))


def _is_float(body: object, path: tuple[str, ...]) -> bool:
    """20.0 is an integer to JSON Schema, and none to us."""
    for name in path:
        body = body.get(name) if isinstance(body, dict) else None
    return isinstance(body, float)


def _excluded(case: schemathesis.Case, status: int) -> list:
    """What no document can say: which headers one may add, and what time it is when an event claims to have been; and
    that 413 is a refusal schemathesis does not know.
    """
    components = case.meta.components if case.meta else {}
    told = any(part.mode.is_negative for place, part in components.items() if place is not ParameterLocation.HEADER)
    excluded = [] if told and status != 413 else [negative_data_rejection]
    return [*excluded, positive_data_acceptance] if case.path == "/v1/events" else excluded
