"""`cachegate directory`: show which facts the server holds, and export and import all of them."""
