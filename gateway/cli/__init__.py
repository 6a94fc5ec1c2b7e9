"""The command `cachegate`, one module or folder for each command. `main.py` maps errors to exit statuses."""
