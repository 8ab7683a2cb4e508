"""Webhooks out: signed requests to one endpoint, its addresses checked, its answers judged."""

from .sink import WebhookOptions as WebhookOptions
from .sink import WebhookSink as WebhookSink
