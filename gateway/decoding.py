"""How a bridge's bodies are read: `[bridges.NAME.decode]`, and the decoder that is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, model_validator

from ..clients.schemas.options import RegistryOptions
from ..clients.schemas.reading import FileReader, RegistryReader
from ..core.ingest.decode import Decoder, Format, SchemaReader


class DecodeSettings(BaseModel):
    """`[bridges.NAME.decode]`: how strictly bodies are read; what fails is dead-lettered."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)

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
        allowed, needed = _SOURCES[self.format]
        given = {name for name in ("registry", "schema_file") if getattr(self, name) is not None}
        if given - allowed:
            raise ValueError(f"format {self.format!r} takes no {' and no '.join(sorted(given - allowed))}")
        if len(given) > 1:
            raise ValueError("give a registry or a schema_file, not both")
        if needed and not given:
            raise ValueError(f"format {self.format!r} needs a {' or a '.join(sorted(allowed))}")
        return self


_SOURCES: dict[str, tuple[set[str], bool]] = {
    "json": ({"schema_file"}, False),
    "text": (set(), False),
    "bytes": (set(), False),
    "avro": ({"registry", "schema_file"}, True),
    "protobuf": ({"registry"}, True),
    "json_schema": ({"registry"}, True),
}
"""Where a format's schemas may come from, and whether it needs one."""


def decoder_of(settings: DecodeSettings) -> Decoder:
    """Connects to nothing. Raises Misconfigured for files that cannot be used, and MissingExtra."""
    schemas: SchemaReader | None = None
    format: Format = "json"
    match settings.format:
        case "json" | "avro" as written if settings.schema_file is not None:
            schemas = FileReader(settings.schema_file, written)
        case "json" | "text" | "bytes" as unwritten:
            format = unwritten
        case "avro" | "protobuf" | "json_schema" as registered:
            from ..clients.schemas.registry import Registry  # with aiohttp, which settings alone do without

            assert settings.registry is not None
            schemas = RegistryReader(Registry(settings.registry), registered)
    return Decoder(
        format=format,
        max_bytes=settings.max_bytes,
        max_depth=settings.max_depth,
        check_content_type=settings.check_content_type,
        schemas=schemas,
    )
