"""Studies of trade-offs, ranges, blocks, radix points and few bits: what they count and draw, checked by hand."""

from __future__ import annotations

import contextlib
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, of the extra `lab`")
pytest.importorskip("matplotlib", reason="pictures need the extra `lab`")
pytest.importorskip("typer", reason="the command line needs the extra `lab`")
from typer.testing import CliRunner

import ulpgrad as ug
from ulpgrad import nn, ops, optim
from ulpgrad.bench import energy, ledger, pictures
from ulpgrad.bench.data import coriolanus
from ulpgrad.bench.lab import NotRun, Plot, Results, Run
from ulpgrad.bench.peers import recorded
from ulpgrad.bench.studies import dorefa, dynamic_fixed, mx, range as ranges, tradeoff
from ulpgrad.bench.studies.mx import transformer
from ulpgrad.bench.studies.tradeoff import costs
from ulpgrad.bench.studies.tradeoff.schemes import SCHEMES, as_sent
from ulpgrad.cli.app import app
from ulpgrad.errors import FormatError
from ulpgrad.formats import Affine, Q, as_format, float16, float32, int8, int32
from ulpgrad.policy import dorefa as quantisers

# Energy


def test_published_energies_come_back() -> None:
    assert energy.add(float16) == pytest.approx(0.4)
    assert energy.add(float32) == pytest.approx(0.9)
    assert energy.multiply(float16, float16) == pytest.approx(1.1)
    assert energy.multiply(float32, float32) == pytest.approx(3.7)
    assert energy.add(int8) == pytest.approx(0.03)
    assert energy.add(int32) == pytest.approx(0.1)
    assert energy.multiply(int8, int8) == pytest.approx(0.2)
    assert energy.multiply(Q(15, 16), Q(0, 31)) == pytest.approx(3.1)
    assert energy.move(64) == 100
    assert energy.move(64, "DRAM") == 1300


def test_energies_between_the_published_ones_grow_with_the_digits() -> None:
    forms = [
        as_format(n)
        for n in ("float4_e2m1fn", "float8_e5m2", "float8_e4m3fn", "bfloat16", "float16", "float32", "float64")
    ]
    costs_of = [energy.multiply(f, f) for f in forms]
    assert sorted(costs_of) == costs_of
    assert costs_of[0] < costs_of[2]
    e4m3, e5m2 = forms[2], forms[1]
    between = sorted([energy.multiply(e4m3, e4m3), energy.multiply(e4m3, e5m2), energy.multiply(e5m2, e5m2)])[1]
    assert between == energy.multiply(e4m3, e5m2) == energy.multiply(e5m2, e4m3)


def test_blocks_cost_their_elements_and_a_share_of_the_scale() -> None:
    form = as_format("mxfp4_e2m1")
    assert energy.stored_bits(form) == 4.25
    assert energy.stored_bits(Q(7, 8)) == 16
    assert energy.stored_bits(Affine("int8", 0.5)) == 8
    assert energy.multiply(form, form) == pytest.approx(energy.multiply(form.element, form.element) + 0.03 / 32)
    with pytest.raises(FormatError, match="energy: bool"):
        energy.add(as_format("bool"))


# Counting


def test_work_is_counted_in_the_graph() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    loss = ug.cross_entropy(model(ug.ones((5, 4))), ug.zeros(5, dtype=ug.int64))
    found = ledger.work(loss, model, optim.SGD(model.parameters(), lr=0.1))
    assert found.weights == 4 * 8 + 8 + 8 * 3 + 3
    assert found.forward == found.backward_w == 5 * (4 * 8 + 8 * 3)
    assert found.backward_x == 5 * 8 * 3  # nobody asks for the gradient of the input
    assert found.errors == 5 * (8 + 3)
    assert found.activations == 5 * 4 + 5 * 8 + 5 * 3 + 5  # input, hidden, logits, log-sum-exp
    assert found.operations == 2 * found.products + found.other + found.update


def test_work_of_convolutions() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(48, 2))
    loss = ug.cross_entropy(model(ug.ones((5, 2, 4, 4))), ug.zeros(5, dtype=ug.int64))
    found = ledger.work(loss, model, optim.SGD(model.parameters(), lr=0.1))
    assert found.forward == 5 * (16 * 3 * 2 * 9 + 48 * 2)
    assert found.errors == 5 * (48 + 2)


def test_a_ring_sends_nearly_everything_twice() -> None:
    assert ledger.ring_all_reduce(1000, 1) == 0
    assert ledger.ring_all_reduce(1000, 2) == 1000
    assert ledger.ring_all_reduce(1000, 8) == 1750


def test_costs_of_float32_are_those_of_the_ledger() -> None:
    model = tradeoff.network("digits")
    x, y = tradeoff.DATA["digits"]("train")[:20]
    loss = ops.cross_entropy(model(x), y)
    kept = costs.kept(SCHEMES["float32"], tradeoff.work("digits", 20))
    assert kept["weight_bytes"] == sum(p.nbytes for p in model.parameters())
    assert kept["activation_bytes"] == ledger.activations(loss, model) - y.nbytes
    assert kept["exchange_bytes"] == 1.75 * kept["weight_bytes"]


def test_fewer_bits_cost_less() -> None:
    work = tradeoff.work("digits", 20)
    found = {name: costs.figures(scheme, work) for name, scheme in SCHEMES.items()}
    for cheap, dear in (("bfloat16", "float32"), ("fp8-hybrid", "bfloat16"), ("mxfp6", "mxfp8"), ("mxfp4", "mxfp6")):
        for figure in ("energy", "activation_bytes", "gradient_bytes", "exchange_bytes"):
            assert found[cheap][figure] < found[dear][figure]
    assert found["bfloat16-pure"]["weight_bytes"] * 3 == found["bfloat16"]["weight_bytes"]  # no master


# Trade-offs


def test_front_keeps_what_nothing_beats() -> None:
    points = [(1.0, 5.0), (2.0, 6.0), (2.0, 3.0), (3.0, 3.0), (4.0, 1.0)]
    assert tradeoff.front(points) == [(1.0, 5.0), (2.0, 3.0), (4.0, 1.0)]


def test_sent_gradients_lie_on_the_grid_with_their_largest_kept() -> None:
    g = ug.asarray(np.random.default_rng(0).normal(size=(7, 40)).astype(np.float32) * 1e-6)
    for form in (as_format("float8_e5m2"), Q(0, 7)):
        sent = as_sent(g, form).numpy()
        scale = form.max / np.abs(g.numpy()).max()
        assert np.abs(sent).max() == pytest.approx(np.abs(g.numpy()).max(), rel=1e-6)
        np.testing.assert_allclose(form.exact(form.encode(sent * scale)), sent * scale, rtol=1e-6)
    blocks = as_format("mxfp8_e5m2")
    np.testing.assert_array_equal(as_sent(g, blocks).numpy(), blocks.exact(blocks.encode(g.numpy())))
    assert as_sent(ug.zeros(3), Q(0, 7)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_learns_a_little(name: str) -> None:
    """Six steps bring the loss of their batch down, in all but 2 bits."""
    ug.manual_seed(0)
    model = tradeoff.network("digits")
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    x, y = tradeoff.DATA["digits"]("train", standardize=True)[:50]
    stepper = SCHEMES[name].make(0)
    losses = []
    for _ in range(6):
        with stepper.policy or contextlib.nullcontext():
            losses.append(stepper(model, optimizer, x, y))
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.05 or name == "int2"


# Ranges


def test_histograms_count_by_binade() -> None:
    found = ranges.histogram([np.array([0.0, 1.0, -1.5, 0.5]), np.array([2.0**-30, 2.0**-100])])
    counts = dict(zip(range(ranges.LOW, ranges.HIGH), found["counts"], strict=True))
    assert {k: n for k, n in counts.items() if n} == {0: 2, -1: 1, -30: 1, ranges.LOW: 1}
    assert found["zeros"] == pytest.approx(1 / 6)
    assert ranges.span(found, 1.0) == 65


def test_reach_of_formats() -> None:
    values = 2.0 ** np.arange(-30.0, 10.0)  # one in each of forty binades
    found = ranges.histogram([values])
    zero, subnormal, over = ranges.reach(found, as_format("float16"))
    assert zero == pytest.approx(5 / 40)  # 2^-30 to 2^-26; 2^-25 is half the smallest value
    assert subnormal == pytest.approx(11 / 40)
    assert over == 0
    assert ranges.reach(found, as_format("float8_e4m3fn"))[2] == pytest.approx(1 / 40)  # 2^9; 448 < 512
    assert ranges.reach(found, Q(0, 15)) == pytest.approx((14 / 40, 0, 10 / 40))


def test_numbers_are_all_there_and_gradients_are_left_as_they_were() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    found = ranges.numbers(model, ug.ones((5, 2, 2)), ug.zeros(5, dtype=ug.int64))
    assert [a.size for a in found["weights"]] == [a.size for a in found["gradients"]] == [12, 3, 6, 2]
    assert [a.shape for a in found["activations"][1:]] == [a.shape for a in found["errors"]] == [(5, 3), (5, 3), (5, 2)]
    assert all(p.grad is None for p in model.parameters())


# Pictures


def test_magnitudes_are_those_of_the_format() -> None:
    assert pictures.magnitudes(as_format("float4_e2m1fn")).tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert len(pictures.magnitudes(as_format("float8_e4m3fn"))) == 127
    assert pictures.magnitudes(Q(1, 2)).tolist() == [i / 4 for i in range(8)]
    with pytest.raises(FormatError, match="at most 16"):
        pictures.magnitudes(float32)


def test_stairs_are_distances_between_codes() -> None:
    for name in ("float8_e4m3fn", "float6_e3m2fn", "float16"):
        form = as_format(name)
        values = pictures.magnitudes(form)
        x, y = pictures.staircase(form)
        at = np.searchsorted(x, values[1:-1], side="right") - 1
        np.testing.assert_array_equal(np.diff(values)[1:], y[at])


@pytest.mark.parametrize("picture", pictures.pictures(), ids=lambda p: p.name)
def test_pictures_stand_alone_and_repeat(picture: pictures.Picture) -> None:
    text = picture.file()
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"(href|url\()\W*(?!#)\w+:", text)
    for variable in set(re.findall(r"var\((--\w+)\)", text)):
        assert f"{variable}:" in text, f"{variable} has no colour"
    assert picture.file() == text


def test_pictures_are_those_of_the_documents() -> None:
    """Each is kept, no other, with the colours of light and dark (the bytes follow matplotlib's version)."""
    kept = Path(__file__).parent.parent / "docs" / "pictures"
    drawn = [*pictures.pictures(), *recorded.pictures()]
    assert {p.name for p in kept.iterdir()} == {f"{p.name}.svg" for p in drawn}
    colours = re.search(r"<style>.*?</style>", pictures.pictures()[0].file())
    assert colours is not None
    assert "--ink:#1b1f24" in colours[0].split("@media")[0]
    assert "--ink:#e6e9ed" in colours[0].split("@media")[1]
    assert all(colours[0] in p.read_text() for p in kept.iterdir())


def test_a_picture_of_a_block_needs_a_block() -> None:
    with pytest.raises(FormatError, match="expected a block format"):
        pictures.block("float16")


# A writer of text


def test_text_and_its_windows() -> None:
    assert len(coriolanus()) == 98127
    learned, held_out, letters = transformer.codes()
    assert len(letters) == 61
    assert len(learned) + len(held_out) == 98127
    given, wanted = transformer.windows(learned, 7)
    assert given.shape == wanted.shape == ((len(learned) - 8) // 64, 64)
    np.testing.assert_array_equal(given.ravel()[1:], wanted.ravel()[:-1])
    assert given[0, 0] == learned[7]


def test_the_writer_does_not_see_what_comes() -> None:
    ug.manual_seed(0)
    model = transformer.Writer(61)
    text = np.random.default_rng(0).integers(0, 61, size=(2, 64))
    before = model(ug.asarray(text)).detach().numpy()
    text[:, 40:] = 0
    after = model(ug.asarray(text)).detach().numpy()
    np.testing.assert_array_equal(before[:, :40], after[:, :40])
    assert not np.array_equal(before[:, 40:], after[:, 40:])


def test_an_untrained_writer_knows_nothing() -> None:
    ug.manual_seed(0)
    learned, _, letters = transformer.codes()
    assert transformer.bits(transformer.Writer(len(letters)), learned[:1000]) == pytest.approx(math.log2(61), abs=0.5)


def test_bits_are_compared_seed_by_seed() -> None:
    bits = {"float32": (2.0, 3.0, 4.0), "mxfp4_e2m1": (2.5, 3.25, 4.75), "mxfp8_e4m3": (2.0, 3.125, 4.0)}
    results = Results([
        {"row": row, "label": row, "seed": seed, "bits": b, "held_out_bits": [b], "training_bits": [b]}
        for row, values in bits.items() for seed, b in enumerate(values)
    ])  # fmt: skip
    assert mx.beyond(results, "mxfp4_e2m1").values == (0.5, 0.25, 0.75)
    assert "+0.500 ± 0.621" in mx.formats_by_rules(results)[1]
    assert "What each" in Plot("What each format costs", mx.grid).html(results, "grid")
    with pytest.raises(NotRun):
        mx.beyond(results, "mxint8")


def test_every_layer_of_the_writer_is_in_blocks() -> None:
    model = transformer.Writer(61)
    policy = mx.policy("mxfp8_e4m3")
    with policy.inspect() as seen, policy:
        transformer.loss(model, ug.zeros((2, 64), dtype=ug.int64), ug.zeros((2, 64), dtype=ug.int64)).backward()
    assert {r.format for r in seen} == {"mxfp8_e4m3"}
    assert {r.role for r in seen} == {"weight", "activation", "gradient"}
    assert len({r.where for r in seen if r.role == "weight"}) == 4 * transformer.LAYERS + 1


# Few bits


def test_first_and_last_layer_are_left_alone() -> None:
    ug.manual_seed(0)
    model = dorefa.network("digits")
    policy = dorefa.policy(1, 2, 6, 0).bind(model)
    x = given = ug.rand(4, 1, 8, 8)
    with ug.no_grad(), policy:
        found = model(given).numpy()
    products = [i for i, part in enumerate(model.children()) if isinstance(part, nn.Conv2d | nn.Linear)]
    assert products == [int(dorefa.FIRST), 3, 7, 11, int(dorefa.LAST)]
    with ug.no_grad():
        for i, part in enumerate(model.children()):
            if i in products[1:-1]:
                part.weight.storage[...] = quantisers.weight(1)(part.weight).numpy()
                x = quantisers.activation(2)(x)
            x = part(x)
    np.testing.assert_allclose(found, x.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dataset", "side"), [("digits", 8), ("mnist", 28)])
def test_the_network_of_few_bits_takes_both_data_sets(dataset: str, side: int) -> None:
    assert dorefa.network(dataset)(ug.rand(2, 1, side, side)).shape == (2, 10)


def test_where_the_points_stand() -> None:
    run = Run(row="dynamic", setting=dynamic_fixed.dynamic(), seed=0, epochs=1, batch_size=100, data="digits")
    found = dynamic_fixed.run(run)
    assert {dynamic_fixed.role(key) for key in found["radix"]} == set(dynamic_fixed.ROLES)
    assert all(-30 < m < 20 for m in found["radix"].values())


# The one that test_studies.py leaves to this file


def test_the_writer_is_studied_and_reported(tmp_path: Path) -> None:
    arguments = ["--quick", "--epochs", "1", "--rows", "float32", "--batch-size", "1000", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["study", "mx", *arguments])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "mx.html").read_text()
    assert text.count("<figure") == 2  # what compares formats is left out
    assert "http" not in text
    assert "nan" not in text.lower().split()
