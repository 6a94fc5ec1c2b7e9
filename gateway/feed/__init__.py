"""The feed of the audit log: who sees which records, in what form, and how readers wait for new ones.

    request ─selection─▶ what is asked for, and by whom ─reading─▶ page or stream ─view─▶ documents

The order of the records is that of the index (`audit/index`). Nothing here decides who may read: the guard
does. `faces/audit_events.py` has the routes.
"""
