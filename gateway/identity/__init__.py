"""Authenticate: a `Credential` to a `Principal`. What keys look like, how they are kept, who they are."""
