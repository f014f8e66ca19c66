# SPDX-License-Identifier: Apache-2.0
"""Figures of the package's structure: `python tools/code_metrics.py [ROOT]`.

Lines per file, files per room, the longest chain of imports between modules, and private functions with a single caller:
what makes a code base hard to find one's way in.

The chain is of imports that are executed, at module level or in a function. What stands below `if TYPE_CHECKING:` names a type
for annotations and is never imported at run time, so that a module can be read, tested and loaded without it; the length of the
chain with those is printed too.
"""

import argparse
import ast
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from paddle_dnl.cli._run import run  # noqa: E402

PACKAGE = "paddle_dnl"


def parse(root: Path) -> dict[str, ast.Module]:
    """Dotted module name -> syntax tree, for every module of the package."""
    trees = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        trees[name] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree without the bodies of `if TYPE_CHECKING:`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        waiting += node.orelse if is_for_types else ast.iter_child_nodes(node)


def imports(trees: dict[str, ast.Module], with_types: bool = False) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports at module level or inside functions.

    Args:
        trees: see `parse`.
        with_types: also those below `if TYPE_CHECKING:`.
    """
    found = defaultdict(set)
    for name, tree in trees.items():
        for node in ast.walk(tree) if with_types else _executed(tree):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names if alias.name in trees}
            elif isinstance(node, ast.ImportFrom):
                above = name.split(".")[: -node.level] if node.level else []  # of a relative import
                module = ".".join([*above, *([node.module] if node.module else [])])
                for alias in node.names:
                    target = f"{module}.{alias.name}"
                    target = target if target in trees else module
                    if target in trees and target != name:
                        found[name].add(target)
    return found


def import_depth(graph: dict[str, set[str]]) -> list[str]:
    """The longest chain of imports."""
    longest: dict[str, list[str]] = {}

    def chain(name: str, above: frozenset) -> list[str]:
        if name not in longest:
            below = [chain(other, above | {name}) for other in graph.get(name, ()) if other not in above]
            longest[name] = [name, *max(below, key=len, default=[])]
        return longest[name]

    return max((chain(name, frozenset()) for name in list(graph)), key=len)


def rooms(root: Path) -> Counter:
    """Folder -> modules in it, but for empty ones and `__init__.py`."""
    files = [path for path in (root / PACKAGE).rglob("*.py") if path.read_text(encoding="utf-8").strip()]
    return Counter(str(path.parent.relative_to(root)) for path in files if path.name != "__init__.py")


def single_caller_helpers(trees: dict[str, ast.Module]) -> tuple[list[str], list[str], int]:
    """Private functions and methods that the package names in one place besides their definition.

    Returns:
        Their places; those among them that are passed on as values (callbacks, tables) instead of called; the number of all
        functions.
    """
    named, called, defined, total = Counter(), set(), {}, 0
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called.add(getattr(node.func, "id", None) or getattr(node.func, "attr", None))
            if isinstance(node, ast.Name):
                named[node.id] += 1
            elif isinstance(node, ast.Attribute):
                named[node.attr] += 1
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                total += 1
                if node.name.startswith("_") and not node.name.startswith("__"):
                    defined[f"{module}:{node.name}"] = node
    found = {place: node for place, node in defined.items() if named[node.name] == 1}
    return sorted(found), sorted(place for place, node in found.items() if node.name not in called), total


def main(argv=None) -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--list", action="store_true", help="name the single-caller functions")
    args = parser.parse_args(argv)
    root = args.root
    trees = parse(root)
    files = [path for path in sorted((root / PACKAGE).rglob("*.py")) if path.read_text(encoding="utf-8").strip()]
    lines = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    p90 = lines[int(0.9 * (len(lines) - 1))]
    print(f"files {len(lines)}, lines {sum(lines)}: median {statistics.median(lines):.0f}, p90 {p90}, max {lines[-1]}")
    print("files per room:", ", ".join(f"{room} {count}" for room, count in rooms(root).most_common()))
    longest = import_depth(imports(trees))
    print(f"import depth {len(longest)}: {' -> '.join(name.removeprefix(PACKAGE + '.') for name in longest)}")
    print(f"import depth with imports for annotations alone: {len(import_depth(imports(trees, with_types=True)))}")
    helpers, passed_on, total = single_caller_helpers(trees)
    print(
        f"single-caller private functions {len(helpers)} of {total} ({len(helpers) / total:.1%}); "
        f"{len(passed_on)} of them are passed on as values, not called"
    )
    if args.list:
        print("\n".join(f"  {place}{' (value)' if place in passed_on else ''}" for place in helpers))
    return 0


if __name__ == "__main__":
    run("code_metrics")
