"""Authenticate a caller: the format and storage of API keys, and from a `Credential` to a `Principal`."""
