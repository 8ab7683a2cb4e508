"""The webhook receiver of compose.yaml: checks each signature, prints the event, answers 204.

It is a whole receiver: webhooks come at least once, so a real one also remembers the `webhook-id`s
that it has seen.
"""

from __future__ import annotations

import os

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError


def application(secret: str) -> web.Application:
    """POST /events takes webhooks signed with `secret` (Standard Webhooks), GET /health says ok."""
    webhook = Webhook(secret)

    async def take(request: web.Request) -> web.Response:
        body = await request.text()
        try:
            event = webhook.verify(body, dict(request.headers))
        except WebhookVerificationError as error:
            return web.Response(status=401, text=f"{error}\n")
        print(request.headers["webhook-id"], event["type"], event["data"], flush=True)
        return web.Response(status=204)

    async def health(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes([web.post("/events", take), web.get("/health", health)])
    return app


if __name__ == "__main__":
    web.run_app(application(os.environ["WEBHOOK_SECRET"]), host="0.0.0.0", port=8000)
