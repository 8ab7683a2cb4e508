"""The catalog: built-in types are found by name, plugins by entry point, and faults say what to do."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
from pydantic import BaseModel

from hammerwork.bridges.rabbitmq import RabbitmqBridge, RabbitmqOptions
from hammerwork.core.errors import Misconfigured, MissingExtra
from hammerwork.core.message import Bridge
from hammerwork.gateway import catalog
from hammerwork.gateway.catalog import BuiltIn, Catalog, Plugins


class PluginOptions(BaseModel):
    url: str


class PluginBridge:
    Options = PluginOptions

    def __init__(self, name: str, options: PluginOptions) -> None:
        self.name, self.options = name, options


class NoOptions:
    pass


def installed(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> Catalog[Bridge]:
    """A catalog with no built-in types, and these (name, object) as entry points."""
    group = "hammerwork.test"
    found = tuple(EntryPoint(name, f"{__name__}:{what}", group) for name, what in points)
    monkeypatch.setattr(catalog, "_installed", lambda _group: found)
    # Under --import-mode=importlib this module has no importable name.
    monkeypatch.setattr(EntryPoint, "load", lambda point: globals()[point.attr])
    return Catalog("bridge", group, {})


def test_a_built_in_type_is_found_with_its_options() -> None:
    kind = catalog.bridges.find("rabbitmq")
    assert kind.options is RabbitmqOptions
    bridge = kind.build("orders", RabbitmqOptions.model_validate({"url": "amqp://h/", "queue": "q"}))
    assert isinstance(bridge, RabbitmqBridge)


def test_every_built_in_type_can_be_imported() -> None:
    for kinds in (catalog.bridges, catalog.sinks):
        for name in kinds.names():
            assert issubclass(kinds.find(name).options, BaseModel)


def test_an_unknown_type_is_refused_with_the_nearest_match() -> None:
    with pytest.raises(Misconfigured, match="no bridge type 'rabitmq'") as refused:
        catalog.bridges.find("rabitmq")
    assert refused.value.hint == "did you mean 'rabbitmq'?"


def test_a_type_like_no_other_is_refused_with_what_there_is() -> None:
    with pytest.raises(Misconfigured) as refused:
        catalog.bridges.find("zzz")
    known = ", ".join(catalog.bridges.names())
    assert refused.value.hint == f"there are {known}; or name package.module:name"


def test_a_type_whose_client_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: Catalog[Bridge] = Catalog(
        "bridge", "none", {"nats": BuiltIn("no_such_client_library", "A", "B", extra="nats")}
    )
    with pytest.raises(MissingExtra, match="needs the extra `nats`") as refused:
        kinds.find("nats")
    assert refused.value.hint == "pip install 'hammerwork[nats]'"


def test_a_plugin_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = installed(monkeypatch, ("mqtt", "PluginBridge"))
    kind = kinds.find("mqtt")
    assert kinds.names() == ["mqtt"]
    assert kind.build("lamps", kind.options(url="mqtt://h")).name == "lamps"


def test_a_plugin_without_options_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misconfigured, match="a class with a pydantic model `Options` is expected"):
        installed(monkeypatch, ("mqtt", "NoOptions")).find("mqtt")


def test_a_plugin_that_cannot_be_imported_is_refused_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misconfigured, match=r"cannot be imported \(KeyError: 'Gone'\)"):
        installed(monkeypatch, ("mqtt", "Gone")).find("mqtt")


def test_two_plugins_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misconfigured, match="offered by several packages"):
        installed(monkeypatch, ("mqtt", "PluginBridge"), ("mqtt", "NoOptions")).find("mqtt")


def test_a_built_in_type_cannot_be_replaced_by_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, ("rabbitmq", "PluginBridge"))
    assert catalog.bridges.find("rabbitmq").options is RabbitmqOptions


# --- by place, and of the other sorts ------------------------------------------------------------


def test_a_type_may_be_named_by_its_place() -> None:
    kind = catalog.bridges.find("hammerwork.bridges.rabbitmq:RabbitmqBridge")
    assert kind.options is RabbitmqOptions
    assert catalog.bridges.source(kind.name).place == kind.name


def test_a_place_that_holds_no_type_is_refused() -> None:
    with pytest.raises(Misconfigured, match="is no bridge: a class with a pydantic model `Options`"):
        catalog.bridges.find("hammerwork.core.message:Message")


def to_job(message: object, body: object) -> object:
    return body


def test_a_transform_and_handlers_of_a_plugin_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, ("celery", "to_job"))
    assert Plugins("transform", "hammerwork.test").find("celery") is to_job
    assert Plugins("transform", "hammerwork.test").names() == ["celery"]


def test_a_transform_that_nobody_offers_is_refused_with_what_may_be_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch)
    with pytest.raises(Misconfigured, match="there is no transform 'celery'") as refused:
        Plugins("transform", "hammerwork.test").find("celery")
    assert refused.value.hint == "no installed package offers any; or name package.module:name"


def test_a_plugin_whose_extra_is_missing_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("nats", "hammerwork.no_such_room:NatsBridge [nats]", "hammerwork.test")
    monkeypatch.setattr(catalog, "_installed", lambda _group: (point,))

    def load(_point: EntryPoint) -> object:
        raise ModuleNotFoundError("No module named 'nats'", name="nats")

    monkeypatch.setattr(EntryPoint, "load", load)
    with pytest.raises(MissingExtra, match="needs the extra `nats`") as refused:
        Catalog("bridge", "hammerwork.test", {}).find("nats")
    assert refused.value.hint == "pip install 'hammerwork[nats]'"
