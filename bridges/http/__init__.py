"""HTTP in: messages that are POSTed to the gateway, answered once they are stored for good."""

from .bridge import HttpBridge as HttpBridge
from .bridge import HttpOptions as HttpOptions
