# SPDX-License-Identifier: Apache-2.0
"""`paddle-dnl`: every program by its name, its module and its launcher; help without Paddle; completion."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

from paddle_dnl import __version__
from paddle_dnl.cli.programs import PROGRAMS, split_command

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What PaddleSeg calls its scripts, and ours beside them.
LAUNCHERS = {
    **{f"{folder}{name}.py": name for folder in ("", "tools/") for name in ("train", "val", "predict", "export")},
    "deploy/python/infer.py": "infer",
    "deploy/serving/serve.py": "serve",
    "tools/convert_weights.py": "convert",
    "tools/count_macs.py": "macs",
    "tools/benchmark.py": "benchmark",
    "tools/quantize.py": "quantize",
    "tools/report.py": "report",
    "tools/attention_statistics.py": "attention statistics",
    "tools/visualize_attention.py": "attention maps",
    "tools/data/convert_cityscapes.py": "data convert-cityscapes",
    "tools/data/convert_pascal_context.py": "data convert-pascal-context",
    "tools/data/create_dataset_list.py": "data create-list",
    "tools/data/voc_augment.py": "data voc-augment",
}
# Reports at its end what was imported, since time depends on the machine's load.
HELP = """
import sys
from paddle_dnl.cli.main import main
try:
    main({words!r})
finally:
    print(*({{"paddle", "paddleseg", "cv2", "scipy", "matplotlib", "uvicorn"}} & set(sys.modules)), file=sys.stderr)
"""


def _run(*words, status=0, cwd=None, **environment):
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=given, capture_output=True, text=True)
    assert done.returncode == status, f"{words}\n{done.stdout[-800:]}\n{done.stderr[-1500:]}"
    return done


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_is_quick_and_by_both_ways(name, tmp_path):
    before = os.times().children_user
    by_name = _run("-c", HELP.format(words=[*name.split(), "--help"]), cwd=tmp_path)
    seconds = os.times().children_user - before
    assert by_name.stdout.startswith(f"usage: paddle-dnl {name} ") and by_name.stderr.strip() == ""
    assert seconds < 0.5
    by_module = _run("-m", PROGRAMS[name].module, "--help", cwd=tmp_path)
    flags = [done.stdout.replace("\n", " ").split("[-h]")[1].split()[:5] for done in (by_name, by_module)]
    assert flags[0] == flags[1]


def test_seeds_are_those_of_numpy_in_every_program(capsys):
    with_seed = set()
    for name, program in PROGRAMS.items():
        parser = importlib.import_module(program.module).make_parser()
        if "--seed" not in parser._option_string_actions:
            continue
        with_seed.add(name)
        action = parser._option_string_actions["--seed"]
        assert parser._get_values(action, [str(2**32 - 1)]) == 2**32 - 1
        for wrong in ("-1", str(2**32), "1.5"):
            with pytest.raises(SystemExit) as ended:
                parser.parse_args(["--seed", wrong])
            assert ended.value.code == 2
            said = capsys.readouterr().err
            assert f"argument --seed: expected a whole number from 0 to 4294967295, got {wrong!r}" in said, name
    assert with_seed == {"train", "data split", "data preview", "data mini-cityscapes", "attention statistics"}


def test_a_module_as_program_really_runs(tmp_path):
    for words in (("-m", "paddle_dnl.cli.train"), ("-m", "paddle_dnl", "train")):
        done = _run(*words, "--config", tmp_path / "nowhere.yml", status=1, cwd=tmp_path)
        assert done.stderr.startswith("Error: ") and "nowhere.yml: no such configuration file" in done.stderr


def test_command_itself(tmp_path):
    assert _run("-m", "paddle_dnl", "--version", cwd=tmp_path).stdout == f"paddle-dnl {__version__}\n"
    listed = _run("-m", "paddle_dnl", "--help").stdout
    assert all(f"  {name} " in listed for name in PROGRAMS)
    assert "train" in _run("-m", "paddle_dnl", status=2).stderr
    data = _run("-m", "paddle_dnl", "data", "--help").stdout
    assert "data create-list" in data and "train a model" not in data
    for words, hint in ((["tarin"], "'train'"), (["data", "create_lists"], "'data create-list'")):
        done = _run("-m", "paddle_dnl", *words, status=2)
        assert f"Did you mean {hint}?" in done.stderr and "Traceback" not in done.stderr
    assert split_command(["data", "create_list", "x"]) == ("data create-list", ["x"])


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m paddle_dnl configs | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("name ") and not done.stderr


@pytest.mark.parametrize("path", LAUNCHERS)
def test_launchers_only_launch(path):
    """Docstring, imports, the folder of the package, and the call."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    allowed = (ast.Import, ast.ImportFrom, ast.If)
    rest = [node for node in tree.body[1:] if not isinstance(node, allowed)]
    assert all(ast.unparse(node).startswith("sys.path.insert(0, ") for node in rest)
    (call,) = [
        node for node in ast.walk(tree.body[-1]) if isinstance(node, ast.Call) and ast.unparse(node.func) == "run"
    ]
    assert call.args[0].value == PROGRAMS[LAUNCHERS[path]].module


def _completions(line: str, folder: Path) -> list[str]:
    output = folder / "completions"
    _run("-m", "paddle_dnl", cwd=folder, _ARGCOMPLETE="1", COMP_LINE=line, COMP_POINT=str(len(line)),
         _ARGCOMPLETE_STDOUT_FILENAME=str(output), _ARGCOMPLETE_IFS="\n")  # fmt: skip
    return [word.strip() for word in output.read_text().split("\n")]


def test_completion(tmp_path):
    (tmp_path / "my.yml").write_text("")
    assert _completions("paddle-dnl q", tmp_path) == ["quantize"]
    assert _completions("paddle-dnl data voc", tmp_path) == ["voc-augment"]
    assert _completions("paddle-dnl train --save_i", tmp_path) == ["--save_interval"]
    names = _completions("paddle-dnl train --config dmnet_res", tmp_path)
    assert "dmnet_resnet101_os8_cityscapes_1024x512_80k" in names
    assert _completions("paddle-dnl val --config m", tmp_path) == ["my.yml"]
    assert "complete" in _run("-m", "paddle_dnl", "completion", "bash").stdout


def test_the_table_of_the_page_has_all_programs_and_no_other():
    """docs/command.md names each program, `data ...` all of its group, and scripts that run these programs."""
    rows = [
        row.split("|")[1:3] for row in (ROOT / "docs" / "command.md").read_text().splitlines() if row.startswith("| `")
    ]
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row[0])]
    groups = {name.removesuffix(" ...") for name in named if name.endswith(" ...")}
    listed = {name for name in named if not name.endswith(" ...")}
    assert listed == {name for name in PROGRAMS if name.split()[0] not in groups}
    assert groups <= {name.split()[0] for name in PROGRAMS}
    scripts = [script for row in rows for script in re.findall(r"`([^`]+)`", row[1])]
    assert scripts and all((ROOT / script).exists() for script in scripts)
