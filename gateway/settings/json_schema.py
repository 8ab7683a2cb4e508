"""The JSON Schema of the settings file and of the options of one type, made of the models that check them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from ...core.job import Json
from .described import plain_tables
from .everything import LONGEST_NAME, NAME, NAMED, OPTIONS
from .shape import shape_of
from .spelling import as_json
from .words import docs_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = "#/$defs/{model}"
DURATION = {
    "anyOf": [
        {"type": "number"},
        {"type": "string", "pattern": r"^\s*(\d+(\.\d+)?|(\d+(\.\d+)?(ms|[smhdwSMHDW]))+)\s*$"},
    ],
    "description": "Seconds, or text such as 250ms, 30s, 5m, 2h, 7d, 1w.",
}
Made = dict[str, Any]


def file_schema() -> dict[str, Json]:
    """The whole file, with the options of every type of bridge and sink that is installed."""
    sections = plain_tables()
    plugged = {
        section: (common, {kind.name: kind.options for kind in kinds.usable()})
        for section, (common, kinds) in NAMED.items()
    }
    models = set(sections.values())
    for common, options in plugged.values():
        models |= {common, *options.values()}
    wanted: list[tuple[type[BaseModel], Literal["validation"]]] = [(model, "validation") for model in models]
    wanted.sort(key=str)
    references, made = models_json_schema(wanted, schema_generator=SettingsSchema, ref_template=REFERENCE)
    defined: Made = made["$defs"]
    name_of = {model: found["$ref"].rpartition("/")[2] for (model, _), found in references.items()}
    properties = {key: {"$ref": f"#/$defs/{name_of[model]}"} for key, model in sections.items()}
    for section, (common, options) in plugged.items():
        shared = defined.pop(name_of[common])
        for kind, model in options.items():
            defined[f"{section}.{kind}"] = _of_kind(kind, shared, defined[name_of[model]])
        properties[section] = _named_tables(section, list(options))
    for _, options in plugged.values():
        for model in options.values():
            defined.pop(name_of[model], None)
    return {
        "$schema": DIALECT,
        "title": "Settings of Hammerwork",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": defined,
    }


def options_schema(model: type[BaseModel]) -> dict[str, Json]:
    """The options of one type of bridge or sink."""
    made = model.model_json_schema(schema_generator=SettingsSchema, ref_template=REFERENCE)
    return {"$schema": DIALECT, **made}


class SettingsSchema(GenerateJsonSchema):
    """Durations are spelled as in our files, docstrings explain, and every secret `x` may be `x_file`."""

    def timedelta_schema(self, schema: Any) -> Made:
        return dict(DURATION)

    def model_schema(self, schema: Any) -> Made:
        made = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        made.pop("title", None)
        made["additionalProperties"] = False
        words = docs_of(model)
        for key, found in model.model_fields.items():
            name = found.alias or key
            if (property := made.get("properties", {}).get(name)) is None:
                continue
            _explain(property, words.get(key), found.default)
            if shape_of(found.annotation).secret:
                _or_its_file(made, name)
        return made


def _explain(property: Made, words: str | None, default: object) -> None:
    property.pop("title", None)
    if words:
        property["description"] = words
    if default is None or isinstance(default, BaseModel):
        property.pop("default", None)
    elif "default" in property:
        property["default"] = as_json(default)


def _or_its_file(made: Made, name: str) -> None:
    """The secret may be in a file."""
    file = f"{name}_file"
    made["properties"].setdefault(file, {"type": "string", "description": f"The file that holds `{name}`."})
    if name in made.get("required", ()):
        made["required"] = [other for other in made["required"] if other != name]
        made.setdefault("allOf", []).append({"anyOf": [{"required": [name]}, {"required": [file]}]})


def _of_kind(kind: str, shared: Made, own: Made) -> Made:
    """The table of a bridge or sink of one type: what all have, and its own options."""
    common = {key: value for key, value in shared["properties"].items() if key != OPTIONS}
    required = {*shared.get("required", ()), *own.get("required", ())} - {OPTIONS}
    alternatives = [*shared.get("allOf", ()), *own.get("allOf", ())]
    return {
        "type": "object",
        "description": own.get("description", ""),
        "additionalProperties": False,
        "properties": own.get("properties", {}) | common | {"type": {"const": kind}},
        "required": sorted(required),
    } | ({"allOf": alternatives} if alternatives else {})


def _named_tables(section: str, kinds: list[str]) -> Made:
    """Bridges or sinks by name; the type of each says which options it may have. A type that is named by its
    place, package.module:name, may have any."""
    chosen = [
        {
            "if": {"properties": {"type": {"const": kind}}, "required": ["type"]},
            "then": {"$ref": f"#/$defs/{section}.{kind}"},
        }
        for kind in kinds
    ]
    member = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": kinds}},
        "allOf": chosen,
    }
    names = {"pattern": f"^({NAME.pattern})$", "maxLength": LONGEST_NAME}
    return {"type": "object", "propertyNames": names, "additionalProperties": member}
