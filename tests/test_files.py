"""Files of scores against the library itself: every format to every format, block borders, sparse output, bad files."""

import csv
import io
import json
import os
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

import softplex as sx
from softplex.files import SUFFIXES, FileError, Limits, Request, UsageError, apply_file
from softplex.files.selection import keep_largest

TINY = Limits(block=10, slab=1000, memory=1)


def weigh_with(chosen=sx.sparsemax, **keywords):
    return lambda scores, axis: chosen(scores, axis=axis, **keywords)


def run(source, output, chosen=sx.sparsemax, limits=TINY, **options):
    return apply_file(Request(weigh_with(chosen), Path(source), Path(output), limits=limits, **options))


def scores_of(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(scale=2.0, size=shape).astype(dtype)


def save(path, array):
    """Save a table of numbers in the format that the path's suffix names."""
    match path.suffix:
        case ".npy":
            np.save(path, array)
        case ".npz":
            np.savez(path, scores=array)
        case ".safetensors":
            save_file({"scores": array}, path)
        case ".parquet":
            pq.write_table(pa.table({f"c{index}": array[:, index] for index in range(array.shape[1])}), path)
        case ".csv":
            path.write_text("\n".join(",".join(map(repr, row)) for row in array.astype(float).tolist()) + "\n")
    return path


def load(path):
    """The one array or table of a dense result."""
    match path.suffix:
        case ".npy":
            return np.load(path)
        case ".npz":
            (name,) = (archive := np.load(path)).files
            return archive[name]
        case ".safetensors":
            (array,) = load_file(path).values()
            return array
        case ".parquet":
            return np.column_stack([column.to_numpy() for column in pq.read_table(path).columns])
    rows = list(csv.reader(io.StringIO(path.read_text())))
    return np.array(rows[1:] if rows[0][0] == "c0" else rows, dtype=np.float64)


def load_sparse(path, shape):
    """A sparse result of two axes as a dense array."""
    dense = np.zeros(shape)
    if path.suffix == ".csv":
        for line in csv.DictReader(io.StringIO(path.read_text())):
            dense[int(line["row"]), int(line["index"])] = float(line["weight"])
        return dense
    if path.suffix == ".parquet":
        for row, record in enumerate(pq.read_table(path).to_pylist()):
            dense[row, record["indices"]] = record["weights"]
        return dense
    parts = dict(np.load(path)) if path.suffix == ".npz" else load_file(path)
    assert tuple(parts["shape"]) == shape
    for row, (start, stop) in enumerate(zip(parts["indptr"], parts["indptr"][1:], strict=False)):
        dense[row, parts["indices"][start:stop]] = parts["weights"][start:stop]
    return dense


def leftovers(folder, *expected):
    return sorted(path.name for path in folder.iterdir() if path.name not in expected)


# ---- round trips


@pytest.mark.parametrize("output_suffix", SUFFIXES)
@pytest.mark.parametrize("source_suffix", SUFFIXES)
def test_every_format_to_every_format(tmp_path, source_suffix, output_suffix):
    scores = scores_of(23, 3)
    source, output = save(tmp_path / f"in{source_suffix}", scores), tmp_path / f"out{output_suffix}"
    before = source.read_bytes()

    summary = run(source, output)

    expected = sx.sparsemax(scores.astype(np.float64) if source_suffix == ".csv" else scores)
    result = load(output)
    np.testing.assert_array_equal(result.astype(expected.dtype), expected)
    if output_suffix != ".csv":
        assert result.dtype == expected.dtype
    assert (summary.rows, summary.entries, summary.nan_rows) == (23, 69, 0)
    assert source.read_bytes() == before
    assert leftovers(tmp_path, source.name, output.name) == []


@pytest.mark.parametrize("output_suffix", [".npz", ".safetensors", ".parquet", ".csv"])
@pytest.mark.parametrize("source_suffix", SUFFIXES)
def test_every_format_to_every_sparse_format(tmp_path, source_suffix, output_suffix):
    scores = scores_of(17, 4)
    source, output = save(tmp_path / f"in{source_suffix}", scores), tmp_path / f"out{output_suffix}"

    summary = run(source, output, sparse=True)

    expected = sx.sparsemax(scores.astype(np.float64) if source_suffix == ".csv" else scores)
    np.testing.assert_array_equal(load_sparse(output, (17, 4)).astype(expected.dtype), expected)
    assert 0 < summary.support == np.count_nonzero(expected) < expected.size
    assert leftovers(tmp_path, source.name, output.name) == []


@pytest.mark.parametrize("dtype", ["f8", ">f4", "f2", "i4", "u1", "?"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_dtypes_of_arrays(tmp_path, suffix, dtype):
    scores = scores_of(9, 4, dtype=np.float64).astype(dtype)
    run(save(tmp_path / f"in{suffix}", scores), tmp_path / f"out{suffix}")
    result, expected = load(tmp_path / f"out{suffix}"), sx.sparsemax(scores)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == expected.dtype


def test_bfloat16_stays_in_safetensors_and_widens_elsewhere(tmp_path):
    scores = scores_of(9, 4).astype(ml_dtypes.bfloat16)
    source = save(tmp_path / "in.safetensors", scores)
    expected = sx.sparsemax(scores)
    for suffix in SUFFIXES:
        run(source, tmp_path / f"out{suffix}")
        result = load(tmp_path / f"out{suffix}")
        np.testing.assert_array_equal(result.astype(expected.dtype), expected)
        assert result.dtype == {".safetensors": expected.dtype, ".csv": np.float64}.get(suffix, np.float32)


def test_several_arrays_keep_their_names_and_metadata(tmp_path):
    arrays = {
        "a": scores_of(5, 3),
        "b/c": scores_of(2, 3, 4, dtype=np.float16),
        "empty": scores_of(0, 3),
        "scalar": np.float64(3.0),
    }
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    save_file(arrays, tmp_path / "in.safetensors", metadata={"made": "here"})
    np.savez_compressed(tmp_path / "in.npz", **arrays)
    for source in ("in.safetensors", "in.npz"):
        for output in ("out.npz", "out.safetensors"):
            summary = run(tmp_path / source, tmp_path / output, force=True)
            assert (summary.arrays, summary.rows) == (4, 5 + 6 + 0 + 1)
            result = dict(np.load(tmp_path / output)) if output == "out.npz" else load_file(tmp_path / output)
            assert result.keys() == arrays.keys()
            for name, array in arrays.items():
                np.testing.assert_array_equal(result[name], sx.sparsemax(array))
                assert result[name].dtype == array.dtype
    run(tmp_path / "in.safetensors", tmp_path / "kept.safetensors")
    length = int.from_bytes((tmp_path / "kept.safetensors").read_bytes()[:8], "little")
    assert json.loads((tmp_path / "kept.safetensors").read_bytes()[8 : 8 + length])["__metadata__"] == {"made": "here"}


def test_one_array_of_several_by_key(tmp_path):
    arrays = {"a": scores_of(5, 3), "b": scores_of(4, 2)}
    np.savez(tmp_path / "in.npz", **arrays)
    run(tmp_path / "in.npz", tmp_path / "out.npy", key="b")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), sx.sparsemax(arrays["b"]))
    with pytest.raises(UsageError, match="has no array 'c'; it has a, b"):
        run(tmp_path / "in.npz", tmp_path / "other.npy", key="c")
    with pytest.raises(UsageError, match="choose with --key"):
        run(tmp_path / "in.npz", tmp_path / "other.npy")


def test_several_arrays_sparse(tmp_path):
    arrays = {"a": scores_of(5, 3), "b": scores_of(4, 2)}
    np.savez(tmp_path / "in.npz", **arrays)
    run(tmp_path / "in.npz", tmp_path / "out.npz", sparse=True)
    parts = np.load(tmp_path / "out.npz")
    for name, array in arrays.items():
        expected = sx.sparsemax(array)
        np.testing.assert_array_equal(parts[f"{name}.weights"], expected[expected != 0])
        np.testing.assert_array_equal(parts[f"{name}.indices"], np.nonzero(expected)[1])
        np.testing.assert_array_equal(np.diff(parts[f"{name}.indptr"]), np.count_nonzero(expected, axis=1))


# ---- axes, orders, block borders


@pytest.mark.parametrize("block", [1, 2, 7, 24, 25, 10_000])
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("order", ["C", "F"])
def test_axes_orders_and_block_borders(tmp_path, order, axis, block):
    scores = np.asarray(scores_of(5, 4, 6), order=order)
    np.save(tmp_path / "in.npy", scores)
    limits = Limits(block=block, slab=1000)
    run(tmp_path / "in.npy", tmp_path / "out.npy", axis=axis, limits=limits)
    run(tmp_path / "in.npy", tmp_path / "out.safetensors", axis=axis, limits=limits)
    run(tmp_path / "in.npy", tmp_path / "sparse.npz", axis=axis, limits=limits, sparse=True)
    expected = sx.sparsemax(scores, axis=axis)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    np.testing.assert_array_equal(load(tmp_path / "out.safetensors"), expected)
    parts = np.load(tmp_path / "sparse.npz")
    rows = np.moveaxis(expected, axis, -1).reshape(-1, expected.shape[axis])
    np.testing.assert_array_equal(parts["indptr"], [0, *np.count_nonzero(rows, axis=1).cumsum()])
    np.testing.assert_array_equal(parts["indices"], np.nonzero(rows)[1])
    np.testing.assert_array_equal(parts["weights"], rows[rows != 0])
    assert (tuple(parts["shape"]), int(parts["axis"])) == (scores.shape, axis % 3)


@pytest.mark.parametrize("block", range(1, 14))
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_block_borders_of_tables(tmp_path, suffix, block):
    scores = scores_of(13, 3, dtype=np.float64)
    source = save(tmp_path / f"in{suffix}", scores)
    seen = []
    summary = run(
        source,
        tmp_path / "out.npy",
        limits=Limits(block=block),
        progress=lambda done, total: seen.append((done, total)),
    )
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), sx.sparsemax(scores))
    assert summary.rows == 13
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] == (13 if suffix == ".parquet" else source.stat().st_size)
    assert seen == sorted(seen)


def test_an_axis_across_the_blocks(tmp_path):
    save(tmp_path / "in.npy", scores_of(50, 30))
    with pytest.raises(UsageError, match=r"axis 0 runs across the blocks .* choose a later axis"):
        run(tmp_path / "in.npy", tmp_path / "out.npy", axis=0)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(scores_of(50, 30)))
    with pytest.raises(UsageError, match=r"axis 1 runs across the blocks .* choose an earlier axis"):
        run(tmp_path / "fortran.npy", tmp_path / "out.npy", axis=1)
    with pytest.raises(UsageError, match="is in Fortran order and too large"):
        run(tmp_path / "fortran.npy", tmp_path / "out.csv", axis=0)
    for suffix in (".csv", ".parquet"):
        with pytest.raises(UsageError, match="axis 0 runs across the blocks of rows"):
            run(save(tmp_path / f"in{suffix}", scores_of(5, 3)), tmp_path / "out.npy", axis=0)
    assert not (tmp_path / "out.npy").exists()


def test_a_row_larger_than_memory(tmp_path):
    save(tmp_path / "in.npy", scores_of(1001))
    with pytest.raises(UsageError, match=r"a row along axis 0 has 1,001 entries, more than the 1,000"):
        run(tmp_path / "in.npy", tmp_path / "out.npy")
    for suffix in (".csv", ".parquet"):
        with pytest.raises(UsageError, match="more than the 1,000|longer than the 4,000"):
            run(save(tmp_path / f"in{suffix}", scores_of(2, 1001)), tmp_path / "out.npy")


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,), (0, 0), (3, 0, 2), ()])
@pytest.mark.parametrize("sparse", [False, True])
def test_empty_arrays_and_scalars(tmp_path, shape, sparse):
    scores = np.zeros(shape, np.float32)
    np.save(tmp_path / "in.npy", scores)
    run(tmp_path / "in.npy", tmp_path / "out.npz", sparse=sparse)
    parts = np.load(tmp_path / "out.npz")
    if not sparse:
        np.testing.assert_array_equal(parts["weights"], sx.sparsemax(scores))
        assert parts["weights"].shape == shape
        return
    rows = int(np.prod(shape[:-1], dtype=int))
    assert tuple(parts["shape"]) == (shape or (1,))
    np.testing.assert_array_equal(parts["indptr"], [0, 1] if shape == () else np.zeros(rows + 1))


@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_that_is_not_there(tmp_path, axis):
    save(tmp_path / "in.npy", scores_of(3, 3))
    with pytest.raises(UsageError, match=f"axis {axis} is out of bounds: allowed are -2 to 1"):
        run(tmp_path / "in.npy", tmp_path / "out.npy", axis=axis)


# ---- the largest weights


def test_keep_largest_of_ties_the_first():
    weights = np.array([[0.25, 0.25, 0.25, 0.25], [0.1, 0.3, 0.3, 0.3], [0.7, 0.0, 0.1, 0.2], [np.nan] * 4])[:, :, None]
    kept = keep_largest(weights, 2, renormalize=False)[:, :, 0]
    expected = [[0.25, 0.25, 0, 0], [0, 0.3, 0.3, 0], [0.7, 0, 0, 0.2], [np.nan] * 4]
    np.testing.assert_array_equal(kept, expected)
    scaled = keep_largest(weights, 2, renormalize=True)[:3, :, 0]
    np.testing.assert_allclose(scaled, [[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [7 / 9, 0, 0, 2 / 9]], rtol=1e-15)


@pytest.mark.parametrize("k", [1, 2, 5, 6, 99])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_top_k_against_sorting(tmp_path, k, sparse, dtype):
    scores = np.round(scores_of(40, 6)).astype(dtype)
    source, output = save(tmp_path / "in.safetensors", scores), tmp_path / "out.safetensors"
    run(source, output, sx.softmax, top_k=k, sparse=sparse)
    weights = np.asarray(sx.softmax(scores)).astype(np.float64)
    order = np.argsort(-weights, axis=1, kind="stable")[:, :k]
    expected = np.zeros_like(weights)
    np.put_along_axis(expected, order, np.take_along_axis(weights, order, axis=1), axis=1)
    result = load_sparse(output, (40, 6)) if sparse else load(output).astype(np.float64)
    np.testing.assert_array_equal(result, expected)


def test_top_k_that_makes_no_sense(tmp_path):
    save(tmp_path / "in.npy", scores_of(3, 3))
    with pytest.raises(UsageError, match="--top-k is 0"):
        run(tmp_path / "in.npy", tmp_path / "out.npy", top_k=0)
    with pytest.raises(UsageError, match="--renormalize goes with --top-k"):
        run(tmp_path / "in.npy", tmp_path / "out.npy", renormalize=True)


def test_nan_rows_stay_and_are_counted(tmp_path):
    scores = scores_of(20, 3)
    scores[[3, 11]], scores[7, 1] = np.nan, np.nan
    source = save(tmp_path / "in.npy", scores)
    assert run(source, tmp_path / "out.npy", top_k=1).nan_rows == 3
    result = np.load(tmp_path / "out.npy")
    np.testing.assert_array_equal(np.isnan(result).all(axis=1), np.isnan(scores).any(axis=1))
    assert np.count_nonzero(result[0]) == 1
    run(source, tmp_path / "out.npz", sparse=True)
    np.testing.assert_array_equal(np.isnan(load_sparse(tmp_path / "out.npz", (20, 3))), np.isnan(result))


# ---- tables


def test_a_csv_header_is_found_and_kept(tmp_path):
    (tmp_path / "in.csv").write_bytes(b'\xef\xbb\xbfa,"b, c",d\r\n1,2,3\r\n\r\n-inf,1e3, 4 \r\n')
    run(tmp_path / "in.csv", tmp_path / "out.csv")
    lines = list(csv.reader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert lines[0] == ["a", "b, c", "d"]
    np.testing.assert_array_equal(np.array(lines[1:], float), sx.sparsemax([[1, 2, 3], [-np.inf, 1e3, 4]]))
    run(tmp_path / "in.csv", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").column_names == ["a", "b, c", "d"]


def test_a_csv_header_of_numbers_must_be_named(tmp_path):
    (tmp_path / "in.csv").write_text("2019,2020\n1,2\n")
    assert run(tmp_path / "in.csv", tmp_path / "out.csv").rows == 2
    assert run(tmp_path / "in.csv", tmp_path / "out.csv", header=True, force=True).rows == 1
    assert (tmp_path / "out.csv").read_text().startswith("2019,2020\n")
    (tmp_path / "words.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FileError, match="row 1, column 1: 'a' is not a number"):
        run(tmp_path / "words.csv", tmp_path / "other.csv", header=False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a,b\n1,2\n3,x\n", r"row 3, column 2 \(b\): 'x' is not a number"),
        ("1,2\n3,\n", "row 2, column 2: '' is not a number"),
        ("1,2\n\n\n3,oops\n", "row 4, column 2: 'oops' is not a number"),
        ("1,2\n3\n", "row 2 has 1 cells, the first row 2"),
        ("1,b,3\n4,5,6\n", "row 1, column 2: 'b' is not a number .*--header"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ('1,2\n"3,4\n', "not readable as .csv"),
    ],
)
def test_a_bad_cell_is_named(tmp_path, text, problem):
    (tmp_path / "in.csv").write_text(text)
    with pytest.raises(FileError, match=problem):
        run(tmp_path / "in.csv", tmp_path / "out.csv")
    assert leftovers(tmp_path, "in.csv") == []


def test_a_bad_cell_far_down_leaves_nothing(tmp_path):
    (tmp_path / "in.csv").write_text("a,b\n" + "1,2\n" * 500 + "1,two\n")
    with pytest.raises(FileError, match=r"row 502, column 2 \(b\): 'two' is not a number"):
        run(tmp_path / "in.csv", tmp_path / "out.npz", sparse=True)
    assert leftovers(tmp_path, "in.csv") == []


def test_csv_that_is_no_text(tmp_path):
    (tmp_path / "in.csv").write_bytes(b"1,2\n3,\xff\xfe\n")
    with pytest.raises(FileError, match="not text in UTF-8"):
        run(tmp_path / "in.csv", tmp_path / "out.csv")


def test_csv_of_a_header_alone(tmp_path):
    (tmp_path / "in.csv").write_text("a,b\n")
    for suffix in SUFFIXES:
        assert run(tmp_path / "in.csv", tmp_path / f"out{suffix}").rows == 0
    assert (tmp_path / "out.csv").read_text() == "a,b\n"
    assert np.load(tmp_path / "out.npy").shape == (0, 2)


def test_parquet_keeps_the_columns_beside_the_scores(tmp_path):
    table = pa.table(
        {
            "id": ["x", "y", None],
            "a": pa.array([1.0, 2.0, 3.0], pa.float32()),
            "b": pa.array([1, 5, 2], pa.int64()),
            "ok": [True, False, True],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    run(tmp_path / "in.parquet", tmp_path / "out.parquet")
    result = pq.read_table(tmp_path / "out.parquet")
    expected = sx.sparsemax([[1.0, 1.0], [2.0, 5.0], [3.0, 2.0]])
    assert result.column_names == table.column_names
    assert result["id"].to_pylist() == ["x", "y", None]
    assert result["ok"].to_pylist() == [True, False, True]
    np.testing.assert_array_equal(np.column_stack([result["a"], result["b"]]), expected)
    assert result.schema.field("b").type == pa.float64()
    run(tmp_path / "in.parquet", tmp_path / "out.csv")
    lines = list(csv.reader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert lines[0] == table.column_names
    assert [line[0] for line in lines[1:]] == ["x", "y", ""]
    run(tmp_path / "in.parquet", tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


def test_parquet_that_cannot_be_weighed(tmp_path):
    pq.write_table(pa.table({"a": [1.0, 2.0, None], "b": [1.0, 2.0, 3.0]}), tmp_path / "hole.parquet")
    with pytest.raises(FileError, match=r"row 3, column 1 \(a\): the cell is empty"):
        run(tmp_path / "hole.parquet", tmp_path / "out.parquet", limits=Limits(block=2))
    pq.write_table(pa.table({"name": ["x"]}), tmp_path / "words.parquet")
    with pytest.raises(FileError, match="has no numeric column to weigh; its columns are name"):
        run(tmp_path / "words.parquet", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_too_many_axes_for_a_table(tmp_path):
    save(tmp_path / "in.npy", scores_of(2, 3, 4))
    with pytest.raises(UsageError, match=r"has shape \(2, 3, 4\), a table two axes"):
        run(tmp_path / "in.npy", tmp_path / "out.csv")
    run(tmp_path / "in.npy", tmp_path / "out.parquet", sparse=True)
    assert pq.read_metadata(tmp_path / "out.parquet").metadata[b"shape"] == b"2,3,4"
    np.testing.assert_array_equal(
        load_sparse(tmp_path / "out.parquet", (6, 4)), sx.sparsemax(scores_of(2, 3, 4)).reshape(6, 4)
    )


# ---- files that are wrong


def objects(path):
    np.save(path, np.array([1, "two", None], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lambda path: path.write_bytes(b""), "is not a readable .npy array"),
        (lambda path: path.write_bytes(b"nonsense, and more of it"), "is not a readable .npy array"),
        (
            lambda path: path.write_bytes(save(path, scores_of(9, 9)).read_bytes()[:-1]),
            "is cut off: 323 bytes .* takes 324",
        ),
        (lambda path: path.write_bytes(save(path, scores_of(9, 9)).read_bytes()[:60]), "is not a readable .npy array"),
        (lambda path: path.write_bytes(save(path, scores_of(9, 9)).read_bytes() + b"x"), "goes on after its array"),
        (objects, "holds Python objects, which are never unpickled"),
        (lambda path: np.save(path, np.array(["a", "b"])), "holds str.*, which cannot be weighed"),
        (lambda path: np.save(path, np.array([1j])), "holds complex128, which cannot be weighed"),
        (lambda path: np.save(path, np.zeros(3, np.longdouble)), "holds .*, which cannot be weighed"),
        (lambda path: np.save(path, np.zeros(3, "datetime64[s]")), "holds datetime64.*, which cannot be weighed"),
        (lambda path: np.save(path, np.zeros(3, [("a", "f4")])), "holds void32, which cannot be weighed"),
    ],
)
def test_bad_npy(tmp_path, content, problem):
    content(tmp_path / "in.npy")
    with pytest.raises(FileError, match=problem) as caught:
        run(tmp_path / "in.npy", tmp_path / "out.npy")
    assert str(tmp_path / "in.npy") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert leftovers(tmp_path, "in.npy") == []


def flipped_npz(path):
    save(path, scores_of(5000, 3))
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def npz_of_wrong_checksum(path):
    np.savez_compressed(path, scores=np.zeros((5000, 3)))
    with zipfile.ZipFile(path) as archive:
        (member,) = archive.infolist()
    checksum = member.CRC.to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(checksum, checksum[::-1]))


def object_npz(path):
    np.savez(path, good=scores_of(2, 2), bad=np.array([None]))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lambda path: path.write_bytes(b""), "is not a readable .npz archive"),
        (
            lambda path: path.write_bytes(save(path, scores_of(9, 9)).read_bytes()[:200]),
            "is not a readable .npz archive",
        ),
        (flipped_npz, "array 'scores': is not a readable .npz archive: Bad CRC-32"),
        (npz_of_wrong_checksum, "array 'scores': is not a readable .npz archive: Bad CRC-32"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "holds no array"),
        (object_npz, "array 'bad': holds Python objects"),
    ],
)
def test_bad_npz(tmp_path, content, problem):
    content(tmp_path / "in.npz")
    with pytest.raises(FileError, match=problem):
        run(tmp_path / "in.npz", tmp_path / "out.npz")
    assert leftovers(tmp_path, "in.npz") == []


def safetensors_bytes(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a .safetensors file, or cut off"),
        (b"\xff" * 20, "is not a .safetensors file, or cut off"),
        (safetensors_bytes(b"{no json"), "its header is not JSON"),
        (safetensors_bytes([1, 2]), "its header is not a JSON object"),
        (safetensors_bytes({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"), "is cut off"),
        (safetensors_bytes({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"), "is cut off"),
        (
            safetensors_bytes({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, b"12"),
            "holds F8_E4M3; allowed are F64",
        ),
        (safetensors_bytes({"a": {"dtype": "F32"}}), "lacks a dtype, a shape or data_offsets"),
        (safetensors_bytes({}), "holds no array"),
    ],
)
def test_bad_safetensors(tmp_path, content, problem):
    (tmp_path / "in.safetensors").write_bytes(content)
    with pytest.raises(FileError, match=problem):
        run(tmp_path / "in.safetensors", tmp_path / "out.npz")


def test_bad_parquet(tmp_path):
    for content in (b"", b"nonsense", save(tmp_path / "good.parquet", scores_of(9, 3)).read_bytes()[:-10]):
        (tmp_path / "in.parquet").write_bytes(content)
        with pytest.raises(FileError, match="in.parquet: is not a readable .parquet file"):
            run(tmp_path / "in.parquet", tmp_path / "out.npz")


# ---- outputs


def test_the_input_is_never_the_output(tmp_path):
    source = save(tmp_path / "in.npy", scores_of(3, 3))
    (tmp_path / "symbolic.npy").symlink_to(source)
    os.link(source, tmp_path / "hard.npy")
    for name in ("in.npy", "symbolic.npy", "hard.npy"):
        with pytest.raises(UsageError, match="is INPUT itself"):
            run(source, tmp_path / name, force=True)
    np.testing.assert_array_equal(np.load(source), scores_of(3, 3))


def test_an_existing_output_needs_force(tmp_path):
    source, output = save(tmp_path / "in.npy", scores_of(3, 3)), tmp_path / "out.npy"
    output.write_text("precious")
    output.chmod(0o640)
    with pytest.raises(UsageError, match="exists; add --force"):
        run(source, output)
    assert output.read_text() == "precious"
    run(source, output, force=True)
    np.testing.assert_array_equal(np.load(output), sx.sparsemax(scores_of(3, 3)))
    assert output.stat().st_mode & 0o777 == 0o640


def test_an_output_through_a_link_goes_to_its_target(tmp_path):
    source, target, link = save(tmp_path / "in.npy", scores_of(3, 3)), tmp_path / "target.npy", tmp_path / "link.npy"
    target.write_text("old")
    link.symlink_to(target)
    run(source, link, force=True)
    assert link.is_symlink()
    np.testing.assert_array_equal(np.load(target), sx.sparsemax(scores_of(3, 3)))


def test_outputs_that_cannot_be(tmp_path):
    source = save(tmp_path / "in.npy", scores_of(3, 3))
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(UsageError, match="is not a plain file"):
        run(source, tmp_path / "folder.npy", force=True)
    with pytest.raises(UsageError, match="the folder .* does not exist"):
        run(source, tmp_path / "nowhere" / "out.npy")
    with pytest.raises(UsageError, match="'?.txt'? is no known format; known are .npy"):
        run(source, tmp_path / "out.txt")
    with pytest.raises(UsageError, match="no suffix is no known format"):
        run(source, tmp_path / "out")
    with pytest.raises(UsageError, match=".npy holds one array"):
        run(source, tmp_path / "out.npy", sparse=True)
    with pytest.raises(FileError, match="does not exist"):
        run(tmp_path / "missing.npy", tmp_path / "out.npy")
    with pytest.raises(FileError, match="is not a plain file"):
        run(tmp_path / "folder.npy", tmp_path / "out.npy")
    with pytest.raises(UsageError, match="--key goes with"):
        run(source, tmp_path / "out.npy", key="a")
    with pytest.raises(UsageError, match="--header goes with"):
        run(source, tmp_path / "out.npy", header=True)


@pytest.mark.parametrize("output_suffix", [".npy", ".npz", ".safetensors", ".csv", ".parquet"])
@pytest.mark.parametrize(
    "failure", [KeyboardInterrupt, MemoryError, RuntimeError, OSError(28, "No space left on device")]
)
def test_a_failure_in_the_middle_leaves_the_old_output(tmp_path, output_suffix, failure):
    source, output = save(tmp_path / "in.npy", scores_of(50, 3)), tmp_path / f"out{output_suffix}"
    output.write_text("old")
    blocks = []

    def weigh(scores, axis):
        blocks.append(scores.shape)
        if len(blocks) == 5:
            raise failure
        return sx.sparsemax(scores, axis=axis)

    expected = FileError if isinstance(failure, OSError) else failure
    with pytest.raises(expected):
        apply_file(Request(weigh, source, output, force=True, limits=TINY))
    assert len(blocks) == 5
    assert output.read_text() == "old"
    assert leftovers(tmp_path, "in.npy", output.name) == []


def test_an_input_that_shrinks_while_it_is_read(tmp_path):
    source = save(tmp_path / "in.npy", scores_of(20_000, 3))

    def weigh(scores, axis):
        if scores.size:
            os.truncate(source, 200)
        return sx.sparsemax(scores, axis=axis)

    with pytest.raises(FileError, match="ends early"):
        apply_file(Request(weigh, source, tmp_path / "out.npy", limits=Limits(block=3000)))
    assert leftovers(tmp_path, "in.npy") == []
