"""Registry: the four questions that we ask a schema registry over Confluent's REST API."""

from __future__ import annotations

import base64
import binascii
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp

from ...core.errors import Misconfigured, Unavailable
from .options import RegistryOptions
from .schema import Schema, unusable

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
LARGEST_ANSWER = 8 * 1024 * 1024
MOST_REFERENCES = 200
"""Schemas that one schema may need; more is a loop or worse."""

UNKNOWN_SUBJECT, UNKNOWN_VERSION, UNKNOWN_SCHEMA = 40401, 40402, 40403
"""The registries' own codes under the status 404. A 404 without one is not a registry's."""

NORMALIZED = "normalize=true"
"""A schema is the same one however it is laid out."""

URL_HINT = "check the registry's url, with its path (Apicurio: /apis/ccompat/v7)"


class _Failing(Unavailable):
    """It answers, but not this question, or not now."""


class Registry:
    """Asks anew each time; whoever asks keeps the answers, which never change for an id.

    Schemas are asked for rarely, so every question has a connection of its own and there is nothing to close.
    Raises Unavailable when the registry is away or busy, Misconfigured when it refuses us or is none.
    """

    def __init__(self, options: RegistryOptions) -> None:
        self.url = options.url
        self._timeout = aiohttp.ClientTimeout(total=options.timeout.total_seconds())
        self._tls = _tls(options)
        self._headers = {"Accept": f"{CONTENT_TYPE}, application/json", "Content-Type": CONTENT_TYPE}
        if options.token is not None:
            self._headers["Authorization"] = f"Bearer {options.token.get_secret_value()}"
        elif options.username is not None and options.password is not None:
            password = options.password.get_secret_value()
            self._headers["Authorization"] = aiohttp.encode_basic_auth(options.username, password, "utf-8")

    async def look(self) -> None:
        """Return when it answers us as a registry does: a schema that it has, or that there is none."""
        await self._ask("GET", "schemas/ids/1")

    async def schema(self, schema_id: int) -> Schema | None:
        """The schema of that id with all that it refers to; None when there is none.

        Raises BadMessage(unusable_schema) for one that refers to what is not there.
        """
        path = f"schemas/ids/{schema_id}"
        found = await self._ask("GET", path)
        return None if found is None else await self._completed(path, found, {})

    async def register(self, subject: str, schema: Schema) -> int:
        """The id of this schema under the subject, where it becomes the next version if it is new.

        Raises Misconfigured when the registry refuses it, as incompatible with the version before say.
        """
        body = {"schema": schema.text, "schemaType": schema.language}
        found = await self._ask("POST", f"subjects/{quote(subject, safe='')}/versions", body, NORMALIZED)
        if found is None:
            raise self._refused(404, "there is no such subject")
        return self._id_in(found)

    async def find(self, subject: str, schema: Schema) -> int | None:
        """The id of this schema under the subject; None when it is not registered there."""
        body = {"schema": schema.text, "schemaType": schema.language}
        found = await self._ask("POST", f"subjects/{quote(subject, safe='')}", body, NORMALIZED)
        return None if found is None else self._id_in(found)

    # --- a schema and what it refers to ---

    async def _completed(self, path: str, found: Mapping[str, Any], known: dict[str, Schema]) -> Schema:
        language, text = found.get("schemaType") or "AVRO", found.get("schema")
        references = found.get("references") or []
        if not (isinstance(language, str) and isinstance(text, str) and isinstance(references, list)):
            raise self._no_registry("an answer without a schema")
        named = []
        for reference in references:
            match reference:
                case {"name": str(name), "subject": str(subject), "version": int(version)}:
                    named.append((name, await self._referenced(subject, version, known)))
                case _:
                    raise self._no_registry("a reference without name, subject and version")
        if language == "PROTOBUF":
            text = await self._descriptor(path) or text
        return Schema(language, text, tuple(named))

    async def _referenced(self, subject: str, version: int, known: dict[str, Schema]) -> Schema:
        # A version that was deleted softly is still needed by those that refer to it.
        path = f"subjects/{quote(subject, safe='')}/versions/{version}"
        if path not in known:
            if len(known) == MOST_REFERENCES:
                raise unusable(f"it needs more than {MOST_REFERENCES} other schemas")
            known[path] = Schema("", "")  # a loop ends here, and what it lacks is told when it is compiled
            found = await self._ask("GET", path, query="deleted=true")
            if found is None:
                raise unusable(f"it refers to version {version} of {subject!r}, which the registry lacks")
            known[path] = await self._completed(path, found, known)
        return known[path]

    async def _descriptor(self, path: str) -> str | None:
        """A Protobuf schema compiled by the registry; None from one that does not do that."""
        try:
            found = await self._ask("GET", path, query="format=serialized")
        except _Failing:
            return None  # some have no such format and answer 500 or 501
        text = None if found is None else found.get("schema")
        return text if isinstance(text, str) and is_base64(text) else None

    # --- one question ---

    async def _ask(
        self, method: str, path: str, body: Mapping[str, str] | None = None, query: str = ""
    ) -> Mapping[str, Any] | None:
        """The answer's object; None for a 404 of the registry's own."""
        url = f"{self.url}/{path}" + (f"?{query}" if query else "")
        data = None if body is None else json.dumps(body)
        try:
            async with (
                aiohttp.ClientSession(timeout=self._timeout, headers=self._headers) as session,
                session.request(method, url, data=data, ssl=self._tls, allow_redirects=False) as response,
            ):
                status, content = response.status, await response.content.read(LARGEST_ANSWER + 1)
                while not response.content.at_eof() and len(content) <= LARGEST_ANSWER:
                    content += await response.content.read(LARGEST_ANSWER)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"the schema registry at {self.url} is away: {_why(error)}") from error
        return self._understood(status, content)

    def _understood(self, status: int, content: bytes) -> Mapping[str, Any] | None:
        if status == 429 or status >= 500:
            raise _Failing(f"the schema registry at {self.url} answers {status}")
        try:
            answer = json.loads(content) if len(content) <= LARGEST_ANSWER else None
        except (ValueError, RecursionError):
            answer = None
        if status in (401, 403):
            raise Misconfigured(
                f"the schema registry at {self.url} refuses us ({status})",
                hint="check the registry's username and password, or its token, and what they may do",
            )
        if not isinstance(answer, dict):
            raise self._no_registry(f"{status} without a JSON object")
        if 200 <= status < 300:
            return answer
        code = answer.get("error_code")
        if status == 404 and code in (UNKNOWN_SUBJECT, UNKNOWN_VERSION, UNKNOWN_SCHEMA):
            return None
        if status in (409, 422) and isinstance(code, int):
            raise self._refused(status, str(answer.get("message")))
        raise self._no_registry(str(status))

    def _id_in(self, found: Mapping[str, Any]) -> int:
        if not isinstance(schema_id := found.get("id"), int):
            raise self._no_registry("an answer without an id")
        return schema_id

    def _refused(self, status: int, why: str) -> Misconfigured:
        return Misconfigured(
            f"the schema registry at {self.url} refuses a schema ({status}): {why[:300]}",
            hint="see what is registered under that subject, and its compatibility",
        )

    def _no_registry(self, what: str) -> Misconfigured:
        return Misconfigured(
            f"{self.url} does not answer as a schema registry does, but with {what}", hint=URL_HINT
        )


def is_base64(text: str) -> bool:
    """Whether this is base64 and not the source of a schema, which has spaces or braces."""
    try:
        return bool(text) and bool(base64.b64decode(text, validate=True))
    except binascii.Error:
        return False


def _why(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorError():
            # The client's own text repeats the address, with its setting for TLS.
            return str(error.os_error)
        case _:
            return f"{type(error).__name__}: {error}"


def _tls(options: RegistryOptions) -> ssl.SSLContext | bool:
    return options.tls.context() if options.url.startswith("https:") else True
