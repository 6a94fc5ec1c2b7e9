"""`cachegate keys`: API keys, and how they are shown."""
