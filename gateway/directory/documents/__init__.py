"""Tenant documents: TOML files of the policy folder, and the changes that they amount to."""
