# SPDX-License-Identifier: Apache-2.0
"""Random input for the three parsers that people's text goes through, and for the transforms that change sizes.

50 examples each in every test run, 500 in `make test-slow`.
"""

import copy
import json
import random

from paddle_dnl.config.config import to_yaml
from paddle_dnl.config.overrides import apply_overrides
from paddle_dnl.config.reading import merge, read_config
from paddle_dnl.data import transforms as T
from paddle_dnl.data.images.list_files import read_list
from paddle_dnl.errors import ConfigError, DataError
from paddle_dnl.evaluation.inference import restore

import numpy as np
import paddle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paddleseg.transforms import Padding

AMOUNTS = pytest.mark.parametrize("examples", [50, pytest.param(500, marks=pytest.mark.slow)])


def _settings(examples: int):
    return settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )


# ------------------------------------------------------------------------------------------------ overrides

LETTERS = st.characters(
    codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co"), exclude_characters="\u2028\u2029\ufeff"
)
KEYS = st.sampled_from(["model", "backbone", "a_b", "x1", "type"])
LEAVES = (
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(LETTERS, max_size=12)
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
TREES = st.dictionaries(KEYS, VALUES, max_size=4)


def _places(tree, path=()):
    """Every path in a tree, the way `--opts` spells it."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*path, key))


@AMOUNTS
def test_an_override_sets_one_value_and_nothing_else(examples):
    @_settings(examples)
    @given(TREES, st.data(), VALUES)
    def check(tree, data, value):
        places = list(_places(tree)) or [("iters",)]
        path = data.draw(st.sampled_from(places))
        expected = copy.deepcopy(tree)
        holder = expected
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        apply_overrides(tree, [f"{'.'.join(map(str, path))}={json.dumps(value, ensure_ascii=False)}"])
        assert tree == expected
        assert [type(v) for v in tree.values()] == [type(v) for v in expected.values()]

    check()


@AMOUNTS
def test_any_text_as_an_override_is_applied_or_refused(examples):
    @_settings(examples)
    @given(
        TREES,
        st.text(max_size=40) | st.from_regex(r"[a-z0-9_.]{0,12}=[\[\]{}(),:'\"!&*#=a-z0-9. -]{0,20}", fullmatch=True),
    )
    def check(tree, option):
        try:
            apply_overrides(tree, [option])
        except ConfigError as error:
            assert str(error).startswith(f"--opts {option}")
        json.dumps(tree)  # plain data

    check()


# ------------------------------------------------------------------------------------------------ list files

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters=" ,\t\r\n\0\\/\ufeff", exclude_categories=("Cs",)),
    min_size=1,
    max_size=10,
)


@AMOUNTS
def test_a_list_gives_back_its_pairs(tmp_path, examples):
    @_settings(examples)
    @given(
        st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=6),
        st.sampled_from([" ", ",", "\t"]),
        st.sampled_from(["\n", "\r\n", "\r"]),
        st.booleans(),
        st.sampled_from(["", "  ", "\t"]),
    )
    def check(pairs, separator, end, mark, blank):
        lines = [f"{blank}{image}{separator}{label}{blank}{end}{blank}{end}" for image, label in pairs]
        (tmp_path / "list.txt").write_bytes((b"\xef\xbb\xbf" if mark else b"") + "".join(lines).encode())
        found = read_list(tmp_path / "list.txt", tmp_path, separator)
        assert found == [(tmp_path / image, tmp_path / label) for image, label in pairs]

    check()


@AMOUNTS
def test_any_bytes_as_a_list_are_read_or_refused(tmp_path, examples):
    @_settings(examples)
    @given(
        st.binary(max_size=60) | st.text(st.sampled_from("ab. ,\t\r\n\0é/\\"), max_size=40).map(str.encode),
        st.booleans(),
    )
    def check(content, labelled):
        (tmp_path / "list.txt").write_bytes(content)
        try:
            for image, label in read_list(tmp_path / "list.txt", tmp_path, labelled=labelled):
                assert image.is_absolute() and (label is not None or not labelled)
        except DataError as error:
            assert "list.txt" in str(error)

    check()


# ------------------------------------------------------------------------------------------------ merge

MAPPINGS = st.recursive(
    st.dictionaries(KEYS, st.integers(0, 9), max_size=3),
    lambda inner: st.dictionaries(KEYS, inner | LEAVES, max_size=3),
    max_leaves=8,
)


def _leaves(tree: dict, path=()) -> dict:
    """Path -> value of everything that is not a mapping with something in it."""
    found = {}
    for key, value in tree.items():
        found |= _leaves(value, (*path, key)) if isinstance(value, dict) and value else {(*path, key): value}
    return found


def _expected(child: dict, base: dict) -> dict:
    """Leaves of the merged tree, from the leaves of both: the child's, and the base's where the child has nothing."""
    ours, theirs = _leaves(child), _leaves(base)

    def below(path, paths):
        return any(len(other) > len(path) and other[: len(path)] == path for other in paths)

    kept = {path: value for path, value in ours.items() if value != {} or not below(path, theirs)}
    for path, value in theirs.items():
        over = [other for other in ours if path[: len(other)] == other and ours[other] != {}]
        if not over and not below(path, ours) and not _leaf_over(path, theirs, ours):
            kept.setdefault(path, value)
    return kept


def _leaf_over(path, theirs, ours) -> bool:
    """An empty mapping of the child where the base has a plain value replaces it."""
    return ours.get(path) == {} and not isinstance(theirs[path], dict)


@AMOUNTS
def test_merge_keeps_what_the_child_does_not_say(tmp_path, examples):
    @_settings(examples)
    @given(MAPPINGS, MAPPINGS)
    def check(child, base):
        before = copy.deepcopy((child, base))
        merged = merge(child, base)
        assert _leaves(merged) == _expected(child, base)
        assert (child, base) == before, "an argument was changed"
        (tmp_path / "base.yml").write_text(to_yaml(base) if base else "{}")
        (tmp_path / "child.yml").write_text("_base_: base.yml\n" + (to_yaml(child) if child else ""))
        assert read_config(tmp_path / "child.yml") == merged
        alone = {**child, "_inherited_": False}
        assert merge({"model": alone}, {"model": base}) == {"model": child}

    check()


# ------------------------------------------------------------------------------------------------ sizes

SIDES = st.integers(1, 40)
LONG_SIDES = SIDES | st.integers(1, 400)
PADDED = -1.0


def _numbered(rows, columns):
    """A sample whose image says in each pixel where it was, and whose label follows from that."""
    row, column = np.mgrid[:rows, :columns].astype(np.float32)
    image = np.stack([row, column, np.zeros_like(row)], axis=2)
    return {"img": image, "label": _label_of(image), "gt_fields": ["label"], "trans_info": []}


def _label_of(image):
    return ((image[..., 0] * 7 + image[..., 1] * 3) % 200).astype(np.uint8)


@AMOUNTS
def test_a_crop_is_a_window_and_its_padding_lies_behind(examples):
    @_settings(examples)
    @given(SIDES, SIDES, SIDES, SIDES, st.booleans(), st.sampled_from([1.0, 0.75, 0.01]), st.integers(0, 2**31))
    def check(rows, columns, width, height, pads, share, seed):
        np.random.seed(seed)
        if pads:
            crop = T.RandomPaddingCrop([width, height], im_padding_value=PADDED, category_max_ratio=share)
        else:
            crop = T.RandomCrop([width, height], category_max_ratio=share)
        found = crop(_numbered(rows, columns))
        image, label = found["img"], found["label"]
        inside = (min(rows, height), min(columns, width))
        assert image.shape == (*((height, width) if pads else inside), 3) and label.shape == image.shape[:2]
        window = image[: inside[0], : inside[1]]
        top, left, _ = window[0, 0].astype(int)
        assert 0 <= top <= rows - inside[0] and 0 <= left <= columns - inside[1]
        whole = _numbered(rows, columns)["img"]
        np.testing.assert_array_equal(window, whole[top : top + inside[0], left : left + inside[1]])
        np.testing.assert_array_equal(label[: inside[0], : inside[1]], _label_of(window))
        for outside in (np.s_[inside[0] :, :], np.s_[:, inside[1] :]):
            assert (image[outside] == PADDED).all() and (label[outside] == 255).all()

    check()


FRAMES = st.lists(SIDES, min_size=2, max_size=2)
RESIZES = (
    st.builds(T.ResizeToFit, FRAMES)
    | st.builds(T.ResizeToFit, FRAMES, st.sampled_from([[0.01, 0.02], [0.5, 2.0]]))
    | st.builds(T.ResizeByShort, SIDES | st.lists(SIDES, min_size=1, max_size=3), st.sampled_from([1, 7, 50, 1e10]))
    | st.builds(T.RandomScaleAspect, scale_range=st.sampled_from([[0.01, 0.02], [0.5, 2.0]]))
)


@AMOUNTS
def test_resizing_and_padding_are_taken_back(examples):
    """Also of pictures that are one pixel wide; what is predicted for each must be of the picture's size again."""

    @_settings(examples)
    @given(LONG_SIDES, LONG_SIDES, st.lists(RESIZES, min_size=1, max_size=2), st.booleans(), st.integers(0, 2**31))
    def check(rows, columns, resizes, pads, seed):
        if rows * columns > 4000:
            columns = max(1, 4000 // rows)  # thin ones are the hard ones
        random.seed(seed)
        np.random.seed(seed)
        data = _numbered(rows, columns)
        data["img"][:] = [3, 50, 200]
        values = set(np.unique(data["label"]))
        for resize in resizes:
            if max(data["img"].shape) > 2000:
                break
            data = resize(data)
            sides = data["img"].shape[:2]
            assert min(sides) >= 1 and data["label"].shape == sides and set(np.unique(data["label"])) <= values
            if isinstance(resize, T.ResizeByShort):
                assert max(sides) <= resize.max_size and min(sides) <= max(resize.short_sizes)
        if pads:
            height, width = data["img"].shape[:2]
            data = Padding([width + 5, height + 3])(data)
        logits = paddle.to_tensor(data["img"].transpose(2, 0, 1)[None].copy())
        taken_back = restore(logits, data["trans_info"]).numpy()
        assert taken_back.shape == (1, 3, rows, columns)
        np.testing.assert_allclose(taken_back, np.array([3, 50, 200])[None, :, None, None] + 0 * taken_back, atol=1e-3)

    check()
