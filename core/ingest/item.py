"""One delivery on its way into the database: what it is to become, and under which identity."""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

from ..errors import BadMessage
from ..identity import new_id
from ..message import Delivery, Fate, Receipt
from .burial import Burial

LONGEST_ID = 255


class Item:
    """A delivery that becomes a job (`row`), a dead letter (`bad`), or nothing where it is filtered.

    `message_id` is its identity in the inbox (None: it has none), `digest` the SHA-256 of its body, by
    which another message of the same identity is told.
    """

    __slots__ = ("_letter_id", "bad", "delivery", "digest", "fence", "message_id", "row")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.fence: int | None = None
        """Of a log: the fence under which its partition was ours when it was pulled."""
        self.message_id = inbox_id(delivery.message.id)
        self.digest = b"" if self.message_id is None else sha256(delivery.message.body).digest()
        self.row: tuple[object, ...] | None = None
        self.bad: BadMessage | None = None
        self._letter_id: UUID | None = None

    @property
    def job_id(self) -> UUID | None:
        return None if self.row is None else self.row[0]  # type: ignore[return-value]

    @property
    def partition(self) -> str:
        """Of a log: the partition that it came from."""
        return "" if self.delivery.position is None else self.delivery.position.partition

    @property
    def filtered(self) -> bool:
        return self.row is None and self.bad is None

    def refuse(self, bad: BadMessage) -> None:
        """It becomes a dead letter. The id is made once, so that a transaction can be sent again."""
        self.row, self.bad, self._letter_id = None, bad, self._letter_id or new_id()

    def conflicts(self) -> Item:
        """The same, refused because its identity came before with another body: under one made of both."""
        why = f"message id {self.message_id!r} came before with another body"
        self.refuse(BadMessage("id_conflict", why))
        self.message_id = f"{self.message_id}#{self.digest.hex()[:32]}"
        return self

    def receipt(self) -> Receipt:
        """Of an item that is stored now."""
        if self.row is not None:
            return Receipt(self.delivery, Fate.STORED, self.job_id)
        if self.bad is None:
            return Receipt(self.delivery, Fate.FILTERED)
        reason, detail = self.bad.reason, self.bad.detail
        return Receipt(self.delivery, Fate.DEAD_LETTERED, None, self._letter_id, reason, detail)

    def receipt_of_known(self, job_id: UUID | None) -> Receipt:
        """Of an item whose identity the inbox holds with this job: ours from a try before, or somebody's."""
        if self.bad is not None and job_id is None:
            return self.receipt()
        return Receipt(self.delivery, Fate.STORED if job_id == self.job_id else Fate.DUPLICATE, job_id)

    def burial(self, bad: BadMessage) -> Burial:
        assert self._letter_id is not None
        return Burial(
            id=self._letter_id,
            message=self.delivery.message,
            message_id=self.message_id,
            reason=bad.reason,
            detail=bad.detail,
        )


def inbox_id(message_id: str | None) -> str | None:
    """A message's identity as the inbox keeps it: itself, or its hash when Postgres could not index it."""
    if not message_id:
        return None
    if len(message_id) <= LONGEST_ID and message_id.isprintable():
        return message_id
    return "sha256:" + sha256(message_id.encode("utf-8", "surrogatepass")).hexdigest()
