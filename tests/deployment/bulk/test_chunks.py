# SPDX-License-Identifier: Apache-2.0
"""Chunks of lists, folders and Parquet files, and what a worker makes of them, compared with infer; without Ray."""

from paddle_dnl.cli import infer
from paddle_dnl.deployment.bulk.chunks import Plan, Source, unpack
from paddle_dnl.deployment.bulk.manifest import agree
from paddle_dnl.deployment.bulk.worker import ChunkWorker, WorkerSettings, forget_tries
from paddle_dnl.errors import DataError, UsageError

import cv2
import pyarrow as pa
import pytest
from pyarrow import parquet
from tiny_export import blocks, export_color_net

ENDINGS = (".png", ".jpg")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """An exported model, ten pictures of several sizes, their list, and infer's results of them."""
    root = tmp_path_factory.mktemp("work")
    export_color_net(root / "export")
    (root / "photos" / "more").mkdir(parents=True)
    names = [f"a{i}.png" for i in range(8)] + ["more/b.c.png", "more/d.jpg"]
    for i, name in enumerate(names):
        cv2.imwrite(str(root / "photos" / name), blocks(4, 8, 8 + i % 3, i)[0])
    (root / "photos" / "list.txt").write_text("\n".join(names))
    flags = ["--config", str(root / "export"), "--no_overlay", "--image_path"]
    assert infer.main([*flags, str(root / "photos"), "--save_dir", str(root / "infer")]) == 0
    return root


def _labels(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def _run(work, source, out, size=4, **more) -> list[dict]:
    settings = {"format": "png", "skip_bad": False, "batch_size": 1} | more
    worker = ChunkWorker(WorkerSettings(str(work / "export"), str(out), **settings))
    return [worker.run(unpack(packed)) for packed in Plan.of(source.chunks(size)).packed]


def _parquet(work, path, **columns):
    """Contents and names of the pictures as a Parquet file of row groups of four."""
    pictures = [work / "photos" / name for name in (work / "photos/list.txt").read_text().split()]
    content = {"jpeg": [picture.read_bytes() for picture in pictures], "id": [f"n/{p.stem}" for p in pictures]}
    content["path"] = [f"{work.name}/photos/{picture.relative_to(work / 'photos')}" for picture in pictures]
    parquet.write_table(pa.table(content | columns), path, row_group_size=4)
    return content["id"]


def test_results_of_folder_and_list_are_those_of_infer(work, tmp_path):
    wanted = _labels(work / "infer")
    assert len(wanted) == 10 and "b.c.png" in wanted
    for given in ("photos", "photos/list.txt"):
        out = tmp_path / given.replace("/", "_")
        reports = _run(work, Source(str(work / given), None, None, ENDINGS), out, 4, batch_size=2)
        assert [(r["done"], r["there"], r["error"]) for r in reports] == [(4, 0, None), (4, 0, None), (2, 0, None)]
        assert _labels(out) == wanted


def test_a_second_run_does_what_is_missing(work, tmp_path):
    source = Source(str(work / "photos"), None, None, ENDINGS)
    _run(work, source, tmp_path)
    (tmp_path / "a1.png").unlink()
    (tmp_path / "a5.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")}
    assert [(r["done"], r["there"]) for r in _run(work, source, tmp_path)] == [(1, 3), (1, 3), (0, 2)]
    assert _labels(tmp_path) == _labels(work / "infer")
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.parametrize("column", ["jpeg", "path"])
def test_parquet_in_and_out(work, tmp_path, column):
    file = work.parent / f"{column}.parquet"  # beside what the paths begin with
    names = _parquet(work, file)
    source = Source(str(file), column, "id", ENDINGS)
    wanted = {f"n/{name}": content for name, content in _labels(work / "infer").items()}
    _run(work, source, tmp_path / "png")
    assert _labels(tmp_path / "png") == wanted
    out = tmp_path / "shards"
    _run(work, source, out, format="parquet")
    shards = sorted(out.iterdir())
    assert [shard.name for shard in shards] == [f"part-00000{i}.parquet" for i in range(3)]
    rows = [row for shard in shards for row in parquet.read_table(shard).to_pylist()]
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert row["label"] == wanted[f"{row['name']}.png"]
        assert (row["height"], row["width"]) == cv2.imread(str(tmp_path / "png" / f"{row['name']}.png")).shape[:2]
    shards[1].unlink()
    assert [(r["done"], r["there"]) for r in _run(work, source, out, format="parquet")] == [(0, 4), (4, 0), (0, 2)]


def test_names_without_a_column_of_them(work, tmp_path):
    file = work.parent / "unnamed.parquet"
    _parquet(work, file)
    chunks = list(Source(str(file), "jpeg", None, ENDINGS).chunks(3))
    assert [len(chunk) for chunk in chunks] == [4, 4, 2] and chunks[1].names[0] == "unnamed_00000004"
    (chunk,) = Source(str(file), None, None, ENDINGS).chunks(100)
    assert chunk.names[8:] == [f"{work.name}/photos/more/b.c", f"{work.name}/photos/more/d"]


def test_bad_pictures(work, tmp_path):
    file = work.parent / "bad.parquet"
    _parquet(work, file)
    content = parquet.read_table(file).to_pydict()
    content["jpeg"][1], content["jpeg"][2] = content["jpeg"][1][:40], b""
    parquet.write_table(pa.table(content), file, row_group_size=10)
    source = Source(str(file), "jpeg", "id", ENDINGS)
    (report,) = _run(work, source, tmp_path / "strict", format="parquet")
    assert report["error"][0] == "DataError" and "bad.parquet: n/a1: " in report["error"][1]
    assert not list((tmp_path / "strict").iterdir())
    (report,) = _run(work, source, tmp_path / "out", format="parquet", skip_bad=True)
    assert (report["done"], report["unreadable"], report["error"]) == (8, 2, None) and len(report["messages"]) == 2
    names = parquet.read_table(tmp_path / "out/part-000000.parquet", columns=["name"]).to_pydict()["name"]
    assert names == [name for i, name in enumerate(content["id"]) if i not in (1, 2)]


WRONG = {
    "no file": (("nowhere.parquet", "jpeg", None), "nowhere.parquet: no such file"),
    "no Parquet": (("photos/list.txt", "jpeg", None), "is neither a Parquet file nor"),
    "no folder of Parquet": (("photos", "jpeg", None), "no Parquet file"),
    "no such column": (("a.parquet", "picture", None), "has no column 'picture', it has jpeg, id, path, number"),
    "a column of numbers": (("a.parquet", "number", None), "expected paths"),
    "no such names": (("a.parquet", "jpeg", "name"), "has no column 'name'"),
    "one name twice": (("a.parquet", "jpeg", "same"), "two pictures would both write x.png"),
    "one name twice, of paths": (("a.parquet", "path", "same"), "two pictures would both write x.png"),
    "a name that leads out": (("a.parquet", "jpeg", "out"), "'../x' cannot be the name of a result"),
    "damaged": (("b.parquet", "jpeg", None), "b.parquet: cannot be read as Parquet"),
    "nothing": (("nowhere", None, None), "no such image, folder or list"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_sources_are_one_line(work, kind):
    (path, *columns), text = WRONG[kind]
    _parquet(work, work / "a.parquet", number=list(range(10)), same=["x"] * 10, out=["../x"] * 10)
    (work / "b.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises((DataError, UsageError)) as error:
        list(Source(str(work / path), *columns, ENDINGS).chunks(4))
    assert text in str(error.value).replace(", same, out", "") and "\n" not in str(error.value)


def test_a_chunk_whose_process_dies_is_given_up(work, tmp_path, monkeypatch):
    source = Source(str(work / "photos/a1.png"), None, None, ENDINGS)

    def die(*_, **__):
        raise SystemExit  # ends the process without a report

    with monkeypatch.context() as patch:
        patch.setattr("paddle_dnl.deployment.bulk.worker.run_pipeline", die)
        for _ in range(3):
            with pytest.raises(SystemExit):
                _run(work, source, tmp_path)
    (report,) = _run(work, source, tmp_path)
    assert report["error"][0] == "ExportError" and "died 3 times" in report["error"][1]
    _run(work, source, tmp_path)  # a report was given, so the next run starts anew
    assert [path.name for path in tmp_path.iterdir()] == ["a1.png"]
    (tmp_path / ".chunk-000007.tries").touch()
    forget_tries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a1.png"]


def test_results_of_other_runs_are_not_mixed(tmp_path):
    agree(tmp_path, {"model": {"a": "1"}, "tile": "auto"})
    agree(tmp_path, {"model": {"a": "1"}, "tile": "auto"})
    with pytest.raises(UsageError, match="of another model; give another --save_dir"):
        agree(tmp_path, {"model": {"a": "2"}, "tile": "auto"})
    (tmp_path / "predict_dataset.json").write_text("[")
    with pytest.raises(UsageError, match="cannot be read"):
        agree(tmp_path, {})
