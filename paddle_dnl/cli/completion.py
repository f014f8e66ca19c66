# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl completion`, and the shell completion itself, with argcomplete."""

import argparse
import importlib
import os

from paddle_dnl.cli.programs import PROGRAMS, split_command
from paddle_dnl.optional import not_installed


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of `paddle-dnl completion`."""
    parser = argparse.ArgumentParser(
        description="Prints code that completes programs, flags, configuration names and files; in ~/.bashrc: "
        'eval "$(paddle-dnl completion bash)"'
    )
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh", "fish", "powershell"), help="shell to print code for")
    return parser


def main(argv=None) -> int:
    """Prints the code; returns the exit status."""
    args = make_parser().parse_args(argv)
    try:
        import argcomplete
    except ImportError as error:
        raise not_installed("completion", error, "completion") from error
    print(argcomplete.shellcode(["paddle-dnl"], shell=args.shell))
    return 0


def complete() -> None:
    """Prints the completions for `COMP_LINE` and exits."""
    import argcomplete

    # A parser of the whole command, but only with the flags of the program in `COMP_LINE`.
    named, _ = split_command(os.environ.get("COMP_LINE", "").split()[1:])
    root = argparse.ArgumentParser(prog="paddle-dnl")
    root.add_argument("--version", action="version", version="")
    levels = {"": root.add_subparsers()}
    for name, program in PROGRAMS.items():
        *group, last = name.split(" ")
        for word in group:
            if word not in levels:
                levels[word] = levels[""].add_parser(word, help=f"programs about {word}").add_subparsers()
        parents = [importlib.import_module(program.module).make_parser()] if name == named else []
        levels[" ".join(group)].add_parser(last, help=program.summary, parents=parents, add_help=False)
    argcomplete.autocomplete(root)


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.completion")
