"""Operation: one row of the table from which routes, permissions and the OpenAPI document come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, SecretStr

from ...core.errors import Misconfigured
from ...core.operate import Replayer
from ...core.postgres.database import Database
from ...core.publish.relay import Subscription
from ...core.queue import Queue
from .shapes import Request

PREFIX = "/api/v1"

P = TypeVar("P", bound="Params")
B = TypeVar("B", bound=Request)
R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiContext:
    """What the operations work on. `replayers` by bridge, `subscriptions` by sink.

    `loopback`: the server is bound to this machine alone; without a `token` it must be. `read_token` is a
    second token, for operations whose permission ends in `:read`. Raises Misconfigured.
    """

    queue: Queue
    database: Database
    replayers: Mapping[str, Replayer] = field(default_factory=dict)
    subscriptions: Mapping[str, Subscription] = field(default_factory=dict)
    token: SecretStr | None = None
    read_token: SecretStr | None = None
    loopback: bool = True

    def __post_init__(self) -> None:
        if self.token is None and not self.loopback:
            raise Misconfigured(
                "the API would be open to the network without a token",
                hint="set http.token (HAMMERWORK_HTTP__TOKEN), or http.host to 127.0.0.1",
            )


class Params(Request):
    """The parameters of an operation: those that its path names, HEADERS, else the query."""


class NoBody(Request):
    """The body of an operation that takes none."""


HEADERS = frozenset({"Idempotency-Key"})
"""Parameters of these names (aliases) are read from the request's headers."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[P, B, R]):
    """`name` is its operationId, `path` lies beneath PREFIX, `location` is the path of what was created, with
    the reply's fields between braces."""

    name: str
    method: Literal["GET", "POST"]
    path: str
    summary: str
    permission: str
    parameters: type[P]
    body: type[B]
    reply: type[R]
    handler: Callable[[ApiContext, P, B], Awaitable[R]]
    status: int = 200
    location: str | None = None

    @property
    def takes_body(self) -> bool:
        return self.body is not NoBody

    @property
    def needs_body(self) -> bool:
        return any(f.is_required() for f in self.body.model_fields.values())


def location_of(operation: Operation[Any, Any, Any], parameter: str) -> Literal["path", "header", "query"]:
    """Where a request carries a parameter (by its alias)."""
    if f"{{{parameter}}}" in operation.path:
        return "path"
    return "header" if parameter in HEADERS else "query"
