"""What bridges, sinks and plugins have in common beneath them: options, logins, clients, schemas."""
