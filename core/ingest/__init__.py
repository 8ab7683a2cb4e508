"""The flow in: deliveries become jobs or dead letters, in one transaction, before the broker hears of it."""
