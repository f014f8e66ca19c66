# SPDX-License-Identifier: Apache-2.0
"""The rules of the house, read from the syntax trees: who may import whom, how long a file may be, what never appears."""

import ast
import re
import runpy
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "paddle_dnl"
MODULES = sorted(PACKAGE.rglob("*.py"))
WRITTEN = sorted(
    path
    for folder in ("paddle_dnl", "tests", "tools", "deploy", "test_tipc", "benchmarks", "configs")
    for path in (ROOT / folder).rglob("*.py")
) + sorted(ROOT.glob("*.py"))

# What a room may import of this package: cli, serving -> deployment, training, evaluation, analysis -> models, data, weights
# -> nn, registry -> errors, log.
BASE = {"addresses", "errors", "files", "log", "optional", "startup"}
CORE = {"models", "losses", "nn", "data", "config", "optim", "registry", "weights"} | BASE
ALLOWED = {
    "nn": {"nn", "errors"},
    "models": {"models", "nn", "registry", "config", "weights", "compat"} | BASE,
    "losses": {"losses", "nn", "registry"} | BASE,
    "registry": {"registry", "user_code", "compat", "models", "losses", "optim", "data"} | BASE,
    "optim": {"optim", "registry", "compat"} | BASE,
    # The plug-in gives our components to PaddleSeg's tools; the rest of the room imports errors only.
    "compat": {"compat", "registry", "weights"} | BASE,
    "paddleseg_plugin": {"compat"},
    "data": {"data", "registry"} | BASE,
    "config": {"config", "user_code", "registry", "models", "losses", "optim", "data"} | BASE,
    "weights": {"weights", "models", "nn", "registry", "distributed"} | BASE,
    "distributed": {"distributed"} | BASE,
    "profile": {"profile", "evaluation"} | CORE,
    "evaluation": {"evaluation", "training", "distributed"} | CORE,
    "training": {"training", "evaluation", "distributed", "profile"} | CORE,
    "gpu": {"gpu", "training", "evaluation", "deployment", "compat"} | CORE,
    # `bulk` imports the user's modules in the processes of a cluster.
    "deployment": {"deployment", "evaluation", "profile", "user_code"} | CORE,
    "serving": {"serving", "deployment"} | CORE,
    # Looks at finished models, so it stands above training, as the command line does.
    "analysis": {"analysis", "evaluation"} | CORE,
    # Atomic writes and output checks: needed by every room that writes, so below all of them.
    "files": {"files", "errors", "log"},
    "addresses": set(),
    "errors": {"errors"},
    "optional": {"errors"},
    "user_code": {"errors", "log"},
    "startup": {"startup", "compat", "log"},
    "__init__": {"startup"},
}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _imports(path: Path) -> set[str]:
    """Full names of everything a file imports, also inside functions; `from a import b` gives `a.b`."""
    found = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            if node.level:  # relative: made absolute
                parts = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
                package = ".".join([*parts, *filter(None, [node.module])])
            found |= {f"{package}.{alias.name}" for alias in node.names}
    return found


def _layer(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _own_layers(path: Path) -> set[str]:
    """The layers of this package that a file imports; `import paddle_dnl` alone is none."""
    names = {name.split(".")[1] for name in _imports(path) if name.startswith("paddle_dnl.")}
    public = {p.stem for p in PACKAGE.iterdir() if p.is_dir() or p.suffix == ".py"}
    return names & public


@pytest.mark.parametrize("layer", ALLOWED)
def test_arrows_go_one_way(layer):
    wrong = {
        _name(path): sorted(_own_layers(path) - ALLOWED[layer])
        for path in MODULES
        if _layer(path) == layer and _own_layers(path) - ALLOWED[layer]
    }
    assert not wrong, f"{layer} may import {sorted(ALLOWED[layer])} of this package, but: {wrong}"


def test_only_the_command_line_imports_the_command_line():
    wrong = [_name(path) for path in MODULES if _layer(path) not in ("cli", "__main__") and "cli" in _own_layers(path)]
    assert not wrong


def test_files_are_written_in_one_place():
    """All writes are atomic and pass the check of outputs; what goes into a temporary folder of `files.atomic` is named."""
    direct = re.compile(
        r"""\.write_(?:text|bytes)\(|\bopen\([^)]*["'][wxa]b?\+?["']|NamedTemporary|mkstemp|mkdtemp|os\.re(?:name|place)\("""
        r"""|\.savefig\((?!temporary)|imwrite\(|np\.savez?\("""
    )
    # Files in temporary folders, the lock of a run, and its records, which are appended to.
    known = {
        "paddle_dnl/data/images/geo_files.py",  # rasterio, under a temporary name
        "paddle_dnl/data/checking/sample_table.py",
        "paddle_dnl/deployment/export/install.py",
        "paddle_dnl/deployment/export/trial.py",
        "paddle_dnl/gpu/check.py",  # the output of a program, under a temporary name
        "paddle_dnl/training/checkpoints/checkpoint.py",
        "paddle_dnl/training/records/run_records.py",
        "paddle_dnl/weights/archives.py",
        "paddle_dnl/weights/downloads.py",
        "paddle_dnl/weights/manifest.py",
    }
    # Programs beside the package: a file of an environment that is just made, temporary folders, a switch of the kernel.
    known |= {"tools/check_system.py", "tools/compat_stages.py"}
    known |= {f"benchmarks/{name}.py" for name in ("worker", "torch_peer", "step_overhead", "million_pairs")}
    beside = [path for folder in ("tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    files = [path for path in MODULES if _layer(path) != "files"] + beside
    assert {_name(path) for path in files if direct.search(path.read_text("utf-8"))} == known


def test_json_of_files_is_read_in_one_place():
    """Deep brackets raise RecursionError in `json.loads`; what our own processes tell each other is not from a file."""
    own = {
        "paddle_dnl/deployment/benchmark/timings.py",
        "paddle_dnl/deployment/benchmark/worker.py",
        "paddle_dnl/deployment/export/trial.py",
        "paddle_dnl/distributed/collectives.py",
        "paddle_dnl/distributed/watchdog/hub.py",
        "paddle_dnl/distributed/watchdog/main.py",
        "paddle_dnl/files/reading.py",
        "paddle_dnl/gpu/check.py",
        "paddle_dnl/gpu/probes.py",
    }
    assert {_name(path) for path in MODULES if re.search(r"\bjson\.loads?\(", path.read_text("utf-8"))} == own


def test_pools_of_processes_are_made_in_one_place():
    """Where a killed process is one line, signals are left to the parent, and nothing outlives it."""
    made = re.compile(r"ProcessPoolExecutor|multiprocessing\.Pool|\.Pool\(")
    assert {_name(path) for path in MODULES if made.search(path.read_text("utf-8"))} == {"paddle_dnl/data/processes.py"}


def test_blocks_know_only_paddle():
    known = {"paddle", "numpy", "paddle_dnl"} | sys.stdlib_module_names
    wrong = {
        _name(path): sorted(foreign)
        for path in (PACKAGE / "nn").rglob("*.py")
        if (foreign := {name.split(".")[0] for name in _imports(path)} - known)
    }
    assert not wrong


def test_only_the_bridge_imports_paddleseg():
    wrong = [
        _name(path)
        for path in MODULES
        if _layer(path) != "compat" and any(name.split(".")[0] == "paddleseg" for name in _imports(path))
    ]
    assert not wrong


def test_what_runs_exported_models_knows_no_training():
    allowed = {"deployment", "data", "config", "registry", "weights", "profile"} | BASE
    folder = PACKAGE / "deployment" / "runtime"
    wrong = {_name(path): sorted(_own_layers(path) - allowed) for path in folder.rglob("*.py")}
    assert not {name for name, layers in wrong.items() if layers}, wrong
    above = [_name(p) for p in folder.rglob("*.py") if any(".deployment.export" in name for name in _imports(p))]
    assert not above


def test_the_layers_named_here_exist():
    assert {_layer(path) for path in MODULES} >= set(ALLOWED)


def test_files_stay_readable():
    """Generated tables would be data, not code; there are none. The line of the licence does not count."""
    long = {_name(p): n for p in WRITTEN if (n := len(p.read_text(encoding="utf-8").splitlines()) - 1) >= 400}
    assert not long, f"files of 400 lines or more: {long}"


def test_chains_of_imports_and_rooms_stay_short():
    """A program is at most seven modules deep, itself included, and a room has at most 16 of them."""
    metrics = runpy.run_path(str(ROOT / "tools" / "code_metrics.py"))
    longest = metrics["import_depth"](metrics["imports"](metrics["parse"](ROOT)))
    assert len(longest) <= 7, " -> ".join(longest)
    assert not {room: count for room, count in metrics["rooms"](ROOT).items() if count > 16}


def _mentions(tree: ast.Module) -> Counter:
    """How often each name stands in a file outside its definition."""
    nodes = list(ast.walk(tree))
    return Counter(node.id for node in nodes if isinstance(node, ast.Name)) + Counter(
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    )


def test_small_helpers_name_an_idea():
    """A private function of five lines or less that is called in one place needs a docstring: what is the idea it names?

    Without one its lines read better where they are called. Methods that a subclass replaces, and functions that are handed
    on as values, are there for another reason.
    """
    wrong = []
    for path in MODULES:
        tree = _tree(path)
        mentions = _mentions(tree)
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        defined = Counter(function.name for function in functions)
        called = {
            getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
        }
        for function in functions:
            name = function.name
            private = name.startswith("_") and not name.startswith("__")
            once = mentions[name] == 1 and name in called and defined[name] == 1
            short = function.body[-1].end_lineno - function.body[0].lineno < 5
            if private and once and short and not function.decorator_list and not ast.get_docstring(function):
                wrong.append(f"{_name(path)}:{function.lineno} {name}")
    assert not wrong, f"inline these, or say in a docstring what each computes: {wrong}"


def test_private_functions_are_used():
    named, defined = Counter(), {}
    for path in MODULES:
        tree = _tree(path)
        named += _mentions(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and re.match("_[^_]", node.name):
                if not node.decorator_list:
                    defined[f"{_name(path)}:{node.lineno} {node.name}"] = node.name
    assert not [place for place, name in defined.items() if not named[name]]


def test_every_file_says_what_it_is_for():
    silent = [_name(path) for path in WRITTEN if path.read_text().strip() and not ast.get_docstring(_tree(path))]
    assert not silent


def test_no_text_is_run_as_code():
    wrong = [
        f"{_name(path)}:{node.lineno}"
        for path in WRITTEN
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")
    ]
    assert not wrong


def test_yaml_is_read_safely():
    """`yaml.load` takes a loader, and it is a SafeLoader or made from one."""
    wrong = []
    for path in MODULES + sorted((ROOT / "tools").rglob("*.py")):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("yaml.load", "yaml.load_all"):
                given = [ast.unparse(k.value) for k in node.keywords if k.arg == "Loader"]
                given += [ast.unparse(a) for a in node.args[1:2]]
                if not any("Safe" in loader or _made_from_safe(path, loader) for loader in given):
                    wrong.append(f"{_name(path)}:{node.lineno}")
            if isinstance(node, ast.Call) and re.search(r"yaml\.(unsafe|full)_load", ast.unparse(node.func)):
                wrong.append(f"{_name(path)}:{node.lineno}")
    assert not wrong


def _made_from_safe(path: Path, loader: str) -> bool:
    classes = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.ClassDef) and node.name == loader]
    return any("Safe" in ast.unparse(base) for node in classes for base in node.bases)


def _texts() -> list[Path]:
    """Files that a person wrote; not data, not what tools or runs made."""
    found = [path for path in ROOT.glob("*") if path.is_file() and path.name != ".git"]  # of a worktree
    for folder in (".ci", "paddle_dnl", "configs", "tools", "deploy", "test_tipc", "tests", "docs", "benchmarks"):
        found += (ROOT / folder).rglob("*")
    made = ("tests/data/", "test_tipc/output/", "test_tipc/data/")
    endings = {".py", ".md", ".yml", ".yaml", ".toml", ".txt", ".sh", ".cfg", ".in", ".html", ".js", ".css", ""}
    return [p for p in found if p.is_file() and p.suffix in endings and not _name(p).startswith(made)]


def test_no_path_of_one_machine():
    private = re.compile(r"(?<![\w.:])/(?:home|root|Users|mnt|work|tmp/envs)/\w|(?<!\w)[A-Z]:\\\\Users")
    wrong = []
    for path in _texts():
        if path == Path(__file__).resolve():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        wrong += [f"{_name(path)}: {line.strip()[:90]}" for line in text.splitlines() if private.search(line)]
    assert not wrong, wrong


def test_no_loose_ends():
    """No test is passed over in silence and nothing is left for later."""
    marks = re.compile("TO" + r"DO\b|FIX" + r"ME\b|pytest\.sk" + r"ip\(|mark\.sk" + "ip|mark\\.xf" + "ail")
    wrong = [_name(path) for path in WRITTEN if marks.search(path.read_text(encoding="utf-8"))]
    assert not wrong
