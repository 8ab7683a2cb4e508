"""The HTTP bridge over a real server: 2xx only after COMMIT, and a reason for everything else."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientResponse, ClientSession, web
from pydantic import ValidationError
from standardwebhooks import Webhook

from hammerwork.bridges.http import HttpBridge, HttpOptions
from hammerwork.core.errors import BadMessage, Disconnected, Misconfigured
from hammerwork.core.identity import new_id
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.message import Delivery, Fate, Message, Receipt, Want

WANT = Want(wait=timedelta(milliseconds=50), linger=timedelta(milliseconds=1))
TOKEN = "a-token-of-sixteen-or-more"
DEADLINE = 5.0


@dataclass
class Counterpart:
    """The other side of the seam: what the intake does, in memory."""

    bridge: HttpBridge
    committing: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared to keep a pulled batch in front of its COMMIT."""
    messages: list[Message] = field(default_factory=list)
    jobs: dict[str, UUID] = field(default_factory=dict)
    releasing: bool = False
    decoder: Decoder = field(default_factory=Decoder)

    async def run(self) -> None:
        while True:
            try:
                deliveries = await self.bridge.pull(WANT)
            except Disconnected:
                return
            self.messages += [delivery.message for delivery in deliveries]
            await self.committing.wait()
            if self.releasing:
                await self.bridge.release(deliveries)
            elif deliveries:
                await self.bridge.settle([self.receipt(delivery) for delivery in deliveries])

    def receipt(self, delivery: Delivery) -> Receipt:
        message = delivery.message
        try:
            value = self.decoder.decode(message).value
        except BadMessage as bad:
            return Receipt(
                delivery, Fate.DEAD_LETTERED, dead_letter_id=new_id(), reason=bad.reason, detail=bad.detail
            )
        if value == "filter me":
            return Receipt(delivery, Fate.FILTERED)
        if message.id in self.jobs:
            return Receipt(delivery, Fate.DUPLICATE, job_id=self.jobs[message.id])
        job_id = new_id()
        if message.id is not None:
            self.jobs[message.id] = job_id
        return Receipt(delivery, Fate.STORED, job_id=job_id)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@dataclass
class Site:
    """A running server with one bridge, and a client of it."""

    bridge: HttpBridge
    storage: Counterpart
    client: ClientSession
    url: str
    port: int

    async def post(
        self, body: bytes | str = b"{}", suffix: str = "", **headers: str
    ) -> tuple[ClientResponse, dict[str, Any]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named.setdefault("Content-Type", "application/json")
        async with self.client.post(self.url + suffix, data=body, headers=named) as response:
            return response, json.loads(await response.read())


@asynccontextmanager
async def site(*, opened: bool = True, pulled: bool = True, **options: Any) -> AsyncIterator[Site]:
    bridge = HttpBridge("orders", HttpOptions(**options))
    application = web.Application()
    application.add_routes(bridge.routes())
    runner = web.AppRunner(application, auto_decompress=False, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    storage = Counterpart(bridge)
    storage.committing.set()
    if opened:
        await bridge.open()
    pulling = asyncio.create_task(storage.run(), name="counterpart of the bridge") if pulled else None
    try:
        async with ClientSession() as client:
            yield Site(bridge, storage, client, f"http://127.0.0.1:{port}/in/orders", port)
    finally:
        await bridge.close()
        if pulling is not None:
            pulling.cancel()
            await asyncio.wait([pulling])
        await runner.cleanup()
    if pulling is not None and not pulling.cancelled():
        pulling.result()


def problem_of(response: ClientResponse, body: dict[str, Any]) -> tuple[int, str]:
    assert response.content_type == "application/problem+json"
    assert body["status"] == response.status
    assert body["title"]
    assert body["detail"]
    return response.status, body["reason"]


# --- one message ----------------------------------------------------------------------------------


async def test_a_message_is_answered_202_with_its_job_once_it_is_stored() -> None:
    async with site() as here:
        response, body = await here.post(
            b'{"order": 17}', Idempotency_Key="k-1", X_Tenant="acme", X_Correlation_Id="c-1"
        )
        assert (response.status, body) == (202, {"status": "stored", "job_id": str(here.storage.jobs["k-1"])})
        (message,) = here.storage.messages
        assert (message.body, message.id, message.correlation_id) == (b'{"order": 17}', "k-1", "c-1")
        assert message.content_type == "application/json"
        assert message.headers["x-tenant"] == "acme"
        assert message.coordinates == {"broker": "http", "path": "/in/orders"}
        assert message.timestamp is not None


async def test_no_answer_is_given_before_the_commit() -> None:
    async with site() as here:
        here.storage.committing.clear()
        posting = asyncio.create_task(here.post(), name="sender")
        await here.storage.until(lambda: len(here.storage.messages) == 1)
        done, _ = await asyncio.wait([posting], timeout=0.1)
        assert not done
        here.storage.committing.set()
        assert (await posting)[0].status == 202


async def test_a_repeated_key_is_a_duplicate_with_the_same_job() -> None:
    async with site() as here:
        _, first = await here.post(Idempotency_Key="k-1")
        response, again = await here.post(Idempotency_Key='"k-1"')
        assert response.status == 200
        assert again == {"status": "duplicate", "job_id": first["job_id"]}


async def test_a_filtered_message_is_answered_200() -> None:
    async with site() as here:
        response, body = await here.post(b'"filter me"')
        assert (response.status, body) == (200, {"status": "filtered"})


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"", {}, "empty_body"),
        (b'{"a": 1', {}, "not_json"),
        (b'{"a": 1, "a": 2}', {}, "duplicate_key"),
        (b"\xff", {}, "not_utf8"),
        (b"[" * 5000, {}, "too_deep"),
        (b"<a/>", {"Content_Type": "text/xml"}, "unsupported_content_type"),
        (b"{}", {"Content_Encoding": "br"}, "unknown_content_encoding"),
        (b"{}", {"Content_Encoding": "gzip"}, "bad_gzip"),
        (gzip.compress(b" " * 1_000_000), {"Content_Encoding": "gzip"}, "compression_bomb"),
    ],
)
async def test_a_bad_message_is_a_dead_letter_and_answered_422(
    body: bytes, headers: dict[str, str], reason: str
) -> None:
    async with site() as here:
        response, answer = await here.post(body, **headers)
        assert problem_of(response, answer) == (422, reason)
        UUID(answer["dead_letter_id"])
        assert here.storage.messages[0].body == body


async def test_a_compressed_message_is_handed_on_as_it_was_sent() -> None:
    async with site() as here:
        packed = gzip.compress(b'{"a": 1}')
        response, _ = await here.post(packed, Content_Encoding="gzip")
        assert response.status == 202
        (message,) = here.storage.messages
        assert (message.body, message.content_encoding) == (packed, "gzip")


@pytest.mark.parametrize(
    ("headers", "identity"),
    [
        ({}, None),
        ({"Idempotency_Key": " "}, None),
        ({"Idempotency_Key": "k", "webhook_id": "w", "X_GitHub_Delivery": "g"}, "k"),
        ({"webhook_id": "w", "X_GitHub_Delivery": "g"}, "w"),
        ({"X_GitHub_Delivery": "g"}, "g"),
    ],
)
async def test_where_the_identity_comes_from(headers: dict[str, str], identity: str | None) -> None:
    async with site() as here:
        await here.post(**headers)
        assert here.storage.messages[0].id == identity


async def test_secrets_in_headers_are_not_carried() -> None:
    async with site(token=TOKEN) as here:
        await here.post(Authorization=f"Bearer {TOKEN}", Cookie="session=1", X_Kept="é")
        headers = here.storage.messages[0].headers
        assert headers["x-kept"] == "é"
        assert not {"authorization", "cookie", "host", "content-length"} & headers.keys()
        assert TOKEN not in repr(headers)


async def test_header_bytes_that_are_not_utf8_become_base64() -> None:
    async with site() as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(
            b"POST /in/orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Raw: \xff\xfe\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 202")
        writer.close()
        await writer.wait_closed()
        assert here.storage.messages[0].headers["x-raw"] == {"base64": "//4="}


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["/batch", "?batch=1"])
async def test_an_array_is_cut_into_messages_with_the_very_text_they_came_with(suffix: str) -> None:
    async with site() as here:
        body = b' [ {"a":  1.50} , "x,]" ,\n12345678901234567890123456789012,[ ] ] '
        response, answer = await here.post(body, suffix, Idempotency_Key="k")
        assert response.status == 202
        assert [result["status"] for result in answer["results"]] == ["stored"] * 4
        assert [message.body for message in here.storage.messages] == [
            b'{"a":  1.50}',
            b'"x,]"',
            b"12345678901234567890123456789012",
            b"[ ]",
        ]
        assert [message.id for message in here.storage.messages] == ["k/0", "k/1", "k/2", "k/3"]
        assert [message.coordinates["index"] for message in here.storage.messages] == [0, 1, 2, 3]


async def test_an_array_without_asking_for_a_batch_is_one_message() -> None:
    async with site() as here:
        await here.post(b"[1, 2]")
        assert [message.body for message in here.storage.messages] == [b"[1, 2]"]


async def test_lines_are_messages() -> None:
    async with site() as here:
        body = gzip.compress(b'{"a": 1}\n\r\n{"a": \xff}\r\n"filter me"')
        response, answer = await here.post(
            body, Content_Type="application/x-ndjson", Content_Encoding="gzip", Idempotency_Key="k"
        )
        assert response.status == 207
        assert [result["status"] for result in answer["results"]] == ["stored", "dead_lettered", "filtered"]
        assert answer["results"][1]["reason"] == "not_utf8"


async def test_every_message_of_a_batch_has_its_own_result() -> None:
    async with site() as here:
        await here.post(b"[1]", "/batch", Idempotency_Key="k")
        response, answer = await here.post(
            b'[1, {"a": 1, "a": 2}, NaN, "filter me", 5]', "/batch", Idempotency_Key="k"
        )
        assert response.status == 207
        results = answer["results"]
        assert [result["status"] for result in results] == [
            "duplicate",
            "dead_lettered",
            "dead_lettered",
            "filtered",
            "stored",
        ]
        assert [result.get("reason") for result in results] == [
            None,
            "duplicate_key",
            "not_finite",
            None,
            None,
        ]


async def test_an_empty_batch_is_no_message() -> None:
    async with site() as here:
        response, answer = await here.post(b"[]", "/batch")
        assert (response.status, answer) == (200, {"results": []})


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "empty_body"),
        (b"{}", 400, "not_json"),
        (b"[1", 400, "not_json"),
        (b"[1 2]", 400, "not_json"),
        (b"[1,]", 400, "not_json"),
        (b"[1] 2", 400, "trailing_garbage"),
        (b"[] x", 400, "trailing_garbage"),
        (b'["\xff"]', 400, "not_utf8"),
        (b"\xef\xbb\xbf[]", 400, "byte_order_mark"),
        (b"[" * 100_000, 400, "too_deep"),
        (b"[" + b",".join([b"1"] * 11) + b"]", 413, "batch_too_long"),
    ],
)
async def test_a_batch_that_cannot_be_cut_is_refused_as_a_whole(
    body: bytes, status: int, reason: str
) -> None:
    async with site(max_batch=10) as here:
        response, answer = await here.post(body, "/batch")
        assert problem_of(response, answer) == (status, reason)
        assert here.storage.messages == []


@pytest.mark.parametrize(
    ("content_type", "encoding", "body", "status", "reason"),
    [
        ("text/xml", "", b"[]", 415, "unsupported_content_type"),
        ("application/json", "br", b"[]", 415, "unknown_content_encoding"),
        ("application/json", "gzip", b"[]", 400, "bad_gzip"),
        ("application/json", "gzip", gzip.compress(b" " * 2_000_000), 413, "compression_bomb"),
        ("application/x-ndjson", "", b"1\n" * 1001, 413, "batch_too_long"),
    ],
)
async def test_a_batch_of_another_kind_is_refused(
    content_type: str, encoding: str, body: bytes, status: int, reason: str
) -> None:
    async with site() as here:
        response, answer = await here.post(
            body, "/batch", Content_Type=content_type, Content_Encoding=encoding
        )
        assert problem_of(response, answer) == (status, reason)


# --- CloudEvents ----------------------------------------------------------------------------------

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/shop",
    "type": "order.placed",
    "time": "2026-05-06T07:08:09Z",
    "partitionkey": "customer-7",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "retries": 3,
}


def assert_is_the_event(message: Message) -> None:
    assert (message.id, message.key) == ("/shop e-1", "customer-7")
    assert message.headers["ce-type"] == "order.placed"
    assert str(message.headers["ce-retries"]) == "3"
    assert message.headers["traceparent"] == EVENT["traceparent"]
    assert message.timestamp == datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)


async def test_a_structured_event_is_a_message_of_its_data() -> None:
    async with site() as here:
        text = json.dumps(EVENT)[:-1] + ', "data": {"total":  1.10}}'
        response, _ = await here.post(text, Content_Type="application/cloudevents+json; charset=utf-8")
        assert response.status == 202
        (message,) = here.storage.messages
        assert_is_the_event(message)
        assert (message.body, message.content_type) == (b'{"total":  1.10}', "application/json")
        response, _ = await here.post(text, Content_Type="application/cloudevents+json")
        assert response.status == 200


async def test_a_binary_event_is_a_message_of_its_body() -> None:
    async with site() as here:
        headers = {f"ce_{name}": str(value) for name, value in EVENT.items()}
        response, _ = await here.post(b'{"total": 1}', ce_subject="caf%C3%A9", **headers)
        assert response.status == 202
        (message,) = here.storage.messages
        assert_is_the_event(message)
        assert message.headers["ce-subject"] == "café"
        assert (message.body, message.content_type) == (b'{"total": 1}', "application/json")


async def test_an_events_binary_data_is_its_bytes() -> None:
    async with site() as here:
        here.storage.decoder = Decoder(format="bytes")
        event = EVENT | {
            "data_base64": base64.b64encode(b"\x00\xff").decode(),
            "datacontenttype": "image/png",
        }
        await here.post(json.dumps(event), Content_Type="application/cloudevents+json")
        (message,) = here.storage.messages
        assert (message.body, message.content_type) == (b"\x00\xff", "image/png")


async def test_an_event_without_data_is_null() -> None:
    async with site() as here:
        await here.post(json.dumps(EVENT), Content_Type="application/cloudevents+json")
        assert here.storage.messages[0].body == b"null"


async def test_one_bad_event_of_a_batch_is_refused_and_the_others_are_stored() -> None:
    async with site() as here:
        events = [EVENT | {"id": "a"}, {"id": "b"}, "no object", EVENT | {"id": "c"}, EVENT | {"id": "a"}]
        response, answer = await here.post(
            json.dumps(events), Content_Type="application/cloudevents-batch+json", Idempotency_Key="k"
        )
        assert response.status == 207
        assert [result["status"] for result in answer["results"]] == [
            "stored",
            "refused",
            "refused",
            "stored",
            "duplicate",
        ]
        assert answer["results"][1]["reason"] == "bad_cloud_event"
        assert [message.id for message in here.storage.messages] == ["/shop a", "/shop c", "/shop a"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps({name: value for name, value in EVENT.items() if name != "id"}), "bad_cloud_event"),
        (json.dumps(EVENT | {"source": ""}), "bad_cloud_event"),
        (json.dumps(EVENT | {"type": 7}), "bad_cloud_event"),
        (json.dumps(EVENT | {"specversion": "0.3"}), "bad_cloud_event"),
        (json.dumps(EVENT | {"Not-A-Name": "x"}), "bad_cloud_event"),
        (json.dumps(EVENT | {"nested": {"a": 1}}), "bad_cloud_event"),
        (json.dumps(EVENT | {"data": 1, "data_base64": "eA=="}), "bad_cloud_event"),
        (json.dumps(EVENT | {"data_base64": "!!"}), "bad_cloud_event"),
        (json.dumps(EVENT | {"data_base64": 7}), "bad_cloud_event"),
        (json.dumps(EVENT)[:-1] + ', "huge": ' + "9" * 5000 + "}", "bad_cloud_event"),
        (json.dumps(EVENT)[:-1] + ', "data": 1, "data": 2}', "duplicate_key"),
        (json.dumps(EVENT)[:-1], "not_json"),
        (json.dumps(EVENT)[:-1] + ",}", "not_json"),
        ('{1: "a"}', "not_json"),
        ("[]", "not_json"),
        ("", "empty_body"),
    ],
)
async def test_an_envelope_that_is_no_event_is_refused(text: str, reason: str) -> None:
    async with site() as here:
        response, answer = await here.post(text, Content_Type="application/cloudevents+json")
        assert problem_of(response, answer) == (400, reason)


async def test_half_a_binary_event_and_other_encodings_of_events_are_refused() -> None:
    async with site() as here:
        assert problem_of(*await here.post(ce_id="1")) == (400, "bad_cloud_event")
        answer = await here.post(Content_Type="application/cloudevents+avro")
        assert problem_of(*answer) == (415, "unsupported_content_type")


# --- who may send ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "status", "reason"),
    [
        (None, 401, "no_credentials"),
        ("", 401, "no_credentials"),
        ("Basic dXNlcjpwYXNz", 401, "no_credentials"),
        ("Bearer", 401, "no_credentials"),
        ("Bearer " + TOKEN[:-1], 403, "bad_token"),
        ("Bearer " + TOKEN + "x", 403, "bad_token"),
        ("Bearer é", 403, "bad_token"),
    ],
)
async def test_without_the_token_nothing_is_taken(
    authorization: str | None, status: int, reason: str
) -> None:
    async with site(token=TOKEN) as here:
        headers = {} if authorization is None else {"Authorization": authorization}
        response, answer = await here.post(**headers)
        assert problem_of(response, answer) == (status, reason)
        assert ("WWW-Authenticate" in response.headers) == (status == 401)
        assert here.storage.messages == []
        assert (await here.post(Authorization=f"bearer {TOKEN}"))[0].status == 202


async def test_a_token_file_is_read_when_the_bridge_opens(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    async with site(token_file=file) as here:
        assert (await here.post(Authorization=f"Bearer {TOKEN}"))[0].status == 202
    for text, message in (("", "empty"), ("short", "shorter than 16")):
        file.write_text(text)
        with pytest.raises(Misconfigured, match=message):
            await HttpBridge("orders", HttpOptions(token_file=file)).open()
    with pytest.raises(Misconfigured, match="cannot be read"):
        await HttpBridge("orders", HttpOptions(token_file=tmp_path / "none")).guarantee()


SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


def signed(body: bytes, *, secret: str = SECRET, at: datetime | None = None) -> dict[str, str]:
    moment = at or datetime.now(UTC)
    signature = Webhook(secret).sign(msg_id="w-1", timestamp=moment, data=body.decode())
    return {
        "webhook_id": "w-1",
        "webhook_timestamp": str(int(moment.timestamp())),
        "webhook_signature": signature,
    }


async def test_a_standard_webhook_is_taken_when_its_signature_holds(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    other = "whsec_" + base64.b64encode(b"o" * 32).decode()
    file.write_text(f"{other}\n{SECRET}\n")
    async with site(signature={"scheme": "standard", "secret_file": file}) as here:
        response, _ = await here.post(
            b'{"a": 1}', **signed(b'{"a": 1}'), Idempotency_Key="replayed-as-another"
        )
        assert response.status == 202
        assert here.storage.messages[0].id == "w-1"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {name: value for name, value in signed(b"{}").items() if name != "webhook_signature"},
        signed(b'{"a": 2}'),
        signed(b"{}") | {"webhook_id": "w-2"},
        signed(b"{}") | {"webhook_signature": "v1,"},
        signed(b"{}") | {"webhook_signature": "garbage é"},
        signed(b"{}") | {"webhook_timestamp": "soon"},
        signed(b"{}", at=datetime.now(UTC) - timedelta(minutes=10)),
        signed(b"{}", at=datetime.now(UTC) + timedelta(minutes=10)),
        signed(b"{}", secret="whsec_" + base64.b64encode(b"x" * 32).decode()),
    ],
)
async def test_a_standard_webhook_without_a_good_signature_is_refused(headers: dict[str, str]) -> None:
    async with site(signature={"scheme": "standard", "secrets": [SECRET]}) as here:
        refusal = (401, "no_signature") if len(headers) < 3 else (403, "bad_signature")
        assert problem_of(*await here.post(b"{}", **headers)) == refusal
        assert here.storage.messages == []


async def test_a_secret_that_is_none_holds_the_bridge() -> None:
    options = HttpOptions.model_validate({"signature": {"scheme": "standard", "secrets": ["whsec_!"]}})
    with pytest.raises(Misconfigured):
        await HttpBridge("orders", options).open()


async def test_a_github_webhook_is_taken_when_its_signature_holds() -> None:
    async with site(signature={"scheme": "github", "secrets": ["old", "current"]}) as here:
        digest = hmac.new(b"current", b'{"a": 1}', hashlib.sha256).hexdigest()
        headers = {"X_Hub_Signature_256": f"sha256={digest}", "X_GitHub_Delivery": "g-1"}
        response, _ = await here.post(b'{"a": 1}', **headers)
        assert response.status == 202
        assert here.storage.messages[0].id == "g-1"
        for bad in (headers, {"X_Hub_Signature_256": "sha256=00"}):
            assert problem_of(*await here.post(b'{"a": 2}', **bad)) == (403, "bad_signature")
        for none in ({}, {"X_Hub_Signature": "sha1=00"}):
            assert problem_of(*await here.post(b'{"a": 2}', **none)) == (401, "no_signature")
        assert len(here.storage.messages) == 1


# --- limits and backpressure ----------------------------------------------------------------------


async def test_a_body_that_is_too_large_is_refused_declared_or_not() -> None:
    async with site(max_body=1000) as here:
        assert (await here.post(b'"' + b"x" * 998 + b'"'))[0].status == 202
        assert problem_of(*await here.post(b"x" * 1001)) == (413, "too_large")

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield b"x" * 300

        async with here.client.post(here.url, data=chunks()) as response:
            assert response.status == 413
        assert len(here.storage.messages) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_another_method_is_refused(method: str) -> None:
    async with site() as here, here.client.request(method, here.url) as response:
        assert response.headers["Allow"] == "POST"
        assert problem_of(response, json.loads(await response.read())) == (405, "method_not_allowed")


async def test_a_body_that_does_not_arrive_ends_with_408() -> None:
    async with site(wait=timedelta(milliseconds=50)) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(b"POST /in/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        async with asyncio.timeout(DEADLINE):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()
        await writer.wait_closed()


async def test_when_too_many_wait_the_next_is_told_to_come_again() -> None:
    async with site(max_pending=2, max_batch=2) as here:
        here.storage.committing.clear()
        waiting = [asyncio.create_task(here.post(), name=f"sender {n}") for n in range(2)]
        await here.storage.until(lambda: here.bridge.waiting == 2)
        response, answer = await here.post()
        assert problem_of(response, answer) == (503, "busy")
        assert response.headers["Retry-After"] == "1"
        here.storage.committing.set()
        assert [(await sender)[0].status for sender in waiting] == [202, 202]
        assert (await here.post(b"[1, 2]", "/batch"))[0].status == 202


async def test_a_batch_finds_room_for_all_of_it_or_none() -> None:
    async with site(max_pending=3, max_batch=3) as here:
        here.storage.committing.clear()
        waiting = asyncio.create_task(here.post(), name="sender")
        await here.storage.until(lambda: here.bridge.waiting == 1)
        assert problem_of(*await here.post(b"[1, 2, 3]", "/batch")) == (503, "busy")
        assert here.bridge.waiting == 1
        here.storage.committing.set()
        assert (await waiting)[0].status == 202
        assert (await here.post(b"[1, 2, 3]", "/batch"))[0].status == 202


async def test_bytes_that_wait_are_bounded_too() -> None:
    async with site(max_body=1000, max_pending_size=1500) as here:
        here.storage.committing.clear()
        body = b'"' + b"x" * 900 + b'"'
        waiting = asyncio.create_task(here.post(body), name="sender")
        await here.storage.until(lambda: here.bridge.waiting == 1)
        assert problem_of(*await here.post(body)) == (503, "busy")
        here.storage.committing.set()
        assert (await waiting)[0].status == 202
        assert (await here.post(body))[0].status == 202


async def test_messages_can_be_required_to_carry_an_identity() -> None:
    async with site(require_identity=True) as here:
        assert problem_of(*await here.post()) == (400, "no_identity")
        assert problem_of(*await here.post(b"[1]", "/batch")) == (400, "no_identity")
        assert (await here.post(Idempotency_Key="k"))[0].status == 202
        assert (await here.bridge.guarantee()).level == "exactly-once in effect"


# --- when it is not stored ------------------------------------------------------------------------


async def test_released_messages_are_answered_503() -> None:
    async with site() as here:
        here.storage.releasing = True
        response, answer = await here.post(Idempotency_Key="k")
        assert problem_of(response, answer) == (503, "not_stored")
        assert response.headers["Retry-After"] == "1"
        response, answer = await here.post(b"[1, 2]", "/batch")
        assert problem_of(response, answer) == (503, "not_stored")
        assert [result["status"] for result in answer["results"]] == ["not_stored"] * 2
        here.storage.releasing = False
        assert (await here.post(Idempotency_Key="k"))[0].status == 202


async def test_closing_answers_everyone_who_waits_pulled_or_not() -> None:
    async with site() as here:
        here.storage.committing.clear()
        pulled = asyncio.create_task(here.post(), name="sender whose message is pulled")
        await here.storage.until(lambda: len(here.storage.messages) == 1)
        buffered = asyncio.create_task(here.post(), name="sender whose message is buffered")
        await here.storage.until(lambda: here.bridge.waiting == 2)
        await here.bridge.close()
        await here.bridge.close()
        assert problem_of(*await pulled) == (503, "not_stored")
        assert problem_of(*await buffered) == (503, "not_stored")
        assert problem_of(*await here.post()) == (503, "busy")
        here.storage.committing.set()


async def test_a_closed_bridge_opens_again() -> None:
    async with site(pulled=False) as here:
        await here.bridge.close()
        with pytest.raises(Disconnected):
            await here.bridge.pull(WANT)
        await here.bridge.open()
        posting = asyncio.create_task(here.post(b"7"), name="sender")
        await here.storage.until(lambda: here.bridge.waiting == 1)
        deliveries = await here.bridge.pull(WANT)
        await here.bridge.settle([here.storage.receipt(delivery) for delivery in deliveries])
        assert (await posting)[0].status == 202


async def test_before_it_is_open_nothing_is_taken() -> None:
    async with site(opened=False) as here:
        assert problem_of(*await here.post()) == (503, "busy")


async def test_a_request_waits_no_longer_than_it_may_and_its_message_is_not_pulled_later() -> None:
    async with site(wait=timedelta(milliseconds=100)) as here:
        here.storage.committing.clear()
        pulled = await here.post(b"1")
        buffered = await here.post(b"2")
        assert problem_of(*pulled) == (503, "not_stored")
        assert problem_of(*buffered) == (503, "not_stored")
        here.storage.committing.set()
        assert (await here.post(b"3"))[0].status == 202
        assert [message.body for message in here.storage.messages] == [b"1", b"3"]


async def test_a_client_that_leaves_while_it_waits_disturbs_nobody() -> None:
    async with site() as here:
        here.storage.committing.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(b"POST /in/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        await here.storage.until(lambda: len(here.storage.messages) == 1)
        writer.transport.abort()
        staying = asyncio.create_task(here.post(), name="sender who stays")
        await here.storage.until(lambda: here.bridge.waiting == 2)
        here.storage.committing.set()
        assert (await staying)[0].status == 202
        await here.storage.until(lambda: here.bridge.waiting == 0)
        assert await reader.read() == b""


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing() -> None:
    async with site() as here:
        _, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(b"POST /in/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.transport.abort()
        assert (await here.post())[0].status == 202
        assert len(here.storage.messages) == 1


async def test_many_senders_at_once_each_get_their_own_answer() -> None:
    async with site() as here:

        async def send(number: int) -> None:
            response, answer = await here.post(
                str(number % 100).encode(), Idempotency_Key=f"k-{number % 100}"
            )
            assert response.status in (200, 202)
            assert answer["job_id"] == str(here.storage.jobs[f"k-{number % 100}"])

        async with asyncio.TaskGroup() as senders:
            for number in range(300):
                senders.create_task(send(number), name=f"sender {number}")
        assert len(here.storage.jobs) == 100
        assert here.bridge.waiting == 0


# --- the seam and the settings --------------------------------------------------------------------


async def test_a_pull_brings_no_more_than_is_wanted_in_the_order_of_arrival() -> None:
    async with site(pulled=False) as here:
        bodies = [b'"%d%s"' % (n, b"x" * 97) for n in range(10)]
        posting = asyncio.create_task(here.post(b"[" + b",".join(bodies) + b"]", "/batch"), name="sender")
        await here.storage.until(lambda: here.bridge.waiting == 10)
        wants = [Want(count=3, size=10_000)] * 2 + [Want(count=9, size=250)] * 2
        pulls = [await here.bridge.pull(want) for want in wants]
        assert [len(deliveries) for deliveries in pulls] == [3, 3, 2, 2]
        assert [delivery.message.body for deliveries in pulls for delivery in deliveries] == bodies
        assert await here.bridge.pull(Want(wait=timedelta(milliseconds=10))) == []
        for deliveries in pulls:
            await here.bridge.settle([here.storage.receipt(delivery) for delivery in deliveries])
        assert (await posting)[0].status == 202


async def test_one_message_larger_than_wanted_is_pulled_alone() -> None:
    async with site(pulled=False) as here:
        posting = asyncio.create_task(here.post(b'["long enough", 1]', "/batch"), name="sender")
        await here.storage.until(lambda: here.bridge.waiting == 2)
        assert len(await here.bridge.pull(Want(size=5))) == 1
        await here.bridge.close()
        assert (await posting)[0].status == 503


def test_whether_senders_must_prove_who_they_are(tmp_path: Path) -> None:
    def authenticated(**options: Any) -> bool:
        return HttpBridge("orders", HttpOptions(**options)).authenticated

    assert not authenticated()
    assert authenticated(token=TOKEN)
    assert authenticated(token_file=tmp_path / "token")
    assert authenticated(signature={"scheme": "github", "secrets": ["s"]})


async def test_the_guarantee_says_what_holds() -> None:
    plain = await HttpBridge("orders", HttpOptions()).guarantee()
    assert plain.level == "at-least-once"
    assert "Idempotency-Key" in plain.because
    assert any("loopback" in warning for warning in plain.warnings)
    options = HttpOptions.model_validate({"signature": {"scheme": "standard", "secrets": [SECRET]}})
    assert (await HttpBridge("orders", options).guarantee()).level == "exactly-once in effect"


@pytest.mark.parametrize(
    "options",
    [
        {"token": "short"},
        {"token": TOKEN, "token_file": "/x"},
        {"path": "no/slash"},
        {"path": "/{pattern}"},
        {"unknown": 1},
        {"max_batch": 10, "max_pending": 5},
        {"max_body": "2MiB", "max_pending_size": "1MiB"},
        {"signature": {"scheme": "standard"}},
        {"signature": {"scheme": "other", "secrets": ["s"]}},
        {"signature": {"scheme": "github", "secrets": [""]}},
        {"wait": 0},
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        HttpOptions(**options)
    assert TOKEN not in str(caught.value)


def test_settings_never_show_their_secrets() -> None:
    options = HttpOptions.model_validate(
        {"token": TOKEN, "signature": {"scheme": "github", "secrets": ["hush-hush"]}}
    )
    assert TOKEN not in repr(options)
    assert "hush-hush" not in repr(options)
