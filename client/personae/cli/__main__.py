"""Entry point of the command `personae`: what goes wrong becomes one sentence on stderr and an exit code.

0 done, 1 it failed, 2 it was asked for in a wrong way, 130 interrupted. Never a traceback for what a person can mend.
"""

import signal
import sys

from personae.errors import InvalidRequest, PersonaeError, Unavailable


def main() -> None:
    """Run the command line and exit."""
    try:
        from personae.cli.app import app
    except ModuleNotFoundError as missing:
        if missing.name not in ("rich", "typer"):
            raise
        print("The command line is not installed: pip install 'personae[cli]'", file=sys.stderr)
        sys.exit(1)
    # SIGTERM leaves by the way Ctrl-C does, so that whatever was started gets stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(prog_name="personae")
    except InvalidRequest as error:
        _say(error)
        sys.exit(2)
    except Unavailable as error:
        _say(f"{error}\nIs the server running, and where --trainer or --inference say? `personae up` starts one here.")
        sys.exit(1)
    except (PersonaeError, OSError) as error:
        _say(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _say(error: Exception | str) -> None:
    print(f"Error: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
