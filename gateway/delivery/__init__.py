"""Deliver: a Receipt in, bytes out. Nothing here takes anything but a Receipt (I5)."""
