# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl launch`: Paddle's launcher for one or more machines, with its flags checked first."""

import argparse
import os
import sys
from pathlib import Path

from paddle_dnl.cli.programs import PROGRAMS
from paddle_dnl.distributed import launching
from paddle_dnl.errors import UsageError, nearest

# Passed to the launcher unchanged.
_PASSED = (
    ("--nproc_per_node", "N", "processes on each machine; default: one per GPU"),
    ("--devices", "0,1,...", "GPUs to use; default: all"),
    ("--log_dir", "DIR", "folder of the processes' logs; default ./log"),
    ("--job_id", "NAME", "name of the job, for an elastic one"),
    ("--max_restart", "N", "restarts of an elastic job; default 1000"),
    (
        "--elastic_level",
        "L",
        "of an elastic job: 1, the default, starts its processes again when a machine leaves or joins",
    ),
    ("--elastic_timeout", "SECONDS", "how long an elastic job waits for its largest number of machines; default 30"),
    ("--log_level", "LEVEL", "of the launcher"),
)
# Of an elastic job, in place of the launcher's own defaults, with which it ends when a machine leaves, or the third time.
_ELASTIC = {"elastic_level": "1", "max_restart": "1000"}
# In the launcher these variables override its flags.
_VARIABLES = {
    "PADDLE_NNODES": "nnodes",
    "PADDLE_MASTER": "master",
    "PADDLE_TRAINER_ID": "rank",
    "PADDLE_RANK": "rank",
    "POD_IP": "host",
}


def make_parser() -> argparse.ArgumentParser:
    """The flags of `paddle-dnl launch`, those of paddle.distributed.launch that concern training."""
    parser = argparse.ArgumentParser(
        description="Starts a program once per GPU on one or more machines, by paddle.distributed.launch.",
        allow_abbrev=False,
    )
    parser.add_argument("--nnodes", default="1", metavar="N", help="machines; SMALLEST:LARGEST for an elastic job")
    parser.add_argument("--master", metavar="HOST:PORT", help="of the machine with rank 0; or etcd://HOST:PORT")
    parser.add_argument("--rank", type=int, default=-1, help="number of this machine from 0; default: by arrival")
    parser.add_argument("--host", metavar="IP", help="address of this machine; default: the one that reaches --master")
    for flag, metavar, text in _PASSED:
        parser.add_argument(flag, metavar=metavar, help=text)
    # Refused with an explanation in `command`. After the program's name it is a flag of val.
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    parser.add_argument("program", help="train, val, predict, ... as `paddle-dnl` lists them, or a .py file")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="flags of the program")
    return parser


def command(argv: list[str] | None = None) -> list[str]:
    """The command of Paddle's launcher, after all checks.

    Raises:
        UsageError: flags that do not fit.
        DistributedError: the machines cannot meet.
    """
    args = make_parser().parse_args(argv)
    if args.backend is not None:
        raise UsageError(
            "--backend: selects Paddle's former launcher, which knows one machine only; leave it out. Without GPUs "
            "(CUDA_VISIBLE_DEVICES= hides them) processes use gloo"
        )
    for variable, name in _VARIABLES.items():
        if variable in os.environ:
            value = os.environ[variable]
            if name == "rank" and not value.lstrip("-").isdigit():
                raise UsageError(f"{variable}={value}: expected the number of this machine")
            setattr(args, name, int(value) if name == "rank" else value)
    nodes = launching.parse_nodes(args.nnodes, args.master, args.rank, args.host)
    if args.program in PROGRAMS:
        program = [sys.executable, "-u", "-m", "paddle_dnl", args.program]
    elif Path(args.program).is_file():
        program = [args.program]
    else:
        hint = nearest(args.program, PROGRAMS)
        raise UsageError(f"launch: {args.program} is no program of paddle-dnl and no file.{hint}")
    if (nodes.master or "").startswith(launching.ETCD):
        for name, value in _ELASTIC.items():
            if getattr(args, name) is None:
                setattr(args, name, value)
        started = [sys.executable, "-u", *program] if program[0].endswith(".py") else program
        program = [sys.executable, "-m", "paddle_dnl.distributed.elastic_rank", *started]
    nodes = launching.settle(nodes)
    words = ["--nnodes", args.nnodes, "--rank", str(nodes.rank)]
    for flag, value in (("--master", nodes.master), ("--host", nodes.host)):
        words += [flag, value] if value else []
    for flag, *_ in _PASSED:
        value = getattr(args, flag.removeprefix("--"))
        words += [flag, value] if value is not None else []
    return [sys.executable, "-m", "paddle.distributed.launch", *words, *program, *args.words]


def main(argv=None) -> int:
    """Replaces this process by the launcher; does not return."""
    words = command(argv)
    sys.stdout.flush()
    os.execve(words[0], words, _environment())


def _environment() -> dict[str, str]:
    """The environment at the start of this process, without the variables that are passed as flags."""
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
        found = dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)
    except OSError:
        found = dict(os.environ)
    if launching.PROTOBUF in os.environ:
        found[launching.PROTOBUF] = os.environ[launching.PROTOBUF]
    return {name: value for name, value in found.items() if name not in _VARIABLES}


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.launch")
