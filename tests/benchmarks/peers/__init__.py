"""Peers: the job queues that ours is measured beside, each with the fastest honest settings we know of.

Honest: every job durable before it counts as enqueued, and gone or marked before it counts as done.
"""

from __future__ import annotations

from .peer import Peer, Venv

PEERS = [
    Peer(
        name="PGQueuer",
        script="pgqueuer_peer.py",
        home=Venv(packages=("pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0")),
        jobs=50_000,
        settings=("100 connection", "500 connection", "1000 connection", "500 pool"),
    ),
]
