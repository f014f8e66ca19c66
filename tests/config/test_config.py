# SPDX-License-Identifier: Apache-2.0
"""Configurations: inheritance as in PaddleSeg, overrides, and errors that name file, key and nearest name."""

import time

from paddle_dnl.config import Config
from paddle_dnl.config.overrides import apply_overrides, parse_value
from paddle_dnl.config.reading import merge, parse_yaml, read_config
from paddle_dnl.errors import ConfigError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddleseg.cvlibs import Config as TheirConfig

BASE = """
batch_size: 2
iters: 10
model: {{type: DNLNet, num_classes: 3, backbone: {{type: ResNet18, output_stride: 8}}}}
train_dataset: &data
  type: Dataset
  dataset_root: {root}
  train_path: {root}/train.txt
  num_classes: 3
  mode: train
  transforms:
    - {{type: RandomPaddingCrop, crop_size: [32, 32]}}
    - {{type: Normalize}}
val_dataset:
  type: Dataset
  dataset_root: {root}
  val_path: {root}/val.txt
  num_classes: 3
  mode: val
  transforms: [{{type: Normalize}}]
optimizer: {{type: SGD, momentum: 0.9, weight_decay: 4e-5}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.01, end_lr: 0, power: 0.9}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1, 0.4]}}
"""


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.yml"
    path.write_text(BASE.format(root=tmp_path))
    return path


def _child(base, text):
    path = base.with_name("child.yml")
    path.write_text(text)
    return path


def test_inheritance_is_that_of_paddleseg(base):
    child = _child(base, """
_base_: base.yml
iters: 20
model: {backbone: {type: ResNet50, multi_grid: [1, 2, 4]}}
optimizer: {_inherited_: False, type: AdamW, weight_decay: 0.05}
loss: {coef: [1, 0.2]}
""")  # fmt: skip
    ours = read_config(child)
    theirs = TheirConfig._parse_from_yaml(str(child))
    theirs["optimizer"].pop("_inherited_", None)
    assert theirs["train_dataset"]["transforms"] == ours["train_dataset"]["transforms"]
    for key in ("iters", "model", "loss", "lr_scheduler"):
        assert ours[key] == theirs[key]
    assert ours["optimizer"] == {"type": "AdamW", "weight_decay": 0.05}
    assert ours["model"]["backbone"] == {"type": "ResNet50", "output_stride": 8, "multi_grid": [1, 2, 4]}


def test_numbers_overrides_and_what_is_filled_in(base):
    config = Config(base, learning_rate=0, batch_size=3, opts=[
        "model.backbone.multi_grid=1,2,4", "train_dataset.transforms.0.crop_size=[64,48]", "model.backbone.pretrained=null",
        "optimizer.weight_decay=1", "train_dataset.dataset_root=/a=b", "test_config.is_slide=true",
        "test_config.crop_size=32,32", "test_config.stride=16,16",
    ])  # fmt: skip
    assert config.lr_scheduler_cfg["learning_rate"] == 0 and config.batch_size == 3
    assert config.model_cfg["backbone"]["multi_grid"] == [1, 2, 4]
    assert config.train_dataset_cfg["transforms"][0]["crop_size"] == [64, 48]
    assert config.model_cfg["backbone"]["pretrained"] is None
    assert config.optimizer_cfg["weight_decay"] == 1.0 and isinstance(config.optimizer_cfg["weight_decay"], float)
    assert config.train_dataset_cfg["dataset_root"] == "/a=b"
    assert config.test_config == {"is_slide": True, "crop_size": [32, 32], "stride": [16, 16]}
    assert len(config.loss_cfg["types"]) == 2 and config.loss_cfg["types"][1]["ignore_index"] == 255
    assert Config(base).optimizer_cfg["weight_decay"] == 4e-5


def test_dump_reads_back_to_the_same(base, tmp_path):
    config = Config(base, opts=["iters=7"])
    path = tmp_path / "dumped.yml"
    path.write_text(config.dump())
    assert Config(path).dic == config.dic
    assert "&" not in config.dump()


def test_sections_are_copies(base):
    config = Config(base)
    config.model_cfg["backbone"]["type"] = "other"
    assert config.model_cfg["backbone"]["type"] == "ResNet18"


BAD_OPTIONS = [
    ("iter=5", "iter: unknown key. Did you mean 'iters'?"),
    ("iters=0", "iters: must be a positive integer"),
    ("iters=2.5", "iters: must be a positive integer"),
    ("batch_size=true", "batch_size: must be a positive integer"),
    ("model.type=DNLNett", "model.type: there is no model named 'DNLNett'. Did you mean 'DNLNet'?"),
    ("model.backbone.type=ResNet51", "model.backbone.type: there is no backbone named 'ResNet51'"),
    ("model.temprature=0.1", "model.temprature: unknown key. Did you mean 'temperature'?"),
    ("model.backbone.outputstride=8", "Did you mean 'output_stride'?"),
    ("train_dataset.transforms.0.type=RandomPadingCrop", "train_dataset.transforms.0.type: there is no transform"),
    ("train_dataset.transforms.0.crop=5", "train_dataset.transforms.0.crop: unknown key"),
    ("train_dataset.transforms.7.prob=5", "'7' is not an index into a list of 2"),
    ("train_dataset.num_classes=4", "numbers of classes disagree"),
    ("model.num_classes=4", "numbers of classes disagree"),
    ("train_dataset.ignore_index=0", "ignore_index disagree"),
    ("optimizer.type=SGDD", "there is no optimizer named 'SGDD'"),
    ("optimizer.weight_decay=-1", "optimizer.weight_decay: must be a number from 0"),
    ("optimizer.weight_decay=nan", "optimizer.weight_decay: must be a number from 0"),
    ("optimizer.momentumm=0.5", "optimizer.momentumm: unknown key. Did you mean 'momentum'?"),
    ("lr_scheduler.type=Poly", "lr_scheduler.type: no schedule 'Poly'"),
    ("lr_scheduler.learning_rate=.nan", "lr_scheduler.learning_rate: must be a finite number"),
    ("lr_scheduler.learning_rate=fast", "lr_scheduler.learning_rate: must be a number from 0"),
    ("lr_scheduler.warmup_iters=5", "lr_scheduler.warmup_start_lr: missing"),
    ("loss.coef=[1,1,1,x]", "loss.coef: expected a list of numbers"),
    ("loss.types.0.type=CrossEntropy", "loss.types.0.type: there is no loss"),
    ("loss.types.0.ignore=5", "loss.types.0.ignore: unknown key"),
    ("test_config.is_slide=true", "test_config.crop_size: missing"),
    ("test_config.slide=true", "test_config.slide: unknown key. Did you mean 'is_slide'?"),
    ("test_config.scales=abc", "test_config.scales: expected a positive number or a list of them, got 'abc'"),
    ("test_config.scales=[1, 0]", "test_config.scales: expected a positive number"),
    ("model.backbone=ResNet18", "with a `type` key, got 'ResNet18'; write `backbone: {type: ResNet18}`"),
    ("test_config.average=mean", "test_config.average: must be one of logits, softmax, official"),
    ("model=5", "model: expected a mapping"),
    ("train_dataset.transforms=5", "train_dataset.transforms: expected a list"),
    ("ema_decay=2", "ema_decay: must be a number in"),
    ("grad_accum_iters=0", "grad_accum_iters: must be a positive integer"),
    ("to_static_training=5", "to_static_training: must be true or false"),
    ("iters", "expected key=value"),
    ("=5", "expected key=value"),
    ("a..b=5", "expected key=value"),
    ("iters.x=5", "'x' is inside 10, which holds no keys"),
]


@pytest.mark.parametrize("option, message", BAD_OPTIONS, ids=[option for option, _ in BAD_OPTIONS])
def test_bad_values_are_named(base, option, message):
    with pytest.raises(ConfigError) as caught:
        Config(base, opts=[option])
    assert message in str(caught.value)
    if not option.startswith(("iters.", "=", "a..", "train_dataset.transforms.7")) and "=" in option:
        assert str(base) in str(caught.value)


def test_an_unknown_key_names_the_base_that_has_it(base, tmp_path):
    content = f"_base_: {base}\nlr_scheduler: {{type: StepDecay, learning_rate: 0.1, step_size: 3}}\n"
    (tmp_path / "child.yml").write_text(content)
    (tmp_path / "grandchild.yml").write_text("_base_: child.yml\n")
    for name in ("child.yml", "grandchild.yml"):
        with pytest.raises(ConfigError) as caught:
            Config(tmp_path / name)
        text = str(caught.value)
        assert f"{name}: lr_scheduler.end_lr: unknown key" in text and f"inherited from {base}" in text, text
        assert "with `_inherited_: False` in lr_scheduler nothing is inherited there" in text
    (tmp_path / "child.yml").write_text(content.replace("{type", "{_inherited_: False, type"))
    assert Config(tmp_path / "child.yml").lr_scheduler_cfg["type"] == "StepDecay"
    for where, opts in (("own.yml", []), ("child.yml", ["lr_scheduler.last=1"])):  # not of a base
        (tmp_path / "own.yml").write_text(f"_base_: {base}\nlr_scheduler: {{last: 1}}\n")
        with pytest.raises(ConfigError, match="lr_scheduler.last: unknown key") as caught:
            Config(tmp_path / where, opts=opts)
        assert "inherited from" not in str(caught.value)


BAD_FILES = {
    "not a mapping": ("- 1\n- 2\n", "expected `key: value` lines"),
    "broken": ("a: [1, 2\n", "not a valid configuration"),
    "tab": ("a:\n\tb: 1\n", "not a valid configuration"),
    "python tag": ("a: !!python/object/apply:os.system ['touch hacked']\n", "not a valid configuration"),
    "duplicate": ("iters: 1\niters: 2\n", "'iters' is given twice"),
    "alias bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{k}: &{k} [{', '.join([f'*{p}'] * 10)}]\n" for p, k in zip("abcdefgh", "bcdefghi", strict=True)),
        "more than 100000 values",
    ),
    "circle of aliases": ("a: &a [*a]\n", "alias"),
    "missing base": ("_base_: nowhere.yml\n", "nowhere.yml does not exist"),
    "base is a number": ("_base_: 5\n", "_base_: expected a file name"),
    "own base": ("_base_: bad.yml\n", "leads in a circle"),
    "empty": ("", "expected `key: value` lines"),
    "no model": ("batch_size: 1\niters: 1\n", "train_dataset: missing"),
    "key is a list": ("? [1, 2]\n: 3\n", "not a valid configuration"),
    "deep": ("a: " + "[" * 3000 + "]" * 3000, "not a valid configuration"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, message = BAD_FILES[name]
    path = tmp_path / "bad.yml"
    path.write_text(text)
    began = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        Config(path)
    assert message in str(caught.value) and "bad.yml" in str(caught.value)
    assert time.monotonic() - began < 5 and not (tmp_path / "hacked").exists()


def test_other_unreadable_files(tmp_path):
    (tmp_path / "big.yml").write_bytes(b"a: 1\n" * 300_000)
    (tmp_path / "latin.yml").write_bytes(b"a: \xe9\xff\n")
    (tmp_path / "config.txt").write_text("a: 1")
    for name, message in (
        ("big.yml", "too large"), ("latin.yml", "not UTF-8"), ("config.txt", "ends in .yml"), ("none.yml", "no such"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            Config(tmp_path / name)


def test_byte_order_mark_and_float_forms(tmp_path):
    path = tmp_path / "bom.yml"
    path.write_bytes(b"\xef\xbb\xbfa: 4e-5\nb: 1E3\nc: 0x10\nd: 12:30\ne: 1_000\nf: .5\n")
    assert read_config(path) == {"a": 4e-5, "b": 1e3, "c": "0x10", "d": "12:30", "e": "1_000", "f": 0.5}


@pytest.mark.parametrize("text, value", [
    ("true", True), ("None", None), ("null", None), ("4e-5", 4e-5), ("0.75,1.0,1.25", [0.75, 1.0, 1.25]), ("(1, 2)", [1, 2]),
    ("[1, [2]]", [1, [2]]), ("{a: 1}", {"a": 1}), ("'5'", "5"), ("a=b", "a=b"), ("a,b", "a,b"), ("./x y.yml", "./x y.yml"),
    ("", ""), ("__import__('os')", "__import__('os')"), ("!!python/name:os.system", "!!python/name:os.system"),
])  # fmt: skip
def test_values(text, value):
    assert parse_value(text) == value


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=40))
def test_any_value_text_gives_plain_data(text):
    def plain(value):
        if isinstance(value, dict):
            return all(plain(k) and plain(v) for k, v in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or isinstance(value, str | int | float | bool)

    assert plain(parse_value(text))


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=30))
def test_any_override_works_or_is_refused(option):
    try:
        apply_overrides({"a": {"b": [1, {"c": 2}]}, "d": None}, [option])
    except ConfigError as error:
        assert str(error).startswith("--opts")


_TREES = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), _TREES), st.dictionaries(st.sampled_from("abcd"), _TREES))
def test_merge_keeps_all_keys_and_the_child_wins(child, base):
    merged = merge(child, base)
    assert set(merged) == set(child) | set(base)
    for key, value in child.items():
        if not isinstance(value, dict) or not isinstance(base.get(key), dict):
            assert merged[key] == value
    assert merge({}, base) == base and merge(child, {}) == child


def test_yaml_of_any_depth_ends_in_time():
    began = time.monotonic()
    with pytest.raises(Exception, match="deep|values"):
        parse_yaml("{a: " * 5000 + "1" + "}" * 5000)
    assert time.monotonic() - began < 5
