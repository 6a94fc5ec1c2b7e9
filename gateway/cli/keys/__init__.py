"""`cachegate keys`: create, show, revoke and rotate API keys."""
