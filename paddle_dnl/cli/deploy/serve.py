# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl serve`; its flags are the settings of the service."""

import argparse
import sys

from paddle_dnl import user_code
from paddle_dnl.optional import not_installed


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of the service from its settings.

    Raises:
        UsageError: the libraries of the service are not installed.
    """
    try:
        from paddle_dnl.serving import settings
    except ImportError as error:
        raise not_installed("serve", error, "serving") from error
    return settings.make_parser()


def main(argv=None) -> int:
    """Runs the service until a signal; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        from paddle_dnl.serving.settings import read_settings

        settings = read_settings(argv)
        from paddle_dnl.serving.main import serve
    except ImportError as error:
        raise not_installed("serve", error, "serving") from error
    user_code.import_for_export(settings.custom_imports)
    return serve(settings)


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.deploy.serve")
