"""Extract: bytes off the wire to a `Credential`. Syntax only; whether a key is true is for identity."""
