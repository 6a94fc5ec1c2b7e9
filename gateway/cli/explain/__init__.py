"""`cachegate explain`: why a key may have a resource or not, and why a recorded request ended as it did."""
