"""``aigw`` and ``python -m gateway``."""

from __future__ import annotations

from gateway.cli.app import run


def main() -> None:
    """Run the command line; exits with the code of the verb."""
    run()


if __name__ == "__main__":
    main()
