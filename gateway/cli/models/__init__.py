"""`cachegate models`: who owns models, who may see them, and how they are shown."""
