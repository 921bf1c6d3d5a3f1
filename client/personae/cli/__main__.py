"""Entry point of the command `personae`: what goes wrong becomes one sentence on stderr and an exit code.

`outcomes.py` has the codes. Never a traceback for what a person can mend.
"""

import signal
import sys

from personae.cli import outcomes
from personae.errors import PersonaeError


def main() -> None:
    """Run the command line and exit."""
    try:
        from typer import TyperException

        from personae.cli import terminal
        from personae.cli.app import app
    except ModuleNotFoundError as missing:
        if missing.name not in ("rich", "typer"):
            raise
        print("The command line is not installed: pip install 'personae[cli]'", file=sys.stderr)
        sys.exit(1)
    # SIGTERM leaves by the way Ctrl-C does, so that whatever was started gets stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    as_json = outcomes.wants_json(sys.argv[1:])
    terminal.err.quiet = as_json
    try:
        # For people, typer explains wrong words and leaves by itself; for machines it hands both to us.
        code = app(prog_name="personae", standalone_mode=not as_json) or 0
        if code == outcomes.INTERRUPTED:
            raise outcomes.Interrupted("interrupted")
    except TyperException as error:
        code = outcomes.report_usage(error)
    except (PersonaeError, OSError, outcomes.Interrupted) as error:
        code = outcomes.report(error, as_json=as_json)
    except KeyboardInterrupt:
        code = outcomes.INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
