"""Safetensors: every format both ways, files the library reads and writes, damage named by its byte, no half files."""

import contextlib
import json
import os
import resource
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import DataError, FormatError
from ulpgrad.formats import ALL, bfloat16, float32, int64
from ulpgrad.io import atomic_write, load, load_metadata, save
from ulpgrad.tensor import Tensor

library = pytest.importorskip("safetensors.numpy")


def some(form, shape=(3, 4)):
    """A Tensor of every kind of code of a format."""
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (*shape, form.itemsize), dtype=np.uint8)
    if form.kind == "bool":
        raw &= 1
    return Tensor(np.frombuffer(raw.tobytes(), form.storage).reshape(shape).copy(), form)


def same(a, b):
    return a.dtype is b.dtype and a.shape == b.shape and a.storage.tobytes() == b.storage.tobytes()


@pytest.mark.parametrize("form", ALL, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (7,), (3, 4), (2, 3, 5)], ids=str)
def test_every_format_comes_back(tmp_path, form, shape):
    x = some(form, shape)
    save(tmp_path / "a", {"x": x})
    back = load(tmp_path / "a")
    assert list(back) == ["x"]
    assert same(back["x"], x)
    assert back["x"].storage.flags.writeable
    assert back["x"].storage.flags.aligned


def test_many_formats_in_one_file_with_metadata(tmp_path):
    tensors = {f"layer.{form.name}": some(form, (i + 1, 3)) for i, form in enumerate(ALL)}
    save(tmp_path / "a", tensors, {"epoch": "3", "näme": "ü ∑"})
    back = load(tmp_path / "a")
    assert back.keys() == tensors.keys()
    assert all(same(back[name], tensors[name]) for name in tensors)
    assert load_metadata(tmp_path / "a") == {"epoch": "3", "näme": "ü ∑"}
    save(tmp_path / "b", {})
    assert load(tmp_path / "b") == {}
    assert load_metadata(tmp_path / "b") == {}


def test_the_library_reads_ours(tmp_path):
    tensors = {form.name: some(form) for form in ALL if form.is_native}
    save(tmp_path / "a", tensors, {"k": "v"})
    theirs = library.load_file(tmp_path / "a")
    assert theirs.keys() == tensors.keys()
    for name, array in theirs.items():
        assert array.dtype == tensors[name].storage.dtype
        assert array.tobytes() == tensors[name].storage.tobytes()


def test_the_library_reads_our_bfloat16(tmp_path):
    from safetensors import deserialize

    x = some(bfloat16)
    save(tmp_path / "a", {"x": x})
    ((name, entry),) = deserialize((tmp_path / "a").read_bytes())
    assert (name, entry["dtype"], entry["shape"]) == ("x", "BF16", [3, 4])
    values = np.frombuffer(entry["data"], ml_dtypes.bfloat16).reshape(3, 4)
    assert values.tobytes() == x.numpy().tobytes()


def test_we_read_the_librarys(tmp_path):
    arrays = {form.name: some(form).storage for form in ALL if form is not bfloat16}
    library.save_file(arrays, tmp_path / "a", {"k": "v"})
    back = load(tmp_path / "a")
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[n].storage.view(np.uint8), arrays[n].view(np.uint8)) for n in arrays)
    assert load_metadata(tmp_path / "a") == {"k": "v"}


def test_we_write_what_the_library_writes(tmp_path):
    arrays = {form.name: some(form).storage for form in ALL if form is not bfloat16}
    library.save_file(arrays, tmp_path / "theirs")
    save(tmp_path / "ours", arrays)
    assert load(tmp_path / "ours").keys() == load(tmp_path / "theirs").keys()
    assert (tmp_path / "ours").stat().st_size == (tmp_path / "theirs").stat().st_size


def test_arrays_of_any_layout(tmp_path):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    arrays = {
        "transposed": base.T,
        "strided": base[::2, ::3],
        "reversed": base[::-1, ::-1],
        "broadcast": np.broadcast_to(base[:1], base.shape),
        "fortran": np.asfortranarray(base),
        "big": base.astype(">f4"),
        "bf": base.astype(ml_dtypes.bfloat16).T,
    }
    save(tmp_path / "a", arrays)
    for name, tensor in load(tmp_path / "a").items():
        assert np.array_equal(tensor.numpy().astype(np.float32), arrays[name].astype(np.float32)), name


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(FormatError, match="complex128"):
        save(tmp_path / "a", {"x": np.zeros(2, np.complex128)})
    with pytest.raises(FormatError, match="object"):
        save(tmp_path / "a", {"x": np.array([None])})
    with pytest.raises(DataError, match="strings"):
        save(tmp_path / "a", {3: np.zeros(2)})
    with pytest.raises(DataError, match="strings"):
        save(tmp_path / "a", {"x": np.zeros(2)}, {"epoch": 3})
    with pytest.raises(DataError, match="__metadata__"):
        save(tmp_path / "a", {"__metadata__": np.zeros(2)})
    with pytest.raises(DataError, match="no folder"):
        save(tmp_path / "missing" / "a", {"x": np.zeros(2)})
    with pytest.raises(DataError, match="folder"):
        save(tmp_path, {"x": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


# Damaged files


def write(path, header, values=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + values)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


DAMAGE = {
    "no values": ({"x": entry()}, b"", r"truncated.*end at byte \d+, the file at byte"),
    "short values": ({"x": entry()}, b"1234567", "truncated"),
    "long values": ({"x": entry()}, b"123456789", "belong to no tensor"),
    "hole": ({"x": entry(), "y": entry(offsets=(12, 20))}, bytes(20), r"byte \d+: 'y' leaves a hole"),
    "hole in front": ({"x": entry(offsets=(4, 12))}, bytes(12), "hole"),
    "overlap": ({"x": entry(), "y": entry(offsets=(4, 12))}, bytes(12), r"byte \d+: 'y' overlaps"),
    "same place": ({"x": entry(), "y": entry()}, bytes(8), "overlaps"),
    "wrong size": ({"x": entry(shape=(3,))}, bytes(8), "takes 12 bytes, the header gives it 8"),
    "backwards": ({"x": entry(offsets=(8, 0))}, bytes(8), "data_offsets"),
    "negative": ({"x": entry(shape=(-2,))}, bytes(8), "shape"),
    "not whole": ({"x": entry(shape=(2.0,))}, bytes(8), "shape"),
    "bool size": ({"x": entry("U8", (True,), (0, 1))}, bytes(1), "shape"),
    "three offsets": ({"x": entry(offsets=(0, 4, 8))}, bytes(8), "data_offsets"),
    "huge shape": ({"x": entry(shape=(2**40, 2**40), offsets=(0, 8))}, bytes(8), "takes"),
    "huge empty shape": ({"x": entry(shape=(2**62, 2**62, 0), offsets=(0, 0))}, b"", "NumPy holds no array"),
    "too many axes": ({"x": entry(shape=(1,) * 100 + (2,))}, bytes(8), "NumPy holds no array"),
    "unknown format": ({"x": entry("F4", (8,))}, bytes(8), "no format here for 'F4'"),
    "format not a name": ({"x": {**entry(), "dtype": 3}}, bytes(8), "no format here for 3"),
    "missing key": ({"x": {"dtype": "F32", "shape": [2]}}, bytes(8), "expected dtype, shape and data_offsets"),
    "entry not a map": ({"x": 5}, b"", "expected dtype, shape"),
    "metadata": ({"__metadata__": {"a": 1}}, b"", "strings to strings"),
    "metadata not a map": ({"__metadata__": "a"}, b"", "strings to strings"),
    "bool value": ({"x": entry("BOOL", (3,), (0, 3))}, b"\0\1\2", r"byte \d+: 'x' is BOOL"),
    "not a map": (b"[1, 2]", b"", "byte 8: the header begins with"),
    "not json": (b'{"x": oops}', b"", "byte 14: the header is not JSON"),
    "cut json": (b'{"x": {"dtype"', b"", r"byte \d+: the header is not JSON"),
    "not utf-8": (b'{"\xff": 1}', b"", "byte 10: the header is not UTF-8"),
    "duplicate": (b'{"x": 1, "x": 2}', b"", "'x' twice"),
    "endless number": (b'{"x": 1' + b"0" * 5000 + b"}", b"", "corrupt"),
    "deep": (b'{"x": ' + b"[" * 100_000, b"", "corrupt"),
    "empty header": (b"", b"", "byte 8"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(tmp_path, name):
    header, values, text = DAMAGE[name]
    write(tmp_path / "a", header, values)
    with pytest.raises(DataError, match=text) as caught:
        load(tmp_path / "a")
    assert str(tmp_path / "a") in str(caught.value)


def test_damage_before_the_header(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(DataError, match="No such file"):
        load(path)
    with pytest.raises(DataError, match="directory"):
        load_metadata(tmp_path)
    for raw in (b"", b"1234567"):
        path.write_bytes(raw)
        with pytest.raises(DataError, match="too short"):
            load(path)
    write(path, {}, length=2**63)
    with pytest.raises(DataError, match="byte 0"):
        load(path)
    write(path, {}, length=50)
    with pytest.raises(DataError, match="truncated at byte 10: the header reaches to byte 58"):
        load(path)
    path.write_bytes(b"\x80\x04\x95" + bytes(100))  # a pickle
    with pytest.raises(DataError, match="not safetensors"):
        load(path)


def test_every_cut_is_noticed(tmp_path):
    save(tmp_path / "a", {"x": np.arange(5.0), "y": np.ones((2, 2), np.int8)}, {"m": "n"})
    whole = (tmp_path / "a").read_bytes()
    for end in range(len(whole)):
        (tmp_path / "b").write_bytes(whole[:end])
        with pytest.raises(DataError):
            load(tmp_path / "b")


# Whole or not at all


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with contextlib.suppress(KeyError), atomic_write(path) as file:
        file.write(b"new")
        raise KeyError
    assert path.read_bytes() == b"old"
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with atomic_write(path, text=True) as file:
        file.write("ü\n")
    assert path.read_bytes() == "ü\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_and_links_stay(tmp_path):
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path)
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "b") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o640


def test_what_is_no_regular_file_is_written_to():
    with atomic_write(os.devnull) as file:
        file.write(b"x")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


FULL = textwrap.dedent("""
    import resource, signal, sys
    import numpy as np
    from ulpgrad.errors import DataError
    from ulpgrad.io import save
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    try:
        save(sys.argv[1], {"x": np.zeros(100_000)})
    except DataError as error:
        print(error)
""")


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
def test_no_room_leaves_no_half_file_and_the_old_one_intact(tmp_path):
    path = tmp_path / "a"
    for old in (None, {"y": np.arange(3.0)}):
        if old:
            save(path, old)
        before = path.read_bytes() if old else None
        done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True)
        assert "not written, the file is too large" in done.stdout
        assert ("unchanged" if old else "no half file") in done.stdout
        assert (path.read_bytes() if path.exists() else None) == before
        assert list(tmp_path.iterdir()) == ([path] if old else [])


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="needs /dev/full")
def test_a_full_disk_says_so(tmp_path, monkeypatch):
    """/dev/full stands in for the temporary file: every flush to it fails as on a full disk."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr("ulpgrad.io.atomic._beside", lambda target: "/dev/full")
    monkeypatch.setattr("ulpgrad.io.atomic.os.unlink", lambda name: None)
    with pytest.raises(DataError, match=r"the disk is full \(the file that was there is unchanged\)"):
        save(path, {"x": np.zeros(100_000)})
    assert path.read_bytes() == b"old"


def test_a_tensor_that_needs_a_gradient_is_saved_as_its_values(tmp_path):
    x = Tensor(np.ones(3, np.float32), float32).requires_grad_()
    save(tmp_path / "a", {"x": x, "i": Tensor(np.arange(2), int64)})
    back = load(tmp_path / "a")
    assert same(back["x"], x)
    assert not back["x"].requires_grad


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_8_bit_floats_travel_as_the_library_writes_them(name: str, tmp_path: Path) -> None:
    x = ug.asarray(np.arange(256, dtype=np.uint8)).storage
    save(tmp_path / "x.safetensors", {"x": ug.decode(x, name)})
    header = json.loads((tmp_path / "x.safetensors").read_bytes()[8:].split(b"}}")[0] + b"}}")
    assert header["x"]["dtype"] == {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}[name]
    back = load(tmp_path / "x.safetensors")["x"]
    assert back.dtype.name == name
    assert (back.storage == x).all()
