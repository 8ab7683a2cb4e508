"""Peers: the job queues that ours is measured beside, each with the fastest honest settings we know of.

Honest: every job durable before it counts as enqueued, and gone or marked before it counts as done.
"""

from __future__ import annotations

from .peer import NodeModules, Peer, Venv

PEERS = [
    Peer(
        name="PGQueuer",
        script="pgqueuer_peer.py",
        home=Venv(packages=("pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0")),
        jobs=50_000,
        settings=("100 connection", "500 connection", "1000 connection", "500 pool"),
    ),
    Peer(
        name="Graphile Worker",
        script="graphile_peer.mjs",
        home=NodeModules(package="graphile-worker", version="0.18.0"),
        jobs=50_000,
        settings=("24 500", "100 500"),
    ),
    Peer(
        name="Oban",
        script="oban_peer.py",
        home=Venv(packages=("oban==0.7.0", "uvloop==0.23.0"), python=(3, 12)),
        jobs=10_000,
        settings=("100", "500"),
    ),
    Peer(
        name="Procrastinate",
        script="procrastinate_peer.py",
        home=Venv(packages=("procrastinate==3.10.0", "psycopg-binary==3.3.9", "uvloop==0.23.0")),
        jobs=2_000,
        settings=("1 20 never", "1 20 successful", "4 20 successful"),
    ),
]
