"""`python -m klcli`."""

from klcli.cli.app import main

if __name__ == "__main__":
    main()
