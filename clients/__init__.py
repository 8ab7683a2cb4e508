"""What bridges, sinks and plugins have in common beneath them: options, signatures, logins, schemas."""
