# SPDX-License-Identifier: Apache-2.0
"""The check of a dataset when something else than its files goes wrong: a reader is killed, or one rank of several fails."""

import logging
import os
import shutil
import signal
import threading

from paddle_dnl.data.checking import check, fingerprint
from paddle_dnl.data.checking.check import check_dataset
from paddle_dnl.data.checking.ranks import Ranks
from paddle_dnl.data.datasets import Dataset
from paddle_dnl.errors import DataError

import numpy as np
import pytest
from PIL import Image

COUNT = 40


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(COUNT):
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / f"a{i}.png")
        Image.fromarray(np.full((6, 8), i % 3, np.uint8)).save(folder / f"b{i}.png")
    (folder / "train.txt").write_text("".join(f"a{i}.png b{i}.png\n" for i in range(COUNT)))
    return folder


def _dataset(root, kind=Dataset):
    return kind("train", str(root), [], 3, train_path=str(root / "train.txt"))


# ------------------------------------------------------------------------------------------ killed readers


class _Killed(Dataset):
    """Its reader dies of one label, as it would of the kernel when memory runs out."""

    own = os.getpid()

    def map_label(self, label):
        if label[0, 0] == 2 and os.getpid() != self.own:
            os.kill(os.getpid(), signal.SIGKILL)
        return label


@pytest.mark.timeout(60)  # it once waited for ever
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_killed_reader_ends_the_check_with_advice(root, skip_bad):
    """It is no bad sample: nothing is skipped."""
    dataset = _dataset(root, _Killed)
    with pytest.raises(DataError, match=r"was killed.*memory.*of 40 are done.*fewer --num_workers"):
        check_dataset(dataset, "train_dataset", root.parent / "cache", num_workers=2, skip_bad=skip_bad)
    assert len(dataset) == COUNT and not (root.parent / "cache").exists()


def test_readers_in_processes_find_what_one_finds(root):
    """Also for a dataset that cannot be sent to another process."""

    class Local(Dataset):
        map_label = staticmethod(lambda label: label)

    Image.fromarray(np.full((6, 8), 77, np.uint8)).save(root / "b37.png")
    texts = []
    for workers in (0, 3):
        with pytest.raises(DataError, match=r"1 of 40 samples.*\n.*b37\.png: holds 77") as caught:
            check_dataset(_dataset(root, Local), "train_dataset", root.parent / "cache", num_workers=workers)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


# ------------------------------------------------------------------------------------------ several ranks


class _Ranks:
    """Two checks in two threads that meet in `gather`, as two processes do."""

    place = threading.local()

    def __init__(self, monkeypatch):
        self._meeting, self._given = threading.Barrier(2, timeout=30), [None, None]
        self._read = threading.local()
        from paddle_dnl.data.images.image_format import ImageFormat

        read = ImageFormat.read

        def fail_here(image_format, path, **limits):
            if os.path.basename(path) in self._read.unreadable:
                raise DataError(f"{path}: cannot be read (Input/output error)")
            return read(image_format, path, **limits)

        monkeypatch.setattr(ImageFormat, "read", fail_here)

    def check(self, datasets, unreadable, cache, on_one_machine=False, **more) -> list:
        """What each check returned or raised."""
        results: list = [None, None]

        def one(rank):
            def gather(value):
                self._given[rank] = value
                self._meeting.wait()
                given = list(self._given)
                self._meeting.wait()
                return given

            self._read.unreadable, _Ranks.place.rank = unreadable[rank], rank
            ranks = Ranks(gather, "node0", rank, 2) if on_one_machine else Ranks(gather)
            try:
                results[rank] = check_dataset(datasets[rank], "train_dataset", cache / str(rank), ranks=ranks, **more)
            except DataError as error:
                results[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    "first, second", [([], ["a5.png"]), ([], ["a3.png", "a1.png"]), (["a7.png", "a3.png"], ["a3.png"])]
)
def test_ranks_skip_what_one_of_them_cannot_read(root, monkeypatch, caplog, known, first, second):
    """Also when the other one knows the data from before, reads nothing and finds nothing."""
    cache = root.parent / "cache"
    if known:
        check_dataset(_dataset(root), "train_dataset", cache / "0")
    datasets, gone = [_dataset(root), _dataset(root)], {*second, *([] if known else first)}
    with caplog.at_level(logging.WARNING, "paddle_dnl"):
        found = _Ranks(monkeypatch).check(datasets, [first, second], cache, skip_bad=True)
    assert found == [len(gone)] * 2
    assert datasets[0].file_list == datasets[1].file_list and len(datasets[0]) == COUNT - len(gone)
    assert not gone & {os.path.basename(image) for image, _ in datasets[0].file_list}
    assert f"skipped {len(gone)} of 40 samples" in caplog.text and "Input/output error" in caplog.text


def test_ranks_refuse_together(root, monkeypatch):
    found = _Ranks(monkeypatch).check([_dataset(root), _dataset(root)], [[], ["a5.png"]], root.parent / "cache")
    assert str(found[0]) == str(found[1]) and "1 of 40 samples cannot be used" in str(found[0])
    assert "a5.png: cannot be read (Input/output error)" in str(found[0])


def test_ranks_that_see_other_files_are_refused(root, monkeypatch):
    """Position 5 would be another picture on the other rank, and with it what is skipped."""
    datasets = [_dataset(root), _dataset(root)]
    datasets[1].file_list = datasets[1].file_list[:-1]
    found = _Ranks(monkeypatch).check(datasets, [[], []], root.parent / "cache", skip_bad=True)
    assert all("do not see the same files (40, 39 samples)" in str(error) for error in found), found


def test_ranks_with_a_file_of_another_size_are_refused(root, tmp_path, monkeypatch):
    """Copies of a dataset that differ: the first file that does is named."""
    shutil.copytree(root, tmp_path / "other" / "data")
    with open(tmp_path / "other" / "data" / "b7.png", "ab") as file:
        file.write(b"more")
    datasets = [_dataset(root), _dataset(tmp_path / "other" / "data")]
    found = _Ranks(monkeypatch).check(datasets, [[], []], tmp_path / "cache", skip_bad=True)
    size = (root / "b7.png").stat().st_size
    says = f"{root}/b7.png has {size} bytes on rank 0 and {size + 4} on rank 1; give all of them the same data"
    assert all(says in str(error) for error in found), found


@pytest.mark.parametrize("unreadable", [[], ["a5.png"]])
def test_ranks_of_one_machine_read_a_share_each(root, monkeypatch, unreadable):
    """Each file once, and each rank has the counts of all, as one process has them."""
    monkeypatch.setattr(fingerprint, "PART", 3)  # 14 parts
    read, look = [], check._look_at
    monkeypatch.setattr(
        check,
        "_look_at",
        lambda dataset, place: read.append((_Ranks.place.rank, dataset.file_list[place][0])) or look(dataset, place),
    )
    alone = _dataset(root)
    _Ranks.place.rank = -1
    check_dataset(alone, "train_dataset", root.parent / "alone")
    datasets = [_dataset(root), _dataset(root)]
    read.clear()
    found = _Ranks(monkeypatch).check(
        datasets, [unreadable] * 2, root.parent / "cache", on_one_machine=True, skip_bad=True
    )
    assert found == [len(unreadable)] * 2
    assert len(read) == len({path for _, path in read}) == COUNT
    assert min(sum(rank == place for rank, _ in read) for place in (0, 1)) > 15
    assert datasets[0].file_list == datasets[1].file_list
    if not unreadable:
        for dataset in datasets:
            np.testing.assert_array_equal(dataset.statistics.digests, alone.statistics.digests)
            assert {**vars(dataset.statistics), "digests": 0} == {**vars(alone.statistics), "digests": 0}


def test_only_what_has_changed_is_read_again(root, monkeypatch):
    """Also in a list with another entry in front; the counts are those of reading everything."""
    cache = root.parent / "cache"
    check_dataset(_dataset(root), "train_dataset", cache)
    Image.fromarray(np.full((6, 8), 1, np.uint8)).save(root / "b2.png")
    for kind in "ab":
        (root / f"{kind}_new.png").write_bytes((root / f"{kind}0.png").read_bytes())
    text = (root / "train.txt").read_text()
    (root / "train.txt").write_text(f"a_new.png b_new.png\n{text}")
    read, look = [], check._look_at
    monkeypatch.setattr(
        check,
        "_look_at",
        lambda dataset, place: read.append(os.path.basename(dataset.file_list[place][0])) or look(dataset, place),
    )
    dataset, fresh = _dataset(root), _dataset(root)
    check_dataset(dataset, "train_dataset", cache)
    assert read == ["a_new.png", "a2.png"]
    check_dataset(fresh, "train_dataset", root.parent / "other")
    assert len(read) == 2 + COUNT + 1
    np.testing.assert_array_equal(dataset.statistics.digests, fresh.statistics.digests)
    assert {**vars(dataset.statistics), "digests": 0} == {**vars(fresh.statistics), "digests": 0}


@pytest.mark.parametrize("content", [b"", b"PK broken", "cut"])
def test_damaged_notes_only_cost_a_new_check(root, content):
    cache = root.parent / "cache"
    check_dataset(_dataset(root), "train_dataset", cache)
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-40] if content == "cut" else content)
    dataset = _dataset(root)
    check_dataset(dataset, "train_dataset", cache)
    assert dataset.statistics.images == COUNT
