"""How commands speak: tables, colours and progress for people, JSON for scripts, nothing that misleads."""
