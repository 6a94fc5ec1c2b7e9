"""Adapters to Redis, Valkey, HTTP, files and clocks, behind the Protocols of `gateway.model.ports`."""
