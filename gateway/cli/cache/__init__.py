"""`cachegate cache`: what is pinned, what is in quarantine, and what engines would still load."""
