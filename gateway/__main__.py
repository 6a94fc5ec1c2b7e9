"""`python -m gateway` is the command `cachegate`, for where scripts are not on the path."""

from gateway.cli.main import main

if __name__ == "__main__":
    main()
