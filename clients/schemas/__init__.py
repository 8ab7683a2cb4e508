"""Bodies that need a schema: Avro, Protobuf and JSON Schema, by a file or a schema registry."""
