"""`python -m sqs2pg`: the command line."""

from sqs2pg.cli import main

if __name__ == "__main__":
    main()
