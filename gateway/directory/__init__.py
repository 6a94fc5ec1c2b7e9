"""The directory: what is known about tenants, keys, grants and models, kept in Redis as small records."""
