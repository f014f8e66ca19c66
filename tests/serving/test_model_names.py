# SPDX-License-Identifier: Apache-2.0
"""`--model` of the service: one folder, NAME=DIR several times, a folder of exported folders, and what is refused."""

from paddle_dnl.errors import ConfigError, UsageError
from paddle_dnl.serving.main import load
from paddle_dnl.serving.settings import Settings, find_models, read_settings

import psutil
import pytest
import serving_tools


def _exported(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "deploy.yaml").touch()


def test_names_of_models(tmp_path):
    _exported(tmp_path, "zoo/small", "zoo/large model", "zoo.2", "a=b")
    (tmp_path / "zoo" / "notes").mkdir()
    zoo = tmp_path / "zoo"
    for given, wanted in (
        ([zoo], {"large_model": zoo / "large model", "small": zoo / "small"}),
        ([zoo / "small"], {"small": zoo / "small"}),
        ([zoo / "small" / "deploy.yaml"], {"small": zoo / "small" / "deploy.yaml"}),
        ([f"b={zoo / 'small'}", tmp_path / "zoo.2"], {"b": zoo / "small", "zoo.2": tmp_path / "zoo.2"}),
        ([tmp_path / "a=b"], {"a_b": tmp_path / "a=b"}),
        ([tmp_path / "nowhere"], {"nowhere": tmp_path / "nowhere"}),
        ([zoo / "notes"], {"notes": zoo / "notes"}),
    ):
        assert find_models(map(str, given)) == wanted, given
        assert list(find_models(map(str, given))) == list(wanted)
    # As the parser of several flags joins them.
    both = read_settings(["--model", str(zoo / "small"), "--model", str(tmp_path / "zoo.2")]).model
    assert find_models(both) == {"small": zoo / "small", "zoo.2": tmp_path / "zoo.2"}
    _exported(tmp_path, "x,y", "x")
    assert find_models([str(tmp_path / "x,y")]) == {"x_y": tmp_path / "x,y"}
    with pytest.raises(UsageError, match="two models are called small.*--model NAME="):
        find_models([str(zoo), f"small={zoo / 'small'}"])
    _exported(zoo, "large_model")  # as "large model" is called
    with pytest.raises(UsageError, match="two models are called large_model"):
        find_models([str(zoo)])


def test_models_from_flags_and_environment(monkeypatch):
    assert read_settings(["--model", "b=/x,y", "--model", "a=/z"]).model == ["b=/x,y", "a=/z"]
    assert read_settings(["--model", "/pictures, and more"]).model == ["/pictures, and more"]
    monkeypatch.setenv("SERVING_MODEL", "a=/x,b=/y")
    assert read_settings([]).model == ["a=/x", "b=/y"]
    assert read_settings(["--model", "/z"]).model == ["/z"]


def test_a_wrong_second_model_ends_the_first_ones_process(tmp_path):
    folder = serving_tools.export(tmp_path / "good")
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(ConfigError, match="nowhere"):
        load(Settings(model=f"a={folder},b={tmp_path / 'nowhere'}", cpu_threads=1))
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [one for one in left if "resource_tracker" not in " ".join(one.cmdline())]
