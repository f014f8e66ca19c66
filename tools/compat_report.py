# SPDX-License-Identifier: Apache-2.0
"""How much of PaddleSeg works here: every configuration of a checkout through load and build, and tiny runs of every model.

    python tools/compat_report.py --paddleseg ../PaddleSeg                  load and build all of its configurations
    python tools/compat_report.py --paddleseg ../PaddleSeg --chain          train, val, export, infer, one run per model
    python tools/compat_report.py --paddleseg ../PaddleSeg --json 2.8.json  also all results
    python tools/compat_report.py --tables 2.7.json 2.8.json                the tables of several releases, oldest first

Each step runs in a process of its own with a time limit. Where ours fails, PaddleSeg's own code builds the same file, so that
the table tells files that nobody can build from faults of this project. A model is run with the configuration of its
smallest backbone; where neither this project nor PaddleSeg can train that, with the next one. The tables go to stdout as
Markdown, as in docs/compatibility.md. The exit status is 1 where a file that PaddleSeg builds is not built here.
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
    add("--tables", type=Path, nargs="+", metavar="JSON", help="print the tables of stored results, run nothing")
    args = parser.parse_args(argv)
    if args.paddleseg is None and args.configs is None and not args.tables:
        parser.error("give --paddleseg, a checkout, or --configs, a folder, or --tables, stored results")
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


def candidates(files: list[Path]) -> dict[str, list[Path]]:
    """The files of each model, those first whose backbone has the mark of a small one."""
    found: dict[str, list[tuple]] = {}
    for path in files:
        model = _model_of(path)
        if model is not None:
            found.setdefault(model[0], []).append((_weight(model[1]), str(path), path))
    return {name: [path for *_, path in sorted(ranked)] for name, ranked in sorted(found.items())}


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


def chain_of_model(files: list[Path], size: tuple[int, int], seconds: float) -> dict:
    """The chain of a model's first file, or of the next where neither this project nor PaddleSeg can train the first."""
    for path in files[:2]:
        found = {"file": path.name, **chain(path, size, seconds)}
        if not found["train"] or not found["theirs"] or found["theirs"] == stages.late(seconds):
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


def describe(releases: list[dict]) -> str:
    """The Markdown of the results of some releases, oldest first."""
    rows, failing = [], {}
    for results in releases:
        bad = {f: r for f, r in results["build"].items() if r["load"] or r["build"]}
        count = len(results["build"])
        nobody = sum(bool(r["theirs"]) for r in bad.values())
        rows.append([results["name"], f"{count - len(bad)} of {count}", str(nobody)])
        for f, r in bad.items():
            names = failing[f][0] if f in failing else []
            failing[f] = ([*names, results["name"]], r["load"] or r["build"], r["theirs"] or "builds")
    text = _table(["release", "load and build here", "of the others, not built by PaddleSeg itself"], rows) + "\n\n"
    if failing:
        rows = [[f, ", ".join(names), *errors] for f, (names, *errors) in failing.items()]
        text += _table(["configuration", "releases", "here", "PaddleSeg itself"], rows) + "\n\n"
    return text + "".join(_describe_chains(results) for results in releases if results["chain"])


def _describe_chains(results: dict) -> str:
    steps = list(stages.CHAIN)
    counts = {s: sum(r[s] == "" for r in results["chain"].values()) for s in steps}
    text = f"Chains of {len(results['chain'])} models of {results['name']}: "
    text += f"{', '.join(f'{s} {n}' for s, n in counts.items())}. "
    text += f"Pictures of {results['size'][0]} x {results['size'][1]}, limit of {results['seconds']:g} s a step.\n\n"
    rows = []
    for model, result in results["chain"].items():
        reason = next((result[s] for s in steps if result[s]), "")
        theirs = {None: "", "": "runs"}.get(result["theirs"], result["theirs"])
        yes = ({"": "yes", None: "-"}.get(result[s], "no") for s in steps)
        rows.append([model, result["file"], *yes, reason, theirs])
    return (
        text + _table(["model", "configuration", *steps, "reason", "PaddleSeg's own run of that step"], rows) + "\n\n"
    )


def main(argv=None) -> int:
    """Runs everything; the exit status tells whether all is built that PaddleSeg builds."""
    args = parse_args(argv)
    if args.tables:
        print(describe([json.loads(path.read_text()) for path in args.tables]).rstrip())
        return 0
    folder = args.configs or args.paddleseg / "configs"
    files = _config_files(folder, args.only)
    if not files:
        print(f"{folder}: no configurations ({args.only!r})", file=sys.stderr)
        return 2
    _import_all(args.paddleseg)
    name = args.name or (args.paddleseg or folder).resolve().name
    results: dict = {"name": name, "size": args.size, "seconds": args.seconds, "build": {}, "chain": {}}
    for i, path in enumerate(files):
        key = str(path.relative_to(folder))
        results["build"][key] = found = load_and_build(path, args.seconds)
        print(f"[{i + 1}/{len(files)}] {key}: {found['load'] or found['build'] or 'ok'}", file=sys.stderr, flush=True)
    if args.chain:
        built = [p for p in files if results["build"][str(p.relative_to(folder))]["build"] == ""]
        for model, paths in candidates(built).items():
            results["chain"][model] = found = chain_of_model(paths, tuple(args.size), args.seconds)
            print(f"{model}: {found}", file=sys.stderr, flush=True)
    if args.json:
        write_text(args.json, json.dumps(results, indent=1) + "\n")
    print(describe([results]).rstrip())
    return int(any((r["load"] or r["build"]) and not r["theirs"] for r in results["build"].values()))


if __name__ == "__main__":
    run("compat_report")
