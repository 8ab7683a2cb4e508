"""`[bridges.NAME]`: what every bridge may be told, whatever its type."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ByteSize, Field, SerializeAsAny, model_validator

from ...clients.schemas.options import RegistryOptions
from ...core.ingest.preparation import Tombstones
from ...core.job import DEFAULT_MAX_ATTEMPTS
from .section import Named, Positive, Section


class MapSettings(Section):
    """`[bridges.NAME.map]`: CEL expressions over body, headers, key, id, …; one a field of the job."""

    queue: str | None = None
    priority: str | None = None
    run_at: str | None = None
    delay: str | None = None
    correlation_id: str | None = None
    payload: str | None = None
    filter: str | None = None
    max_attempts: str | None = None
    timeout: str | None = None


class JobSettings(Section):
    """`[bridges.NAME.job]`: what every job of this bridge gets, unless an expression says otherwise."""

    max_attempts: int = Field(default=DEFAULT_MAX_ATTEMPTS, ge=1, le=32_767)
    timeout: Positive | None = None
    priority_from_broker: bool = False
    """Take AMQP's 0 to 9 in pairs as background to critical."""
    allowed_queues: tuple[str, ...] = ()
    """Glob patterns that a job's queue must match; none: every queue but those of sinks."""


SCHEMA_SOURCES: dict[str, tuple[set[str], bool]] = {
    "json": ({"schema_file"}, False),
    "text": (set(), False),
    "bytes": (set(), False),
    "avro": ({"registry", "schema_file"}, True),
    "protobuf": ({"registry"}, True),
    "json_schema": ({"registry"}, True),
}
"""Where a format's schemas may come from, and whether it needs one."""


class DecodeSettings(Section):
    """`[bridges.NAME.decode]`: how strictly bodies are read; what fails is dead-lettered."""

    format: Literal["json", "text", "bytes", "avro", "protobuf", "json_schema"] = "json"
    """`avro`, `protobuf` and `json_schema`: in the wire format of Confluent's registry."""
    registry: RegistryOptions | None = None
    """Where the schemas of these three are."""
    schema_file: Path | None = None
    """A JSON Schema that `json` bodies must fit; or the schema of `avro` bodies that name none."""
    max_bytes: ByteSize = Field(default=ByteSize(1024 * 1024), ge=1)
    """Of the body as it came, unpacked, and as JSON."""
    max_depth: int = Field(default=64, ge=1, le=500)
    check_content_type: bool = True

    @model_validator(mode="after")
    def _one_source_of_schemas(self) -> Self:
        allowed, needed = SCHEMA_SOURCES[self.format]
        given = {name for name in ("registry", "schema_file") if getattr(self, name) is not None}
        if given - allowed:
            raise ValueError(f"format {self.format!r} takes no {' and no '.join(sorted(given - allowed))}")
        if len(given) > 1:
            raise ValueError("give a registry or a schema_file, not both")
        if needed and not given:
            raise ValueError(f"format {self.format!r} needs a {' or a '.join(sorted(allowed))}")
        return self


class BatchSettings(Section):
    """`[bridges.NAME.batch]`: how many messages one transaction takes."""

    count: int = Field(default=500, ge=1, le=10_000)
    size: ByteSize = Field(default=ByteSize(8 * 1024 * 1024), ge=1)
    linger: timedelta = Field(default=timedelta(milliseconds=5), ge=timedelta(0), le=timedelta(seconds=10))
    wait: timedelta = Field(default=timedelta(seconds=1), gt=timedelta(0), le=timedelta(seconds=20))


class LimitSettings(Section):
    """`[bridges.NAME.limits]`: when a bridge holds back by itself, and goes on."""

    depth: int | None = Field(default=None, ge=1)
    """Pull nothing while so many jobs wait in the queues that the bridge feeds."""
    age: Positive | None = None
    """… or while the oldest of them has been due for so long."""
    resume_at: float = Field(default=0.7, gt=0, le=1)
    """Go on below this part of `depth` and `age`."""
    rate: float | None = Field(default=None, gt=0)
    """Messages a second, at most."""
    dead_letter_share: float | None = Field(default=None, gt=0, le=1)
    """Pause the bridge, until an operator resumes it, when so large a part became dead letters …"""
    dead_letter_least: int = Field(default=50, ge=1)
    """… of at least so many messages …"""
    dead_letter_window: Positive = timedelta(minutes=1)
    """… within so long."""
    stall_after: timedelta = Field(default=timedelta(minutes=1), ge=timedelta(seconds=1))
    """Open the bridge anew when nothing moved for so long although messages wait at the broker."""


class BridgeSettings(Section):
    """`[bridges.NAME]`: what every bridge may be told; the options of its type stand beside these."""

    type: str
    enabled: bool = True
    required: bool = True
    """Whether the gateway is ready only while this bridge runs."""
    guarantee: Literal["exactly_once", "at_least_once"] | None = None
    """Hold the bridge unless at least this can be promised; None: take what there is."""
    to_queue: str | None = None
    """The queue of its jobs; None: what `map.queue` says, else the bridge's own name."""
    transform: Named | None = None
    """package.module:function, or a plugin's name for it, called with the message and its body."""
    transform_timeout: Positive = timedelta(seconds=5)
    map: MapSettings = MapSettings()
    job: JobSettings = JobSettings()
    decode: DecodeSettings = DecodeSettings()
    batch: BatchSettings = BatchSettings()
    dedupe_window: Positive = timedelta(days=14)
    """How long a message's identity is remembered."""
    max_deliveries: int | None = Field(default=None, ge=1)
    """A message that the broker counts as delivered more often becomes a dead letter."""
    dead_letter_bytes: ByteSize = Field(default=ByteSize(1024 * 1024), ge=1)
    """How much of a dead letter's body is kept; a cut one cannot be replayed."""
    tombstones: Tombstones = "skip"
    """A key without a body: nothing, `cancel` the latest job of the key, or `enqueue` a null payload."""
    limits: LimitSettings = LimitSettings()
    options: SerializeAsAny[BaseModel]

    def fixed_queue(self, name: str) -> str | None:
        """The queue of all its jobs, where no expression chooses it."""
        return self.to_queue or (name if self.map.queue is None else None)
