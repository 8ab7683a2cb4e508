"""Settings: everything an operator may set, by HAMMERWORK_* variables or one TOML file, checked at once.

A variable goes before the file. `http.port` is `HAMMERWORK_HTTP__PORT`, or `port` under `[http]`; lists in
variables are words between commas or JSON, tables are JSON. Durations are `250ms`, `30s`, `5m`, `2h`, `7d`,
or seconds; sizes are `64KiB`, `8MiB`, or bytes. Every secret `x` may be given as `x_file`, the path of a file
that holds it (`HAMMERWORK_HTTP__TOKEN_FILE=/run/secrets/token`); a list of secrets has one a line.

What there is to set: `process`, `bridges`, `sinks`, and the options of each type beside its class.
How it is read: `loading` has `variables` and the file in one `tree`, and `fitting` makes the models of it.
How it is described: `described`, in `words`, written by `env_file` and `json_schema`.
"""

from .everything import Settings as Settings
from .loading import load as load
