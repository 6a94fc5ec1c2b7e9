"""What touches the outside, behind the Protocols of `gateway.model.ports`."""
