"""The running process: settings, composition, HTTP API, command line, logs, metrics, embedded servers."""
