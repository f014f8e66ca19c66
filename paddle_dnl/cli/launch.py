# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl launch`: checks the flags of Paddle's launcher, then runs it."""

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
    ("--log_dir", "DIR", "folder of the processes' logs; default: ./log"),
    ("--job_id", "NAME", "name of an elastic job"),
    ("--max_restart", "N", "maximum number of restarts of an elastic job; default: 1000"),
    (
        "--elastic_level",
        "L",
        "level of an elastic job; default: 1, which restarts its processes when a machine leaves or joins",
    ),
    ("--elastic_timeout", "SECONDS", "time that an elastic job waits for its maximum number of machines; default: 30"),
    ("--log_level", "LEVEL", "log level of the launcher"),
)
# Defaults of elastic jobs. With the launcher's defaults a job ends when a machine leaves, or at the third restart.
_ELASTIC = {"elastic_level": "1", "max_restart": "1000"}
# Environment variables that override flags of the launcher.
_VARIABLES = {
    "PADDLE_NNODES": "nnodes",
    "PADDLE_MASTER": "master",
    "PADDLE_TRAINER_ID": "rank",
    "PADDLE_RANK": "rank",
    "POD_IP": "host",
}


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of `paddle-dnl launch`: the flags of paddle.distributed.launch that concern training."""
    parser = argparse.ArgumentParser(
        description="Starts a program once per GPU on one or more machines with paddle.distributed.launch.",
        allow_abbrev=False,
    )
    parser.add_argument("--nnodes", default="1", metavar="N", help="number of machines; MIN:MAX for an elastic job")
    parser.add_argument("--master", metavar="HOST:PORT", help="address of the machine with rank 0, or etcd://HOST:PORT")
    parser.add_argument(
        "--rank", type=int, default=-1, help="rank of this machine, from 0; default: by order of arrival"
    )
    parser.add_argument("--host", metavar="IP", help="address of this machine; default: that of the route to --master")
    for flag, metavar, text in _PASSED:
        parser.add_argument(flag, metavar=metavar, help=text)
    # `command` refuses it with an explanation. After the program's name it is a flag of that program.
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    parser.add_argument("program", help="train, val, predict, ... (`paddle-dnl --help` lists them), or a .py file")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="flags of the program")
    return parser


def command(argv: list[str] | None = None) -> list[str]:
    """Returns the command of Paddle's launcher after all checks.

    Raises:
        UsageError: invalid flags.
        DistributedError: the machines cannot connect.
    """
    args = make_parser().parse_args(argv)
    if args.backend is not None:
        raise UsageError(
            "--backend: selects Paddle's former launcher, which supports only one machine; remove it. Without GPUs "
            "(CUDA_VISIBLE_DEVICES= hides them) processes use gloo"
        )
    for variable, name in _VARIABLES.items():
        if variable in os.environ:
            value = os.environ[variable]
            if name == "rank" and not value.lstrip("-").isdigit():
                raise UsageError(f"{variable}={value}: expected the rank of this machine, a number")
            setattr(args, name, int(value) if name == "rank" else value)
    nodes = launching.parse_nodes(args.nnodes, args.master, args.rank, args.host)
    if args.program in PROGRAMS:
        program = [sys.executable, "-u", "-m", "paddle_dnl", args.program]
    elif Path(args.program).is_file():
        program = [args.program]
    else:
        hint = nearest(args.program, PROGRAMS)
        raise UsageError(f"launch: {args.program} is neither a program of paddle-dnl nor a file.{hint}")
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
    """Replaces this process with the launcher; does not return."""
    words = command(argv)
    sys.stdout.flush()
    os.execve(words[0], words, _environment())


def _environment() -> dict[str, str]:
    """Returns the environment at the start of this process, without the variables that are passed as flags."""
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
