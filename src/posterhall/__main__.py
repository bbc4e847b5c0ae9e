"""`python -m posterhall` is the command `posterhall`."""

from posterhall.cli.main import main

if __name__ == "__main__":
    main()
