"""How the clients of brokers are made that bridges and sinks have in common: addresses, TLS, logins."""
