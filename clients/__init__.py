"""What bridges, sinks and plugins have in common beneath them: logins, clients of brokers, schemas."""
