# SPDX-License-Identifier: Apache-2.0
"""The documentation: links and anchors lead somewhere, commands exist, quoted messages are still said, examples run."""

import importlib
import os
import re
import runpy
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

from paddle_dnl.cli import train
from paddle_dnl.cli.programs import PROGRAMS, split_command

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
WITH_LINKS = [*PAGES, ROOT / "README.md", ROOT / "README_CN.md"]
SOURCES = [
    path
    for folder in ("paddle_dnl", "tools", "deploy", "benchmarks", "test_tipc")
    for path in (ROOT / folder).rglob("*.py")
]
# Of programs that are not ours (Paddle's launcher, VisualDL, SLURM, Docker), and the word that stands for any flag.
FOREIGN_FLAGS = {
    "isolation",  # buildah
    "nproc_per_node",
    "backend",
    "devices",
    "logdir",
    "flag",
    "help",
    "nodes",
    "requeue",
    "generate",  # Ray
    "head",
    "signal",
    "network",
}


def _name(value) -> str:
    return value.name if isinstance(value, Path) else str(value)


def _without_fences(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```[^\n]*$", "", text, flags=re.M | re.S)


def _blocks(text: str, *languages: str) -> list[str]:
    found = re.findall(r"^( *)```(\w+)\n(.*?)^\1```$", text, re.M | re.S)
    return [body for _, language, body in found if language in languages]


def _anchors(path: Path, collapse: bool) -> set[str]:
    """Names of the headings: as GitHub makes them, or (`collapse`) as mkdocs does."""
    names: dict[str, int] = {}
    result = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", _without_fences(path.read_text(encoding="utf-8")), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        if collapse:
            plain = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        plain = re.sub(r"[^\w\s-]", "", plain).strip().lower()
        anchor = re.sub(r"[-\s]+" if collapse else r"\s", "-", plain)
        count = names[anchor] = names.get(anchor, -1) + 1
        result.add(anchor if count == 0 else f"{anchor}{'_' if collapse else '-'}{count}")
    return result


def _links(path: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "code", _without_fences(path.read_text(encoding="utf-8")))
    return re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("path", WITH_LINKS, ids=_name)
def test_links_resolve(path):
    for link in _links(path):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), f"{path.name}: {link}"
        if anchor and target.suffix == ".md":
            # On GitHub and on the site, whose rules differ.
            assert anchor in _anchors(target, False) & _anchors(target, True), f"{path.name}: {link}"


def test_link_check_sees_links():
    links = _links(ROOT / "README.md")
    assert "docs/model_zoo.md" in links and len(links) >= 7
    assert {"the-statistics", "dgmn2-and-dmnet"} <= _anchors(DOCS / "attention.md", True)


# ------------------------------------------------------------------------------------------ commands


def _commands(text: str) -> list[str]:
    """Lines of shell blocks, with continued lines joined."""
    lines = "\n".join(_blocks(text, "bash", "shell")).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _all_commands() -> list[tuple[str, str]]:
    return [(path.name, command) for path in PAGES for command in _commands(path.read_text(encoding="utf-8"))]


def _script(words: list[str]) -> int | None:
    """Where our own program is among the words of a command: a file, or a module after -m."""
    for i, word in enumerate(words):
        if word.endswith(".py") or (word.startswith("paddle_dnl.") and words[i - 1] == "-m"):
            return i
    return None


def _source_of(program: str) -> Path:
    if program.endswith(".py"):
        return ROOT / program
    return ROOT / (program.replace(".", "/") + ".py")


def _module_and_flags(words: list[str]):
    """Of a command that is ours: the module of the command line and its arguments; else None.

    `paddle-dnl train ...`, `python -m paddle_dnl train ...`, and programs by file or module.
    """
    for start in (["paddle-dnl"], ["python", "-m", "paddle_dnl"]):
        for i in range(len(words)):
            if words[i : i + len(start)] == start:
                name, rest = split_command(words[i + len(start) :])
                assert name or rest[-1] in ("--help", "--version"), f"no program {rest}"
                return (importlib.import_module(PROGRAMS[name].module), rest) if name else None
    at = _script(words)
    if at is None or words[at].startswith("my_"):
        return None
    return _cli_of(words[at]) or _source_of(words[at]), words[at + 1 :]


@pytest.mark.parametrize("page, command", _all_commands())
def test_commands_name_things_that_exist(page, command):
    words = shlex.split(command, comments=True)
    makefile = (ROOT / "Makefile").read_text()
    for first, second in zip(words, words[1:], strict=False):
        if first == "make":
            assert re.search(rf"^{second}:", makefile, re.M), f"{page}: make {second}"
    at = _script(words)
    if at is not None and not words[at].startswith("my_"):
        assert _source_of(words[at]).is_file(), f"{page}: {words[at]}"
    for word in words:
        if word.startswith(("configs/", "test_tipc/", "./test_tipc/")) and "." in word and "/output/" not in word:
            assert (ROOT / word).exists(), f"{page}: {word}"


def test_commands_parse():
    """Every flag in a command is one that this very program knows."""
    parsed = read = 0
    for page, command in _all_commands():
        words = shlex.split(command, comments=True)
        found = _module_and_flags(words)
        if found is None:
            continue
        module, arguments = found
        if hasattr(module, "make_parser"):
            if "--help" in arguments:
                continue
            try:
                getattr(module, "parse_args", lambda a: module.make_parser().parse_args(a))(arguments)  # noqa: B023
            except SystemExit:
                pytest.fail(f"{page}: {command}")
            parsed += 1
        else:
            flags = [word for word in arguments if word.startswith("--")]
            missing = [flag for flag in flags if f'"{flag}"' not in module.read_text(encoding="utf-8")]
            assert not missing, f"{page}: {command}: {missing}"
            read += 1
    assert parsed >= 25 and read >= 2


def _cli_of(program: str):
    """The module that parses the flags of a program, where it is not the program itself."""
    named = re.search(r'run\("(paddle_dnl\.cli\.[\w.]+)"', _source_of(program).read_text(encoding="utf-8"))
    return importlib.import_module(named[1]) if named else None


def _known_flags() -> set[str]:
    """Flags that some program of the repository defines, read from the sources."""
    known = set(FOREIGN_FLAGS)
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        known |= set(re.findall(r'\(\s*(?:parser,\s*)?"--([a-z_]+)"', text))
        known |= set(re.findall(r'add_augmented\(parser, "(\w+)"', text))
    settings = (ROOT / "paddle_dnl" / "serving").rglob("*.py")
    for path in settings:
        known |= set(re.findall(r"^    (\w+): .*Field\(", path.read_text(encoding="utf-8"), re.M))
    return known


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_flags_exist(path):
    text = path.read_text(encoding="utf-8")
    mentioned = set(re.findall(r"(?<![\w-])--([a-z][a-z_]+)(?![\w-])", text))
    assert mentioned <= _known_flags(), f"{path.name}: {mentioned - _known_flags()}"


def test_every_flag_of_training_is_described():
    known = {flag[2:] for flag in train.make_parser()._option_string_actions if flag.startswith("--")} - {"help"}
    table = re.findall(r"^\| (`--.*?) \|", (DOCS / "training.md").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"--(\w+)", " ".join(table))) == known


def test_every_source_and_dataset_is_described():
    from paddle_dnl.registry import DATASETS, load_components
    from paddle_dnl.weights import convert

    load_components()
    text = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("convert", "data")}
    assert all(f"--source {name} " in text["convert"] for name in convert.SOURCES)
    assert all(f"| `{name}` |" in text["data"] for name in DATASETS.components_dict)


def test_mentioned_files_exist():
    """Paths in code on the pages, as far as they name sources."""
    for path in PAGES:
        text = _without_fences(path.read_text(encoding="utf-8"))
        for name in re.findall(r"`((?:paddle_dnl|tools|configs|tests|deploy|test_tipc|benchmarks)/[\w./-]+)`", text):
            if not name.startswith("test_tipc/output"):
                assert (ROOT / name).exists(), f"{path.name}: {name}"


# ------------------------------------------------------------------------------------------ pages


def _package_text() -> str:
    """All strings of the sources, neighbours joined and quotes gone, so that a message is found across line breaks."""
    texts = [path.read_text(encoding="utf-8") for path in SOURCES]
    return re.sub(r'"\s*\n?\s*f?"', "", "\n".join(texts))


def quoted_messages() -> list[str]:
    """The first column of the tables in troubleshooting.md, cut at `...`, which stands for what differs."""
    rows = re.findall(r"^\| `(.+?)` \|", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.M)
    return [part.strip() for row in rows for part in row.split("...") if len(part.strip()) > 3]


def test_quoted_messages_are_still_said():
    source = _package_text()
    quoted = quoted_messages()
    assert len(quoted) >= 40
    gone = [part for part in quoted if part not in source]
    assert not gone, f"no longer in the sources: {gone}"


def test_navigation_names_every_page_once():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = [page for section in config["nav"] for pages in section.values() for page in pages]
    assert sorted(named) == sorted(path.name for path in PAGES)
    assert config["site_dir"] == "site" and config["theme"]["font"] is False
    assert not {"repo_url", "extra_javascript"} & set(config) and "analytics" not in config["extra"]
    assert all((DOCS / name).is_file() for name in [*config["extra_css"], *(f"../{hook}" for hook in config["hooks"])])


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_pictures_are_our_own(path):
    """Nothing that a reader's browser would fetch from elsewhere."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"!\[[^\]]*\]\(\w+:", text) and not re.search(r"<(script|img|link|iframe)\b", text)


def test_api_names_exist():
    names = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.M)
    assert len(names) >= 20
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__, name


def test_links_out_of_docs_become_text():
    unlink = runpy.run_path(str(ROOT / "tools" / "docs_hooks.py"))["unlink_outside"]
    cases = {
        "[a](../configs/x/a.yml), [b](b.md#c)": "`configs/x/a.yml`, [b](b.md#c)",
        "see [the `--part` text](../README.md#x).": "see the `--part` text (`README.md`).",
        "`[a](../b)` and [d](https://x/../y)": "`[a](../b)` and [d](https://x/../y)",
        "![p](images/p.png) [`a.py`](../tools/a.py)": "![p](images/p.png) `tools/a.py`",
        "```text\n[a](../b)\n```\n[a](../b)": "```text\n[a](../b)\n```\na (`b`)",
    }
    for given, expected in cases.items():
        assert unlink(given, "page.md") == expected


# ------------------------------------------------------------------------------------------ examples


def test_example_of_extending_runs(tmp_path, monkeypatch):
    """The two files of extending.md, saved as it says, train a step's worth: forward, loss, backward."""
    text = (DOCS / "extending.md").read_text(encoding="utf-8")
    model_text, use_text = _blocks(text, "python")[:2]
    (config_text,) = _blocks(text, "yaml")
    assert len(model_text.splitlines()) <= 45
    (tmp_path / "my_model.py").write_text(model_text, encoding="utf-8")
    (tmp_path / "my_model.yml").write_text(config_text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "trying_it.py").write_text(use_text, encoding="utf-8")
    space = runpy.run_path(str(tmp_path / "trying_it.py"))

    import paddle

    model = space["model"]
    assert type(model).__module__ == "my_model"
    assert [list(y.shape) for y in space["logits"]] == [[1, 19, 128, 256]]
    loss = sum(value for _, value in space["losses"](space["logits"], paddle.zeros([1, 128, 256], "int64")))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if not p.stop_gradient)


@pytest.mark.slow
def test_example_of_extending_trains_and_exports(tmp_path):
    """The commands of the page, in a folder with its two files."""
    from paddle_dnl.data.prepare.convert_cityscapes import convert_tree
    from paddle_dnl.data.scenes.mini_cityscapes import generate

    text = (DOCS / "extending.md").read_text(encoding="utf-8")
    for name, language in (("my_model.py", "python"), ("my_model.yml", "yaml")):
        (tmp_path / name).write_text(_blocks(text, language)[0], encoding="utf-8")
    convert_tree(generate(tmp_path / "data" / "mini_cityscapes", train=4, val=1, size=(256, 128)), num_workers=0)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SEG_HOME": str(tmp_path)}
    for command in _commands(text):
        words = ["-m", "paddle_dnl", *shlex.split(command)[1:]]
        if "train" in words:
            words += ["--iters", "2", "--num_workers", "0"]
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    assert (tmp_path / "output" / "inference_model" / "deploy.yaml").is_file()
