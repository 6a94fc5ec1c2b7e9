"""`cachegate models`: edit and show who owns models and who may see them."""
