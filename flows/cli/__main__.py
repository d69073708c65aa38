"""`python -m flows.cli` is `mammoflow`."""

from flows.cli.app import app

if __name__ == "__main__":
    app()
