"""What an operator sets: `settings` is every setting, `values` reads their text, `sources` finds it."""
