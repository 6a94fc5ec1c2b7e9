"""How commands speak: tables, colours and progress for people, JSON for scripts, escaped text from outside."""
