# SPDX-License-Identifier: Apache-2.0
"""How much of PaddleSeg works here: every configuration of a checkout through load and build, and tiny runs of every model.

    python tools/compat_report.py --paddleseg ../PaddleSeg                  load and build all of its configurations
    python tools/compat_report.py --paddleseg ../PaddleSeg --chain          train, val, export, infer, one run per model
    python tools/compat_report.py --paddleseg ../PaddleSeg --json all.json  also all results, to be merged with --merge

Each step runs in a process of its own with a time limit. Where ours fails, PaddleSeg's own code builds the same file, so that
the table tells files that nobody can build from faults of this project. The tables go to stdout as Markdown, as in
docs/compatibility.md. The exit status is 1 where a file that PaddleSeg builds is not built here.
"""

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import paddle_dnl  # noqa: E402,F401,I001  first: it loads zlib before paddle

import compat_stages as stages  # noqa: E402
from paddle_dnl.cli._run import run  # noqa: E402
from paddle_dnl.files.atomic import write_text  # noqa: E402


def parse_args(argv=None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--paddleseg", type=Path, help="checkout; its package is imported in place of an installed one")
    add("--configs", type=Path, help="folder of configurations; default: that of the checkout")
    add("--only", default="", help="files whose path contains this text")
    add("--chain", action="store_true", help="also train, val, export and infer, for one file per model")
    add("--size", type=int, nargs=2, default=[128, 128], metavar=("W", "H"), help="pictures of the chain")
    add("--seconds", type=float, default=120, help="limit of each step")
    add("--json", type=Path, help="write the results here")
    add("--name", help="of the release in the table; default: name of the checkout's folder")
    args = parser.parse_args(argv)
    if args.paddleseg is None and args.configs is None:
        parser.error("give --paddleseg, a checkout, or --configs, a folder")
    return args


def _config_files(folder: Path, only: str) -> list[Path]:
    files = sorted(path for path in folder.rglob("*.yml") if "_base_" not in path.relative_to(folder).parts)
    return [path for path in files if only in str(path.relative_to(folder))]


def load_and_build(path: Path, seconds: float) -> dict:
    """Both steps of one file, and what PaddleSeg does where one fails."""
    found = {"load": stages.in_child(lambda: stages.load(path), seconds), "build": None, "theirs": None}
    if not found["load"]:
        found["build"] = stages.in_child(lambda: stages.build(path), seconds)
    if found["load"] or found["build"]:
        found["theirs"] = stages.in_child(lambda: stages.build_theirs(path), seconds)
    return found


def _model_of(path: Path) -> tuple[str, str] | None:
    """Name and backbone, or None for a file that does not load."""
    try:
        model = stages.load(path).model_cfg
    except Exception:
        return None
    backbone = model.get("backbone")
    return model["type"], backbone["type"] if isinstance(backbone, dict) else ""


def representatives(files: list[Path]) -> dict[str, Path]:
    """One file per model, the one whose backbone has the shortest name: small ones are called so."""
    chosen: dict[str, tuple] = {}
    for path in files:
        found = _model_of(path)
        if found is not None:
            rank = (_weight(found[1]), str(path))
            if found[0] not in chosen or rank < chosen[found[0]][0]:
                chosen[found[0]] = (rank, path)
    return {name: path for name, (_, path) in sorted(chosen.items())}


def _weight(backbone: str) -> int:
    """Small backbones first."""
    sizes = {"18": 0, "tiny": 0, "_t": 0, "B0": 0, "small": 1, "34": 1, "50": 2, "base": 3, "101": 4, "large": 5}
    return next((rank for mark, rank in sizes.items() if mark in backbone), 2)


def chain(path: Path, size: tuple[int, int], seconds: float) -> dict:
    """Result of each program, in order; None for those that an earlier failure leaves out."""
    found: dict[str, str | None] = dict.fromkeys([*stages.CHAIN, "theirs"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            config = stages.tiny_config(path, folder, size)
        except Exception as error:
            return {**found, "train": f"{type(error).__name__}: {error}"}
        for step, work in stages.CHAIN.items():
            found[step] = stages.in_child(lambda work=work: work(config, folder, size), seconds)
            if found[step]:
                theirs = stages.THEIRS.get(step)
                if theirs is not None:
                    found["theirs"] = stages.in_child(lambda theirs=theirs: theirs(config, folder, size), seconds)
                if step in ("train", "export"):
                    break
    return found


def _import_all(paddleseg: Path | None) -> None:
    """Everything that the children need."""
    if paddleseg is not None:
        sys.path.insert(0, str(paddleseg.resolve()))
    from paddle_dnl import registry

    import paddle

    for module in ("cli.train", "cli.val", "cli.export", "cli.infer", "training.trainer", "deployment.export.exporter"):
        importlib.import_module(f"paddle_dnl.{module}")
    registry.load_components()
    for kind in registry.REGISTRIES:
        registry.names(kind)
    paddle.set_device("cpu")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines)


def describe(results: dict) -> str:
    """The Markdown of one release."""
    builds = results["build"]
    good = [f for f, r in builds.items() if not r["load"] and not r["build"]]
    bad = {f: r for f, r in builds.items() if f not in good}
    nobody = {f: r for f, r in bad.items() if r["theirs"]}
    text = f"{results['name']}: {len(good)} of {len(builds)} configurations load and build; "
    text += f"of the other {len(bad)}, {len(nobody)} PaddleSeg itself cannot build.\n\n"
    rows = [[f, r["load"] or r["build"], r["theirs"] or "builds"] for f, r in bad.items()]
    if rows:
        text += _table(["configuration", "here", "PaddleSeg itself"], rows) + "\n\n"
    if results["chain"]:
        steps = list(stages.CHAIN)
        counts = {s: sum(r[s] == "" for r in results["chain"].values()) for s in steps}
        text += f"Chains of {len(results['chain'])} models: {', '.join(f'{s} {n}' for s, n in counts.items())}.\n\n"
        rows = []
        for model, result in results["chain"].items():
            reason = next((result[s] for s in steps if result[s]), "")
            theirs = {None: "", "": "runs"}.get(result["theirs"], result["theirs"])
            rows.append([model, *({"": "yes", None: "-"}.get(result[s], "no") for s in steps), reason, theirs])
        text += _table(["model", *steps, "reason", "PaddleSeg itself"], rows) + "\n"
    return text


def main(argv=None) -> int:
    """Runs everything; the exit status tells whether all is built that PaddleSeg builds."""
    args = parse_args(argv)
    folder = args.configs or args.paddleseg / "configs"
    files = _config_files(folder, args.only)
    if not files:
        print(f"{folder}: no configurations ({args.only!r})", file=sys.stderr)
        return 2
    _import_all(args.paddleseg)
    name = args.name or (args.paddleseg or folder).resolve().name
    results: dict = {"name": name, "build": {}, "chain": {}}
    for i, path in enumerate(files):
        key = str(path.relative_to(folder))
        results["build"][key] = found = load_and_build(path, args.seconds)
        print(f"[{i + 1}/{len(files)}] {key}: {found['load'] or found['build'] or 'ok'}", file=sys.stderr, flush=True)
    if args.chain:
        built = [p for p in files if results["build"][str(p.relative_to(folder))]["build"] == ""]
        for model, path in representatives(built).items():
            results["chain"][model] = found = chain(path, tuple(args.size), args.seconds)
            print(f"{model} ({path.name}): {found}", file=sys.stderr, flush=True)
    if args.json:
        write_text(args.json, json.dumps(results, indent=1) + "\n")
    print(describe(results))
    return int(any((r["load"] or r["build"]) and not r["theirs"] for r in results["build"].values()))


if __name__ == "__main__":
    run("compat_report")
