"""Output of commands: tables and progress for people, JSON for scripts; control characters are escaped."""
