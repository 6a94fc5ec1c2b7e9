"""Edits: the changes that operators and workers make to the facts, each with its preconditions.

An edit is an `async def` over `Changes`, run by `changes.change` in one transaction, so that its
preconditions still hold when it is committed. It raises `Conflict` with a sentence that says what prevents it
and what to do; otherwise it returns an `Effect`. Repeating an edit is allowed and reports that nothing
changed.

Facts of the policy folder cannot be edited by commands unless `force` is given: the next `policy apply` would
undo the edit, or refuse to run because of it. Suspending a tenant is the exception, because it is needed in
an incident.

Non-goals: parsing an operator's input, reading the clock, making keys, and the audit log.
"""
