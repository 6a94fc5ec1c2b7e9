"""What operators do with the content of the cache: list, survey, verify, and remove stale resolutions."""
