"""Pins (I10): the SHA-256 of each blob, measured once, agreed on by all nodes, and verified ever since.

`measuring` hashes files, with one run for each blob however many callers wait; `checks` is called by the
guard for every file; `ledger` is where nodes agree; `ahead` hashes blobs before they are requested.
"""
