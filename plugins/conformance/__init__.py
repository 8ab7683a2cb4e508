"""The conformance kit: tests that the author of a bridge or sink runs on it, with pytest on a real server."""

from ...core.errors import MissingExtra

try:
    import pytest
    import pytest_asyncio
except ModuleNotFoundError as error:
    raise MissingExtra("the conformance kit", "conformance") from error

ASSERTING = (
    "bridge", "crash", "fidelity", "ingest", "log_sink", "log_sink_trial", "settings", "sink", "sink_trial",
    "trial",
)  # fmt: skip
pytest.register_assert_rewrite(*(f"{__name__}.{room}" for room in ASSERTING))

from .bridge import BridgeContract as BridgeContract  # noqa: E402 - after the register above
from .harness import BridgeHarness as BridgeHarness  # noqa: E402
from .harness import Received as Received  # noqa: E402
from .harness import SinkHarness as SinkHarness  # noqa: E402
from .log_sink import LogSinkContract as LogSinkContract  # noqa: E402
from .sink import SinkContract as SinkContract  # noqa: E402

del pytest_asyncio
