"""Every convolution of published networks, forwards and both gradients, beside cuDNN in both of its layouts; and what they come
to over the whole network."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from ulpgrad import dispatch
from ulpgrad.bench.gpu import draw, rows
from ulpgrad.bench.gpu.networks import NETWORKS, Layer, Network, shrunk
from ulpgrad.bench.gpu.record import Record, told
from ulpgrad.bench.peers.work import OURS, Contender, Outcome, Target, Work, judge
from ulpgrad.formats import as_format
from ulpgrad.kernels import gpu, registry
from ulpgrad.kernels.conv import cuda_warpgroup, spec
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.spec import Op
from ulpgrad.tensor import Tensor

FORMS = ("bfloat16", "float32")
PASSES = ("forward", "input gradient", "weight gradient")
WHOLE = {"forward": PASSES[:1], "backward": PASSES[1:], "forward and backward": PASSES}
LAST, FIRST, FAST = "cuDNN channels last", "cuDNN NCHW", "cuDNN NCHW, TF32"  # where channels lie
TARGETS = (Target(1, FIRST), Target(0.5, LAST))  # over a whole network
FILTERS = 4  # of a weight gradient, that are held against float64
WITHIN = {"bfloat16": 1e-2, "float32": 1e-4}  # sums of half a million products, of which TF32 would be off by 3e-4


def passes(layer: Layer) -> tuple[str, ...]:
    return tuple(name for name in PASSES if not (layer.is_first and name == "input gradient"))


def at_hand(layer: Layer) -> Layer:
    """As large as the device can do it: an emulated one takes small ones."""
    return shrunk(layer, 16, 8) if gpu.mode() else layer


def op_of(layer: Layer, name: str) -> Op:
    """Which op makes a pass of a layer: those of a transposed convolution change places."""
    forward, back = spec.conv2d, spec.conv2d_input_gradient
    if layer.is_turned:
        forward, back = back, forward
    return {"forward": forward, "input gradient": back, "weight gradient": spec.conv2d_weight_gradient}[name]


class Problem:
    """A layer's operands on the device, channels last: images, filters and what comes back."""

    def __init__(self, layer: Layer, images: int, form: str) -> None:
        self.layer, self.form = layer, form
        c, o, k, side, positions = layer.channels, layer.outputs, layer.kernel, layer.side, layer.positions
        shapes = (images, side, side, c), (o, k, k, c), (images, positions, positions, o)
        self.tensors = tuple(
            draw.tensor(shape, form, seed, scale)
            for seed, (shape, scale) in enumerate(zip(shapes, (1.0, (k * k * c) ** -0.5, 1.0), strict=True))
        )
        self.x, self.weight, self.g = (Tensor(t.storage.transpose(0, 3, 1, 2), t.dtype) for t in self.tensors)
        self.geometry: dict[str, Any] = {
            "stride": (layer.stride,) * 2,
            "padding": (layer.padding,) * 2,
            "dilation": (1, 1),
            "groups": 1,
        }

    def request(self, op: Op) -> Request:
        operands: tuple[Tensor | None, ...]
        if op is spec.conv2d:
            operands, params = (self.x, self.weight, None), self.geometry
        elif op is spec.conv2d_input_gradient:
            operands, params = (self.g, self.weight), {**self.geometry, "size": self.x.shape[2:]}
        else:
            operands, params = (self.g, self.x), {**self.geometry, "size": self.weight.shape[2:]}
        formats = tuple(None if t is None else t.dtype for t in operands)
        return Request(op, "cuda", formats, tuple(None if t is None else t.storage for t in operands), params)

    def ours(self, op: Op, rung: str = "") -> tuple[Callable[[], Tensor], str]:
        """The call by a rung, or as dispatch makes it, and the rung that it takes."""
        r = self.request(op)
        with dispatch.use(**{op.name: rung} if rung else {}):
            plan = dispatch.make_plan(op, str(self.x.device), r.formats, r.arrays, dict(r.params))

        def call() -> Tensor:
            if rung:
                return Tensor(plan.run(*r.arrays, **r.params), plan.formats[0])
            storage, results = dispatch.call(op, r.formats, r.arrays, dict(r.params))
            return Tensor(storage, results[0])

        return call, plan.rung.name

    def theirs(self, t: Any, op: Op) -> list[tuple[str, Callable[[], Any], str]]:
        """torch's calls in each layout, and who makes them where it is not cuDNN. float32 is as exact as ours; a last one is
        torch's default, which keeps 10 bits of the operands."""
        laid = {LAST: [draw.to_torch(t, a).permute(0, 3, 1, 2) for a in self.tensors]}
        laid[FIRST] = [a.contiguous() for a in laid[LAST]]
        found = [(name, partial(self._torch, t, op, False, *arrays), arrays) for name, arrays in laid.items()]
        if self.form == "float32":
            found.append((FAST, partial(self._torch, t, op, True, *laid[FIRST]), laid[FIRST]))
        return [(name, call, self._backend(t, *arrays)) for name, call, arrays in found]

    def _torch(self, t: Any, op: Op, tf32: bool, x: Any, weight: Any, g: Any) -> Any:
        t.backends.cudnn.allow_tf32 = tf32
        stride, padding = list(self.geometry["stride"]), list(self.geometry["padding"])
        if op is spec.conv2d:
            return t.nn.functional.conv2d(x, weight, None, stride, padding)
        which = int(op is spec.conv2d_weight_gradient)
        wanted = [which == 0, which == 1, False]
        back = t.ops.aten.convolution_backward
        return back(g, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, wanted)[which]

    def _backend(self, t: Any, x: Any, weight: Any, _: Any) -> str:
        select = getattr(t._C, "_select_conv_backend", None)
        if select is None:
            return "torch does not say whether cuDNN makes it"
        name = str(select(x, weight, None, list(self.geometry["stride"]), list(self.geometry["padding"]), [1, 1], False,
                          [0, 0], 1)).rpartition(".")[2]  # fmt: skip
        return "" if name == "Cudnn" else f"torch takes {name}"

    def exact(self, op: Op) -> Any:
        """By the definition, in float64: the last image, or some filters."""
        xp, layer = gpu.xp(), self.layer
        k, s, p, positions = layer.kernel, layer.stride, layer.padding, layer.positions
        weight, wide = draw.exact(self.weight), layer.side + 2 * p
        inside = (Ellipsis, slice(p, p + layer.side), slice(p, p + layer.side))
        places = [
            (i, j, (Ellipsis, *(slice(t, t + s * (positions - 1) + 1, s) for t in (i, j))))
            for i, j in itertools.product(range(k), range(k))
        ]
        if op is spec.conv2d_input_gradient:
            g, dx = draw.exact(self.g)[-1], xp.zeros((layer.channels, wide, wide))
            for i, j, seen in places:
                dx[seen] += xp.einsum("oc,ohw->chw", weight[:, :, i, j], g)
            return draw.host(dx[inside])
        images = slice(-1, None) if op is spec.conv2d else slice(None)
        x = draw.exact(self.x)[images]
        padded = xp.zeros((*x.shape[:2], wide, wide))
        padded[inside] = x
        if op is spec.conv2d:
            return draw.host(
                sum(xp.einsum("oc,chw->ohw", weight[:, :, i, j], padded[0][seen]) for i, j, seen in places)
            )
        g = draw.exact(self.g)[:, self.filters]
        dw = xp.zeros((g.shape[1], layer.channels, k, k))
        for i, j, seen in places:
            dw[:, :, i, j] = xp.einsum("nohw,nchw->oc", g, padded[seen])
        return draw.host(dw)

    @property
    def filters(self) -> slice:
        return slice(0, self.layer.outputs, max(1, self.layer.outputs // FILTERS))

    def values(self, op: Op, out: Any) -> Any:
        """The part of a result that `exact` has."""
        return draw.host(draw.result(out)[self.filters if op is spec.conv2d_weight_gradient else -1])


def row(network: Network, form: str, layer: Layer, name: str, rung: str = "") -> Work:
    """A pass of a layer. A `rung` that is named is also beside the one that is taken otherwise."""
    title = f"{network.name} {form} {name}, {layer}{f' by {rung}' if rung else ''}"
    given, images = at_hand(layer), 2 if gpu.mode() else network.images
    problem, op, t = Problem(given, images, form), op_of(layer, name), draw.torch()
    amount, values = 2.0 * given.products * images, partial(problem.values, op)
    ours, taken = problem.ours(op, rung)
    peers: list[Contender] = []
    targets: tuple[Target, ...] = ()
    if rung:
        call, other = problem.ours(op)
        peers, targets = [Contender(other, call, amount, values)], (Target(1.2, other), Target(0.9, LAST))
    peers += [
        Contender(peer, call, amount, None if peer == FAST else values, note=note)
        for peer, call, note in (problem.theirs(t, op) if t is not None else ())
    ]
    return Work(title, Contender(OURS, ours, amount, values, note=taken), peers, "TFLOP/s", rows.TERA, rows.limit(form),
                targets, exact=lambda: problem.exact(op), within=WITHIN[form])  # fmt: skip


def unverified(names: Sequence[str], wanted: Sequence[str] = PASSES) -> Iterator[Callable[[], Work]]:
    """Layers by the rung that is not taken by itself before it has run on a GPU, where it can run and takes them."""
    form = FORMS[0]
    if cuda_warpgroup.FORWARD[as_format(form)][64].refusal() is not None:
        return
    for network in (NETWORKS[name] for name in names):
        for layer, name in itertools.product(network.layers, wanted):
            if name in passes(layer):
                op = op_of(layer, name)
                rung = next(rung for rung in registry.ladder(op, "cuda") if rung.name == rows.WARPGROUP)
                if rung.refusal(Problem(at_hand(layer), 1, form).request(op)) is None:
                    yield partial(row, network, form, layer, name, rows.WARPGROUP)


Found = dict[tuple[Layer, str], Outcome]


def whole(network: Network, form: str, over: str, found: Found) -> Outcome:
    """All layers as often as they occur, in images a second: from the median times of each. `found` has them all."""
    parts = [(layer, times, found[layer, name]) for layer, times in network.layers.items() for name in passes(layer)
             if name in WHOLE[over]]  # fmt: skip

    def images(rate: Callable[[Outcome], float]) -> float:
        """At a rate in TFLOP/s for each of the parts."""
        return rows.TERA / sum(2.0 * layer.products * times / rate(o) for layer, times, o in parts)

    names = [name for name in parts[0][2].peers if all(name in o.peers for *_, o in parts)]
    rate, peers = images(lambda o: o.rate), {name: images(lambda o, n=name: o.peers[n]) for name in names}  # type: ignore[misc]
    limit = None if any(o.limit is None for *_, o in parts) else images(lambda o: o.limit or 0.0)
    spread = {
        name: (images(lambda o, n=name: o.spread[n][0]), images(lambda o, n=name: o.spread[n][1]))  # type: ignore[misc]
        for name in (OURS, *names)
    }
    targets = TARGETS if over == "forward and backward" else ()
    return Outcome(
        f"{network.name} {form}, {over} of all convolutions, batches of {network.images}", "images/s", 1, rate, peers, limit,
        tuple(judge(target, rate, peers, limit, {}) for target in targets), spread=spread,
        samples={name: min(o.samples[name] for *_, o in parts) for name in (OURS, *names)},
    )  # fmt: skip


def run(record: Record, names: Sequence[str], limit: float) -> None:
    """Measure networks into the record: one entry for each and each format. What there is no time for is said, and then there is
    no sum."""
    end = time.perf_counter() + limit
    record.data["networks"] = []
    for form, network in itertools.product(FORMS, (NETWORKS[name] for name in names)):
        entry: dict[str, Any] = {
            "network": network.name,
            "format": form,
            "images": network.images,
            "layers": [],
            "whole": {},
        }
        record.data["networks"].append(entry)
        found: Found = {}
        for layer, times in network.layers.items():
            line: dict[str, Any] = {"layer": str(layer), **asdict(layer), "times": times, "passes": {}}
            for name in passes(layer):
                if time.perf_counter() > end:
                    continue
                one = record.attempt(partial(row, network, form, layer, name))
                if one is not None:
                    found[layer, name] = one
                    line["passes"][name] = one.as_data()
            entry["layers"].append(line)
            record.write()
        missing = sum(len(passes(layer)) for layer in network.layers) - len(found)
        if missing:
            late = f"; {limit:g} s were over" if time.perf_counter() > end else ""
            record.left_out(f"{missing} of {missing + len(found)} rows are missing, so there is no sum{late}",
                            f"{network.name} {form}")  # fmt: skip
            continue
        for over in WHOLE:
            sum_of_all = whole(network, form, over, found)
            entry["whole"][over] = sum_of_all.as_data()
            told(sum_of_all)
        record.write()


__all__ = ["FORMS", "PASSES", "WHOLE", "Problem", "op_of", "passes", "row", "run", "whole"]
