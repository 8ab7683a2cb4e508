"""A schema registry of the tests' own: the documented REST API in memory, and what can go wrong with it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import encode_basic_auth, web


@dataclass(frozen=True, slots=True)
class Version:
    schema: str
    language: str
    references: tuple[dict[str, Any], ...] = ()
    descriptor: str | None = None
    """What `?format=serialized` answers."""


@dataclass(slots=True)
class RegistryServer:
    """`fault` is answered in place of everything: a status, or a body that is no registry's; `slow` seconds
    pass before each answer."""

    url: str = ""
    fault: web.Response | None = None
    slow: float = 0.0
    login: str | None = None
    asked: list[str] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)
    """A version's id is its place in this list, from 1 on."""
    subjects: dict[str, list[int]] = field(default_factory=dict)
    compiles_nothing: bool = False
    """It answers `?format=serialized` with 501."""
    deleted: set[str] = field(default_factory=set)
    """Subjects that were deleted softly."""
    incompatible: set[str] = field(default_factory=set)
    """Subjects that take no other schema any more."""

    def add(self, version: Version, subject: str) -> int:
        if version not in self.versions:
            self.versions.append(version)
        schema_id = self.versions.index(version) + 1
        ids = self.subjects.setdefault(subject, [])
        if schema_id not in ids:
            ids.append(schema_id)
        return schema_id

    def avro(self, schema: object, subject: str = "t-value", **names: str) -> int:
        """An Avro schema, registered; `names` are the subjects of what it refers to, by type name."""
        return self.add(Version(json.dumps(schema), "AVRO", _references(names)), subject)

    def json(self, schema: object, subject: str = "t-value", **names: str) -> int:
        return self.add(Version(json.dumps(schema), "JSON", _references(names)), subject)

    def protobuf(self, descriptor: bytes, subject: str = "t-value", **names: str) -> int:
        compiled = base64.b64encode(descriptor).decode()
        source = f'syntax = "proto3"; // {len(descriptor)}'
        return self.add(Version(source, "PROTOBUF", _references(names), compiled), subject)

    # --- the API ---

    @web.middleware
    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path_qs}")
        if self.slow:
            await asyncio.sleep(self.slow)
        if self.fault is not None:
            headers = {"Content-Type": "text/html", "Location": "/elsewhere"}
            return web.Response(status=self.fault.status, body=self.fault.body, headers=headers)
        if self.login is not None and request.headers.get("Authorization") != self.login:
            return _error(401, 40101, "unauthorised")
        response: web.StreamResponse = await handler(request)
        return response

    async def schema(self, request: web.Request) -> web.Response:
        schema_id = int(request.match_info["id"])
        if not 0 < schema_id <= len(self.versions):
            return _error(404, 40403, "Schema not found")
        if self.compiles_nothing and request.query.get("format") == "serialized":
            return _error(501, 501, "not implemented")
        return web.json_response(self._told(schema_id, request))

    async def version(self, request: web.Request) -> web.Response:
        ids = self.subjects.get(request.match_info["subject"])
        hidden = request.match_info["subject"] in self.deleted and request.query.get("deleted") != "true"
        if ids is None or hidden:
            return _error(404, 40401, "Subject not found")
        number = int(request.match_info["version"])
        if not 0 < number <= len(ids):
            return _error(404, 40402, "Version not found")
        return web.json_response(self._told(ids[number - 1], request) | {"id": ids[number - 1]})

    async def register(self, request: web.Request) -> web.Response:
        subject, given = request.match_info["subject"], await request.json()
        version = Version(given["schema"], given.get("schemaType", "AVRO"))
        if subject in self.incompatible:
            return _error(409, 409, "Schema being registered is incompatible with an earlier schema")
        return web.json_response({"id": self.add(version, subject)})

    async def find(self, request: web.Request) -> web.Response:
        ids, given = self.subjects.get(request.match_info["subject"]), await request.json()
        if ids is None:
            return _error(404, 40401, "Subject not found")
        for schema_id in ids:
            if json.loads(self.versions[schema_id - 1].schema) == json.loads(given["schema"]):
                return web.json_response({"id": schema_id, "version": 1, "schema": given["schema"]})
        return _error(404, 40403, "Schema not found")

    def _told(self, schema_id: int, request: web.Request) -> dict[str, Any]:
        version = self.versions[schema_id - 1]
        told: dict[str, Any] = {"schema": version.schema}
        if request.query.get("format") == "serialized" and version.descriptor is not None:
            told["schema"] = version.descriptor
        if version.language != "AVRO":
            told["schemaType"] = version.language
        if version.references:
            told["references"] = list(version.references)
        return told


@asynccontextmanager
async def served(server: RegistryServer, port: int = 0) -> AsyncIterator[RegistryServer]:
    """Serve it on loopback for the time of the block."""
    app = web.Application(middlewares=[server.guard])
    app.router.add_get("/schemas/ids/{id}", server.schema)
    app.router.add_get("/subjects/{subject}/versions/{version}", server.version)
    app.router.add_post("/subjects/{subject}/versions", server.register)
    app.router.add_post("/subjects/{subject}", server.find)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def basic(user: str, password: str) -> str:
    return encode_basic_auth(user, password)


def _references(names: dict[str, str]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"name": name.replace("__", "."), "subject": subject, "version": 1} for name, subject in names.items()
    )


def _error(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"error_code": code, "message": message}, status=status)
