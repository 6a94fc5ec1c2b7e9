"""`cachegate directory`: the facts as a whole: which they are, and how they get out and in."""
