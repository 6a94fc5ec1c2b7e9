"""Off-boarding: a tenant is removed in bounded steps, and can be restored from a journal for a while."""
