"""`python -m gateway` runs the command `cachegate`, for environments where scripts are not on the path."""

from gateway.cli.entry import main

if __name__ == "__main__":
    main()
