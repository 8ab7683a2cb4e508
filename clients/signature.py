"""Signatures of webhooks: Standard Webhooks, signed and verified, keys in rotation; GitHub's, verified."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from ..core.errors import HammerworkError, Misconfigured, MissingExtra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

TOLERANCE = timedelta(minutes=5)
"""How far a timestamp may be off, both ways; the figure of the Standard Webhooks specification."""

SHARED_PREFIX, PRIVATE_PREFIX, PUBLIC_PREFIX = "whsec_", "whsk_", "whpk_"
SHARED_SIZES = range(24, 65)
"""Bytes that the specification allows for a shared secret."""

MOST_SIGNATURES = 20
"""A header with more is refused: each costs us a comparison, and the sender nothing."""

KEY_HINT = "whsec_, whsk_ or whpk_ and then base64; `openssl rand -base64 32` makes what follows whsec_"

# A dot would let one signature fit two readings of `id.timestamp.body`.
_MESSAGE_ID = re.compile(r"[!-\-/-~]{1,256}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_HEX_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


class BadSignature(HammerworkError):
    """A request is not provably from who holds the secret, or not from now: refuse it, store nothing.

    `reason` is a stable snake_case code: missing_header, bad_message_id, bad_timestamp, too_old, too_new,
    malformed_signature, no_matching_signature.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


# --- keys ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SharedKey:
    """A `whsec_` secret that sender and receiver share; signs `v1`, HMAC-SHA256."""

    secret: bytes = field(repr=False)
    until: datetime | None = None
    """From this moment on the key neither signs nor verifies; None: for good."""

    _keyed: hmac.HMAC = field(init=False, repr=False, compare=False)

    scheme = "v1"

    def __post_init__(self) -> None:
        # Keyed once and copied for each signature: making one is half of the cost of signing an event.
        object.__setattr__(self, "_keyed", hmac.new(self.secret, digestmod=hashlib.sha256))

    def sign(self, content: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(content)
        return keyed.digest()

    def verifies(self, content: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(self.sign(content), signature)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A `whsk_` key that only the sender has; signs `v1a`, Ed25519 (RFC 8032)."""

    key: Ed25519PrivateKey = field(repr=False)
    until: datetime | None = None

    scheme = "v1a"

    def sign(self, content: bytes) -> bytes:
        return self.key.sign(content)

    def verifies(self, content: bytes, signature: bytes) -> bool:
        return VerifyingKey(self.key.public_key()).verifies(content, signature)

    @property
    def public(self) -> str:
        """The `whpk_` text that receivers verify with."""
        return PUBLIC_PREFIX + _base64(self.key.public_key().public_bytes_raw())


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A `whpk_` key: it verifies what the `whsk_` of the same pair signed, and signs nothing."""

    key: Ed25519PublicKey = field(repr=False)
    until: datetime | None = None

    scheme = "v1a"

    def verifies(self, content: bytes, signature: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            self.key.verify(signature, content)
        except InvalidSignature:
            return False
        return True


Key = SharedKey | SigningKey | VerifyingKey


def parse_key(text: str, *, until: datetime | None = None) -> Key:
    """The key that a `whsec_`, `whsk_` or `whpk_` text holds.

    `whsk_` is base64 of the 32-byte seed, or of seed and public key (64 bytes). Raises Misconfigured, with
    no part of the text, for anything else, and MissingExtra where Ed25519 is not installed.
    """
    if until is not None and until.tzinfo is None:
        raise Misconfigured("a key's `until` must be timezone-aware", hint="datetime.now(UTC) + …")
    if text.startswith(SHARED_PREFIX):
        secret = _key_bytes(text, SHARED_PREFIX)
        if len(secret) not in SHARED_SIZES:
            raise Misconfigured(f"a whsec_ secret has 24 to 64 bytes, not {len(secret)}", hint=KEY_HINT)
        return SharedKey(secret, until)
    if text.startswith(PRIVATE_PREFIX):
        return SigningKey(_private_key(_key_bytes(text, PRIVATE_PREFIX)), until)
    if text.startswith(PUBLIC_PREFIX):
        return VerifyingKey(_public_key(_key_bytes(text, PUBLIC_PREFIX)), until)
    raise Misconfigured("a webhook key begins with none of the known prefixes", hint=KEY_HINT)


def new_secret(size: int = 32) -> str:
    """A fresh `whsec_` secret of that many random bytes, to be given to the receiver as well."""
    if size not in SHARED_SIZES:
        raise Misconfigured(f"a whsec_ secret has 24 to 64 bytes, not {size}")
    return SHARED_PREFIX + _base64(os.urandom(size))


def new_key_pair() -> tuple[str, str]:
    """A fresh Ed25519 pair: the `whsk_` text to keep, and the `whpk_` text to publish."""
    seed = os.urandom(32)
    public = _private_key(seed).public_key().public_bytes_raw()
    return PRIVATE_PREFIX + _base64(seed + public), PUBLIC_PREFIX + _base64(public)


def _key_bytes(text: str, prefix: str) -> bytes:
    encoded = text.removeprefix(prefix)
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Misconfigured(f"what follows {prefix} is not base64", hint=KEY_HINT) from None


def _private_key(data: bytes) -> Ed25519PrivateKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ModuleNotFoundError as error:
        raise MissingExtra("signing with ed25519", "ed25519") from error
    if len(data) not in (32, 64):
        raise Misconfigured(f"a whsk_ key has 32 or 64 bytes, not {len(data)}", hint=KEY_HINT)
    key = Ed25519PrivateKey.from_private_bytes(data[:32])
    if data[32:] not in (b"", key.public_key().public_bytes_raw()):
        raise Misconfigured("the two halves of a whsk_ key do not belong together", hint=KEY_HINT)
    return key


def _public_key(data: bytes) -> Ed25519PublicKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError as error:
        raise MissingExtra("verifying ed25519 signatures", "ed25519") from error
    if len(data) != 32:
        raise Misconfigured(f"a whpk_ key has 32 bytes, not {len(data)}", hint=KEY_HINT)
    return Ed25519PublicKey.from_public_bytes(data)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# --- Standard Webhooks ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a verified request says of itself; deduplicate by `message_id` for longer than the tolerance."""

    message_id: str
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys in force: the newest first, then those that are being rotated out.

    Rotation with overlap: put the new key in front and keep the old one, with or without `until`, as long
    as receivers may know only the old one; every key in force signs, any of them verifies.

    The format is Standard Webhooks (standardwebhooks.com, specification 1.0.0). Its Python library signs
    text and lets ValueError and binascii.Error out of `verify`; here the bytes on the wire are signed and
    every refusal has a name. The tests hold the two together.
    """

    keys: tuple[Key, ...]

    def __post_init__(self) -> None:
        if not self.keys:
            raise Misconfigured("a keyring needs at least one key", hint=KEY_HINT)

    @classmethod
    def of(cls, *texts: str) -> Self:
        """The keyring of these key texts, none of which expires. Raises Misconfigured and MissingExtra."""
        return cls(tuple(parse_key(text) for text in texts))

    def rotated(self, key: Key, *, overlap: timedelta, now: datetime | None = None) -> Keyring:
        """This keyring with a new key in front; the others stay in force for at most `overlap`."""
        end = (now or datetime.now(UTC)) + overlap
        return Keyring((key, *(replace(old, until=min(old.until or end, end)) for old in self.keys)))

    def headers(self, message_id: str, timestamp: datetime, body: bytes) -> dict[str, str]:
        """The three `webhook-…` headers of one attempt to send exactly these bytes.

        `timestamp` is this attempt's, timezone-aware; `message_id` stays the same over all attempts.
        Raises Misconfigured when no key in force can sign, and for an id with a dot or with characters
        that a header cannot carry.
        """
        if _MESSAGE_ID.fullmatch(message_id) is None:
            raise Misconfigured("a webhook's id has 1 to 256 visible ASCII characters and no dot")
        seconds = str(int(timestamp.timestamp()))
        content = _content(message_id, seconds, body)
        signatures = [
            f"{key.scheme},{_base64(key.sign(content))}"
            for key in self._in_force(timestamp)
            if not isinstance(key, VerifyingKey)
        ]
        if not signatures:
            raise Misconfigured("no webhook key in force can sign", hint="give a whsec_ or whsk_ key")
        return {
            "webhook-id": message_id,
            "webhook-timestamp": seconds,
            "webhook-signature": " ".join(signatures),
        }

    def verify(
        self,
        body: bytes,
        headers: Mapping[str, str],
        *,
        tolerance: timedelta = TOLERANCE,
        now: datetime | None = None,
    ) -> Signed:
        """What the request says of itself, if a key in force signed it; else raises BadSignature.

        `body` is the bytes as they arrived; the case of header names does not matter. A signature that
        arrives twice within the tolerance verifies twice: replays are the deduplication's to stop.
        """
        now = now or datetime.now(UTC)
        message_id, seconds, signatures = _standard_headers(headers)
        timestamp = _timely(seconds, tolerance, now)
        content = _content(message_id, seconds, body)
        given = _signatures(signatures)
        # Every pair is compared, so that the time taken does not tell which key or signature was right.
        matches = [
            key.verifies(content, signature)
            for key in self._in_force(now)
            for scheme, signature in given
            if scheme == key.scheme
        ]
        if not any(matches):
            raise BadSignature("no_matching_signature", "no key of ours made any of the signatures")
        return Signed(message_id=message_id, timestamp=timestamp)

    def _in_force(self, moment: datetime) -> list[Key]:
        return [key for key in self.keys if key.until is None or moment < key.until]


def verify_standard(
    body: bytes,
    headers: Mapping[str, str],
    secrets: Sequence[str],
    *,
    tolerance: timedelta = TOLERANCE,
    now: datetime | None = None,
) -> Signed:
    """`Keyring.verify` with key texts; whoever verifies often keeps a Keyring."""
    return Keyring.of(*secrets).verify(body, headers, tolerance=tolerance, now=now)


def _content(message_id: str, seconds: str, body: bytes) -> bytes:
    return b".".join((message_id.encode(), seconds.encode(), body))


def _standard_headers(headers: Mapping[str, str]) -> tuple[str, str, str]:
    known = {name.lower(): value for name, value in headers.items()}
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    missing = [name for name in names if not known.get(name)]
    if missing:
        raise BadSignature("missing_header", ", ".join(missing))
    message_id, seconds, signatures = (known[name] for name in names)
    if _MESSAGE_ID.fullmatch(message_id) is None:
        raise BadSignature("bad_message_id", "1 to 256 visible ASCII characters and no dot")
    return message_id, seconds, signatures


def _timely(seconds: str, tolerance: timedelta, now: datetime) -> datetime:
    if _TIMESTAMP.fullmatch(seconds) is None:
        raise BadSignature("bad_timestamp", "whole seconds since 1970 are expected")
    age = int(now.timestamp()) - int(seconds)
    if age > tolerance.total_seconds():
        raise BadSignature("too_old", f"signed {age} s ago")
    if -age > tolerance.total_seconds():
        raise BadSignature("too_new", f"signed {-age} s in the future")
    return datetime.fromtimestamp(int(seconds), UTC)


def _signatures(header: str) -> list[tuple[str, bytes]]:
    """The signatures of the schemes we know; others are a newer sender's business."""
    entries = header.split(" ")
    if len(entries) > MOST_SIGNATURES:
        raise BadSignature("malformed_signature", f"more than {MOST_SIGNATURES} signatures")
    found = []
    for entry in entries:
        scheme, comma, encoded = entry.partition(",")
        if not comma:
            raise BadSignature("malformed_signature", "each is a version, a comma and base64")
        if scheme in (SharedKey.scheme, SigningKey.scheme):
            try:
                found.append((scheme, base64.b64decode(encoded, validate=True)))
            except (binascii.Error, ValueError):
                raise BadSignature("malformed_signature", "not base64") from None
    return found


# --- GitHub --------------------------------------------------------------------------------------


def verify_github(body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> None:
    """Nothing, if `X-Hub-Signature-256` is the HMAC-SHA256 of the body with one of the secrets; else raises
    BadSignature, and Misconfigured when there is no secret.

    Secrets are any text. The scheme (docs.github.com, "Validating webhook deliveries") signs neither a time
    nor an id, so a request that somebody recorded verifies for ever.
    """
    if not secrets or not all(secrets):
        raise Misconfigured("a webhook secret is empty", hint="give the secret that GitHub was given")
    given = {name.lower(): value for name, value in headers.items()}.get("x-hub-signature-256", "")
    if not given:
        raise BadSignature("missing_header", "x-hub-signature-256")
    digest = given.removeprefix("sha256=")
    if digest == given or _HEX_DIGEST.fullmatch(digest) is None:
        raise BadSignature("malformed_signature", "sha256= and 64 hexadecimal digits are expected")
    signature = bytes.fromhex(digest)
    matches = [
        hmac.compare_digest(hmac.digest(secret.encode(), body, hashlib.sha256), signature)
        for secret in secrets
    ]
    if not any(matches):
        raise BadSignature("no_matching_signature", "no secret of ours made the signature")
