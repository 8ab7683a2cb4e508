"""The REST API: one table of operations, from which routes, permissions and the OpenAPI document come."""
