"""Extract the `Credential` from a request. Syntax only; `identity/` decides whether a key is valid."""
