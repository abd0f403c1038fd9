"""gRPC's side of the door: keys as an interceptor over the same ``Access`` as HTTP's, and TLS."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from app import metrics
from app.access import Access, Outcome, Verdict, bearer, roles_of_method
from app.settings import Settings
from domain.errors import StartError

_REFUSALS = {
    Outcome.UNKNOWN: (grpc.StatusCode.UNAUTHENTICATED, "an API key is needed: authorization: Bearer KEY"),
    Outcome.FORBIDDEN: (grpc.StatusCode.PERMISSION_DENIED, "this needs a key of another role"),
    Outcome.LIMITED: (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests with this key"),
}


class AccessInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Before the message is parsed. Admission, where there is any, comes after it."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        roles = roles_of_method(details.method)
        if roles is None:
            return await continuation(details)
        given = [str(value) for name, value in details.invocation_metadata or () if name == "authorization"]
        verdict = self._access.check(bearer(given), roles)
        if self._access.required or verdict.outcome is not Outcome.GRANTED:
            metrics.access_checked(verdict.name, verdict.outcome.value)
        return await continuation(details) if verdict.outcome is Outcome.GRANTED else _refuse(verdict)


def _refuse(verdict: Verdict) -> Any:
    """A handler that ends the call, whatever its kind: a caller sees the status before any message."""
    code, detail = _REFUSALS[verdict.outcome]

    async def refuse(message: bytes, call: Any) -> None:
        del message
        if verdict.outcome is Outcome.LIMITED:
            call.set_trailing_metadata((("retry-after", str(max(1, math.ceil(verdict.retry_seconds)))),))
        await call.abort(code, detail)

    return grpc.unary_unary_rpc_method_handler(refuse)


@dataclass(frozen=True, slots=True)
class GrpcTls:
    """PEM files: the server's certificate chain and key, and the authority of the callers' certificates, if wanted."""

    certificate: Path
    key: Path
    client_authority: Path | None = None

    @classmethod
    def of(cls, settings: Settings) -> GrpcTls | None:
        """What the settings ask for; None is a plain port."""
        if settings.grpc_cert is None or settings.grpc_key is None:
            return None
        return cls(settings.grpc_cert, settings.grpc_key, settings.grpc_client_ca)

    def credentials(self) -> grpc.ServerCredentials:
        """Raises ``StartError`` if a file cannot be read."""
        try:
            pair = (self.key.read_bytes(), self.certificate.read_bytes())
            authority = self.client_authority and self.client_authority.read_bytes()
        except OSError as error:
            raise StartError(f"gRPC's TLS needs {error.filename}: {error.strerror}") from error
        return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)
