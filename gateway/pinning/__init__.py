"""Pins (I10): what each file holds, found out once, agreed on by all nodes, and kept true.

`measuring` hashes, one run for each blob however many ask; `pins` is what the guard asks of every file;
`ledger` is where nodes agree; `ahead` hashes what nobody has asked for yet.
"""
