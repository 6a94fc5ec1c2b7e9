"""Reading facts: those that a request depends on, and lists of them for people."""
