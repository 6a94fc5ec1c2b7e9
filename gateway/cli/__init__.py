"""The command `cachegate`, one file a command. `main.py` gathers them and maps errors to exit statuses."""
