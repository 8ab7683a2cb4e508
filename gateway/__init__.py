"""The running process: settings, composition, HTTP API, command line, telemetry, embedded servers."""
