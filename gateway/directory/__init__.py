"""The directory: facts about tenants, keys, grants and models, stored in Redis as small records."""
