"""`python -m chainrule.client` is the command line."""

from chainrule.client.cli import main

if __name__ == "__main__":
    main()
