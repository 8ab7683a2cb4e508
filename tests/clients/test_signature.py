"""Signatures: held against the specification's own library, in rotation, at the edges of time, and forged."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from hammerwork.clients.signature import (
    BadSignature,
    Keyring,
    SigningKey,
    new_key_pair,
    new_secret,
    parse_key,
    verify_github,
    verify_standard,
)
from hammerwork.core.errors import Misconfigured, MissingExtra

# The example of Svix, who wrote the specification; both signatures are in its libraries' tests.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PRIVATE = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
MOMENT = datetime.fromtimestamp(1614265330, UTC)
BODY = b'{"test": 2432232314}'
V1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
V1A = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="

MINUTES = timedelta(minutes=1)


def signed(*secrets: str, body: bytes = BODY, at: datetime = MOMENT) -> dict[str, str]:
    return Keyring.of(*secrets).headers(ID, at, body)


def refusal(body: bytes, headers: dict[str, str], *secrets: str, now: datetime = MOMENT) -> str:
    with pytest.raises(BadSignature) as refused:
        verify_standard(body, headers, secrets, now=now)
    return refused.value.reason


# --- the specification ---------------------------------------------------------------------------


@pytest.mark.parametrize(("secret", "signature"), [(SECRET, V1), (PRIVATE, V1A)])
def test_the_known_example_is_signed_to_the_letter(secret: str, signature: str) -> None:
    assert signed(secret) == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": signature,
    }


def test_the_specifications_library_verifies_what_we_sign() -> None:
    secret, body = new_secret(), '{"naïve": "✓"}'.encode()
    headers = signed(secret, body=body, at=datetime.now(UTC))
    assert Webhook(secret).verify(body, headers) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers)


def test_we_verify_what_the_specifications_library_signs() -> None:
    secret, now = new_secret(), datetime.now(UTC)
    headers = {
        "Webhook-Id": ID,
        "Webhook-Timestamp": str(int(now.timestamp())),
        "Webhook-Signature": Webhook(secret).sign(ID, now, BODY.decode()),
    }
    found = verify_standard(BODY, headers, [secret])
    assert (found.message_id, found.timestamp) == (ID, now.replace(microsecond=0))


def test_a_body_that_is_no_text_is_signed_as_it_is() -> None:
    body = bytes(range(256))
    verify_standard(body, signed(SECRET, body=body), [SECRET], now=MOMENT)


def test_the_public_key_verifies_what_the_private_key_signed() -> None:
    verify_standard(BODY, signed(PRIVATE), [PUBLIC], now=MOMENT)
    assert refusal(BODY + b" ", signed(PRIVATE), PUBLIC) == "no_matching_signature"
    private, public = new_key_pair()
    verify_standard(BODY, signed(private), [public], now=MOMENT)
    assert refusal(BODY, signed(private), PUBLIC) == "no_matching_signature"
    key = parse_key(private)
    assert isinstance(key, SigningKey)
    assert key.public == public


# --- forgery -------------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=200), st.data())
def test_one_changed_byte_is_refused(body: bytes, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(body) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != body[index]))
    changed = body[:index] + bytes([other]) + body[index + 1 :]
    assert refusal(changed, signed(SECRET, body=body), SECRET) == "no_matching_signature"


@pytest.mark.parametrize(
    ("header", "value"), [("webhook-id", "msg_other"), ("webhook-timestamp", "1614265331")]
)
def test_id_and_time_are_signed_too(header: str, value: str) -> None:
    assert refusal(BODY, signed(SECRET) | {header: value}, SECRET) == "no_matching_signature"


def test_a_part_of_the_id_cannot_be_taken_for_the_time() -> None:
    shifted = {"webhook-id": f"{ID}.1614265330", "webhook-timestamp": "1614265330"}
    assert refusal(BODY, signed(SECRET) | shifted, SECRET) == "bad_message_id"
    with pytest.raises(Misconfigured, match="no dot"):
        Keyring.of(SECRET).headers("a.b", MOMENT, BODY)


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_refused(header: str) -> None:
    headers = signed(SECRET)
    assert refusal(BODY, headers | {header: ""}, SECRET) == "missing_header"
    del headers[header]
    assert refusal(BODY, headers, SECRET) == "missing_header"


MALFORMED = [
    *("", " ", "v1", "v1,", "v1,%%%%", "v1,é", "v1,AAA", "v2,AAAA", "v1a,AAAA"),
    *(f"{V1}=", f"{V1},", f"{V1} v1,!", V1.replace("v1,", "v1a,"), " ".join([V1] * 21)),
]


@pytest.mark.parametrize("value", MALFORMED)
def test_a_malformed_signature_is_refused(value: str) -> None:
    reason = refusal(BODY, signed(SECRET) | {"webhook-signature": value}, SECRET, PUBLIC)
    assert reason in {"missing_header", "malformed_signature", "no_matching_signature"}


@given(st.dictionaries(st.sampled_from(list(signed(SECRET))), st.text(), min_size=1))
def test_no_header_does_more_than_be_refused(changed: dict[str, str]) -> None:
    headers = signed(SECRET) | changed
    if headers != signed(SECRET):
        refusal(BODY, headers, SECRET, PUBLIC)


# --- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("off", "reason"), [(300, None), (301, "too_old"), (-300, None), (-301, "too_new")])
def test_a_timestamp_may_be_off_by_five_minutes(off: int, reason: str | None) -> None:
    now = MOMENT + timedelta(seconds=off)
    if reason is None:
        verify_standard(BODY, signed(SECRET), [SECRET], now=now)
    else:
        assert refusal(BODY, signed(SECRET), SECRET, now=now) == reason


@pytest.mark.parametrize(
    "seconds", ["-1", "+1614265330", "1614265330.0", "nan", "1e9", "٣", " 1614265330", "9" * 13]
)
def test_a_timestamp_that_is_no_number_of_seconds_is_refused(seconds: str) -> None:
    assert refusal(BODY, signed(SECRET) | {"webhook-timestamp": seconds}, SECRET) == "bad_timestamp"


# --- rotation ------------------------------------------------------------------------------------


def test_in_rotation_holders_of_either_secret_verify() -> None:
    old, new = new_secret(), new_secret()
    headers = signed(new, old, PRIVATE)
    assert [one.partition(",")[0] for one in headers["webhook-signature"].split(" ")] == ["v1", "v1", "v1a"]
    for secret in (old, new, PUBLIC):
        verify_standard(BODY, headers, [secret], now=MOMENT)
    for secret in (old, new):
        verify_standard(BODY, signed(secret), [new, old], now=MOMENT)
    assert refusal(BODY, headers, new_secret()) == "no_matching_signature"


def test_signatures_of_an_unknown_version_are_passed_over() -> None:
    headers = signed(SECRET) | {"webhook-signature": f"v9,?? {V1}"}
    verify_standard(BODY, headers, [SECRET], now=MOMENT)


def test_a_rotated_key_neither_signs_nor_verifies_after_its_overlap() -> None:
    old, new = new_secret(), new_secret()
    ring = Keyring.of(old).rotated(parse_key(new), overlap=10 * MINUTES, now=MOMENT)
    assert len(ring.headers(ID, MOMENT + 9 * MINUTES, BODY)["webhook-signature"].split(" ")) == 2
    ring.verify(BODY, signed(old, at=MOMENT + 9 * MINUTES), now=MOMENT + 9 * MINUTES)
    late = MOMENT + 10 * MINUTES
    assert ring.headers(ID, late, BODY) == signed(new, at=late)
    with pytest.raises(BadSignature, match="no_matching_signature"):
        ring.verify(BODY, signed(old, at=late), now=late)
    again = ring.rotated(parse_key(PRIVATE), overlap=60 * MINUTES, now=MOMENT)
    assert [key.until for key in again.keys] == [None, MOMENT + 60 * MINUTES, late]


def test_a_keyring_that_cannot_sign_says_so() -> None:
    with pytest.raises(Misconfigured, match="can sign"):
        Keyring.of(PUBLIC).headers(ID, MOMENT, BODY)
    with pytest.raises(Misconfigured, match="at least one key"):
        Keyring(())


# --- keys ----------------------------------------------------------------------------------------


BAD_KEYS = [
    *("", "hunter2hunter2hunter2hunter2hunter2", "whsec_", "whsec_hunter2!hunter2hunter2hunter2hunter"),
    *("whsec_aHVudGVyMg==", "whsk_aHVudGVyMg==", "whpk_aHVudGVyMg=="),
    "whsec_" + "QUJD" * 22,  # 66 bytes
    "whsk_" + "QUJD" * 21 + "QQ==",  # a seed, and a public key that is not its own
]


@pytest.mark.parametrize("text", BAD_KEYS)
def test_a_bad_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        parse_key(text)
    shown = f"{refused.value} {refused.value.hint}"
    assert "hunter2" not in shown
    assert "aHVudGVyMg" not in shown
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("size", [23, 65])
def test_secrets_have_the_sizes_of_the_specification(size: int) -> None:
    with pytest.raises(Misconfigured, match="24 to 64"):
        new_secret(size)
    assert Webhook(new_secret()).sign(ID, MOMENT, "{}") != Webhook(new_secret()).sign(ID, MOMENT, "{}")


def test_no_key_shows_in_a_repr() -> None:
    ring = Keyring.of(SECRET, PRIVATE, PUBLIC)
    raw = [str(key.secret) for key in ring.keys if hasattr(key, "secret")]
    assert not any(secret in repr(ring) for secret in (SECRET[6:], PRIVATE[5:], *raw))
    assert repr(ring.keys[0]) == "SharedKey(until=None)"


def test_ed25519_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for text in (PRIVATE, PUBLIC):
        with pytest.raises(MissingExtra, match="`ed25519`"):
            parse_key(text)
    verify_standard(BODY, signed(SECRET), [SECRET], now=MOMENT)


# --- GitHub --------------------------------------------------------------------------------------


def test_the_example_of_githubs_documentation_is_verified() -> None:
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    secret, headers = "It's a Secret to Everybody", {"X-Hub-Signature-256": signature}
    verify_github(b"Hello, World!", headers, ["another", secret])
    with pytest.raises(BadSignature, match="no_matching_signature"):
        verify_github(b"Hello, world!", headers, [secret])
    with pytest.raises(BadSignature, match="no_matching_signature"):
        verify_github(b"Hello, World!", headers, ["another"])


@pytest.mark.parametrize("value", ["", "sha256=", "sha1=aa", "sha256=zz", "sha256=" + "é" * 64, "{}"])
def test_a_malformed_github_signature_is_refused(value: str) -> None:
    bare = hmac.new(b"s", b"", hashlib.sha256).hexdigest()
    with pytest.raises(BadSignature) as refused:
        verify_github(b"", {"x-hub-signature-256": value.format(bare)}, ["s"])
    assert refused.value.reason in {"missing_header", "malformed_signature"}


@pytest.mark.parametrize("secrets", [[], [""], ["s", ""]])
def test_an_empty_github_secret_verifies_nothing(secrets: list[str]) -> None:
    empty = "sha256=" + hmac.new(b"", b"", hashlib.sha256).hexdigest()
    with pytest.raises(Misconfigured):
        verify_github(b"", {"x-hub-signature-256": empty}, secrets)
