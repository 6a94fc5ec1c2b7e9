"""`cachegate audit`: verify, follow and search the audit log."""
