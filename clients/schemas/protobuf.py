"""Protobuf bodies: messages of a schema that is known only at run time to JSON, by Google's library."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtobufMessage
from google.protobuf.message_factory import GetMessageClass

from ...core.errors import BadMessage, Misconfigured
from ...core.ingest.decode import Plain
from .registry import is_base64
from .schema import Schema, unusable
from .wire import message_indexes

MAIN = "hammerwork_main.proto"
COMPILE_WITHIN = 30.0
"""Seconds that protoc gets."""

_SHIPPED = re.compile(r"(google/(?:protobuf|type)/[a-z_]+)\.proto")


class ProtobufCodec:
    """Reads messages of one file in Confluent's framing, as ProtoJSON: names in lowerCamelCase, 64-bit
    numbers and bytes (base64) as text, `Timestamp` as RFC 3339; fields that are not set have their default.

    Blocks for as long as protoc runs where the registry gives source. Raises BadMessage(unusable_schema)
    for a bad schema.
    """

    def __init__(self, schema: Schema) -> None:
        files = _files({**dict(schema.dependencies()), MAIN: schema})
        self._pool = DescriptorPool()
        try:
            for file in _with_imports(files):
                self._pool.Add(file)
            self._file: FileDescriptor = self._pool.FindFileByName(MAIN)
        except BadMessage:
            raise
        except Exception as error:
            raise unusable(f"{type(error).__name__}: {error}") from error
        self._types: dict[tuple[int, ...], type[ProtobufMessage]] = {}

    def plain(self, body: bytes) -> Plain:
        indexes, start = message_indexes(body)
        message = self._type(indexes)()
        try:
            message.ParseFromString(body[start:])
            value = MessageToDict(
                message, always_print_fields_with_no_presence=True, descriptor_pool=self._pool
            )
            text = json.dumps(value, allow_nan=False)
        except RecursionError as error:
            raise BadMessage("too_deep", "the Protobuf message nests too deeply") from error
        except MemoryError:
            raise
        except Exception as error:
            raise BadMessage("bad_protobuf", f"{type(error).__name__}: {error}"[:500]) from error
        if not message.IsInitialized():
            raise BadMessage("bad_protobuf", "a required field is missing")
        return Plain(text.encode())

    def _type(self, indexes: tuple[int, ...]) -> type[ProtobufMessage]:
        if (known := self._types.get(indexes)) is not None:
            return known
        found: Descriptor | None = None
        for index in indexes:
            choice = (
                list(self._file.message_types_by_name.values()) if found is None else list(found.nested_types)
            )
            if not 0 <= index < len(choice):
                raise BadMessage("bad_protobuf", f"the message indexes {list(indexes)} name no message")
            found = choice[index]
        assert found is not None
        return self._types.setdefault(indexes, GetMessageClass(found))


def _files(schemas: Mapping[str, Schema]) -> dict[str, FileDescriptorProto]:
    """The schemas, each under the name by which others import it, compiled."""
    if not any(is_base64(schema.text) for schema in schemas.values()):
        return _compiled(schemas)
    files = {}
    for name, schema in schemas.items():
        try:
            file = FileDescriptorProto.FromString(base64.b64decode(schema.text, validate=True))
        except Exception as error:
            raise unusable(f"{name} is no file descriptor: {error}") from error
        file.name = name
        files[name] = file
    return files


def _compiled(schemas: Mapping[str, Schema]) -> dict[str, FileDescriptorProto]:
    """The same from .proto source, by protoc, which comes with grpcio-tools."""
    if find_spec("grpc_tools") is None:
        raise Misconfigured(
            "this schema registry gives Protobuf schemas as source, which must be compiled",
            hint="pip install grpcio-tools, or use a registry that knows ?format=serialized",
        )
    with TemporaryDirectory(prefix="hammerwork-protoc-") as folder:
        for name, schema in schemas.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise unusable(f"it imports {name!r}")
            path = Path(folder, "in", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(schema.text, encoding="utf-8")
        out = Path(folder, "out")
        command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={folder}/in"]
        try:
            done = subprocess.run(
                [*command, f"--descriptor_set_out={out}", MAIN, *(n for n in schemas if n != MAIN)],
                capture_output=True, text=True, timeout=COMPILE_WITHIN, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise unusable(f"protoc took longer than {COMPILE_WITHIN:g} s") from error
        if done.returncode:
            raise unusable(f"protoc: {done.stderr.strip()}")
        return {file.name: file for file in FileDescriptorSet.FromString(out.read_bytes()).file}


def _with_imports(files: Mapping[str, FileDescriptorProto]) -> list[FileDescriptorProto]:
    """The files and those that every registry takes for granted, each after what it imports."""
    ordered: dict[str, FileDescriptorProto] = {}

    def place(name: str, within: tuple[str, ...]) -> None:
        if name in ordered:
            return
        if name in within:
            raise unusable(f"it imports {name!r} in a circle")
        file = files[name] if name in files else _shipped(name)
        for imported in file.dependency:
            place(imported, (*within, name))
        ordered[name] = file

    for name in files:
        place(name, ())
    return list(ordered.values())


def _shipped(name: str) -> FileDescriptorProto:
    if name == "confluent/meta.proto":
        return FileDescriptorProto(name=name, package="confluent")  # nothing of it is in messages
    if name == "confluent/type/decimal.proto":
        return _confluent_decimal()
    if (found := _SHIPPED.fullmatch(name)) is not None:
        try:
            module = import_module(f"{found[1].replace('/', '.')}_pb2")
        except ImportError:
            pass
        else:
            return FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    raise unusable(f"it imports {name!r}, which is not among its references")


def _confluent_decimal() -> FileDescriptorProto:
    kinds = {
        "value": FieldDescriptorProto.TYPE_BYTES,
        "precision": FieldDescriptorProto.TYPE_UINT32,
        "scale": FieldDescriptorProto.TYPE_INT32,
    }
    fields = [
        FieldDescriptorProto(name=name, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
        for number, (name, kind) in enumerate(kinds.items(), start=1)
    ]
    return FileDescriptorProto(
        name="confluent/type/decimal.proto",
        package="confluent.type",
        syntax="proto3",
        message_type=[DescriptorProto(name="Decimal", field=fields)],
    )
