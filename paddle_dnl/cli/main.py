# SPDX-License-Identifier: Apache-2.0
"""`paddle-dnl PROGRAM ...`, the console command; also `python -m paddle_dnl`."""

import os
import sys

import paddle_dnl
from paddle_dnl.cli._run import run, write_out
from paddle_dnl.cli.programs import PROGRAMS, split_command

COMMAND = "paddle-dnl"


def main(argv: list[str] | None = None) -> None:
    """Runs the program that `argv` names and exits with its status."""
    words = sys.argv[1:] if argv is None else argv
    if "_ARGCOMPLETE" in os.environ:
        from paddle_dnl.cli.completion import complete

        complete()
    name, rest = split_command(words)
    if name is not None:
        # argparse and the log use this as the program's name.
        sys.argv = [f"{COMMAND} {name}", *rest]
        run(PROGRAMS[name].module)
    if words[:1] in (["--version"], ["-V"]):
        write_out(f"{COMMAND} {paddle_dnl.__version__}\n")
        sys.exit(0)
    rest = [word for word in words if word not in ("-h", "--help", "help")]
    is_group = len(rest) == 1 and any(name.startswith(f"{rest[0]} ") for name in PROGRAMS)
    if not rest or is_group:
        # Requested help goes to stdout with status 0, help after an incomplete command to stderr with status 2.
        asked = len(rest) < len(words)
        group = "".join(rest)  # for example `data`; empty: all programs
        chosen = {name: program for name, program in PROGRAMS.items() if name.startswith(f"{group} ".lstrip())}
        width = max(map(len, chosen))
        lines = [f"usage: {COMMAND} {group}".rstrip() + " PROGRAM [flags]", "", "programs:"]
        lines += [f"  {name:{width}}  {program.summary}" for name, program in chosen.items()]
        text = "\n".join([*lines, "", f"`{COMMAND} PROGRAM --help` shows its flags."])
        if asked:
            write_out(f"{text}\n")
            sys.exit(0)
        print(text, file=sys.stderr)
        sys.exit(2)
    from paddle_dnl.errors import nearest

    group = rest[0] if any(name.startswith(f"{rest[0]} ") for name in PROGRAMS) else ""
    given = " ".join(rest[:2] if group else rest[:1])
    text = f"Error: {COMMAND}: no program {given!r}.{nearest(given, PROGRAMS)} `{COMMAND} {group}".rstrip()
    print(f"{text} --help` lists them", file=sys.stderr)
    sys.exit(2)
