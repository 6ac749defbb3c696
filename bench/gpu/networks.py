"""The convolutions of three published networks, as data: each distinct layer once, with how often it occurs.

- ResNet-50: He et al., "Deep Residual Learning for Image Recognition" (2015), table 1, with the stride in the 3x3 layer of a
  block, where torchvision and NVIDIA's reference training have it (the paper has it in the 1x1 layer before).
- VGG-16: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2014), table 1, D.
- U-Net: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015), figure 1: no padding,
  filters of 2 x 2 that double the image going up, images of 572 x 572.

Dense layers, norms, pooling and activations are not in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Layer:
    """Square filters on square images. `side`: of the images that are convolved. `is_turned`: the network has the transpose of
    this convolution, so that what goes forwards there is the gradient of its input. `is_first`: nobody asks for the gradient of
    what it reads."""

    channels: int
    side: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    is_turned: bool = False
    is_first: bool = False

    @property
    def positions(self) -> int:
        """Of the filter along one side."""
        return (self.side + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def products(self) -> int:
        """Multiply-adds for one image, in each direction."""
        return self.channels * self.outputs * self.kernel**2 * self.positions**2

    @property
    def weights(self) -> int:
        return self.channels * self.outputs * self.kernel**2

    def __str__(self) -> str:
        sizes = f"{self.channels}x{self.side}² to {self.outputs}"
        if self.is_turned:
            sizes = f"{self.outputs}x{self.positions}² to {self.channels}"
        by = f", stride {self.stride}" if self.stride > 1 else ""
        return f"{sizes}, {self.kernel}x{self.kernel}{by}{', transposed' if self.is_turned else ''}"


@dataclass(frozen=True)
class Network:
    """A network's convolutions on `images` images of a batch; `layers` counts equal ones."""

    name: str
    images: int
    layers: dict[Layer, int]

    @property
    def products(self) -> int:
        """Multiply-adds of the forward pass for one image."""
        return sum(layer.products * times for layer, times in self.layers.items())


def _resnet50() -> Iterator[Layer]:
    yield Layer(3, 224, 64, 7, 2, 3, is_first=True)
    channels, side = 64, 56  # behind the pooling
    for stage, (blocks, inner) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            yield Layer(channels, side, inner, 1)
            yield Layer(inner, side, inner, 3, stride, 1)
            if block == 0:
                yield Layer(channels, side, 4 * inner, 1, stride)
            channels, side = 4 * inner, side // stride
            yield Layer(inner, side, channels, 1)


def _vgg16() -> Iterator[Layer]:
    channels, side = 3, 224
    for layers, outputs in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(layers):
            yield Layer(channels, side, outputs, 3, 1, 1, is_first=channels == 3)
            channels = outputs
        side //= 2


def _unet() -> Iterator[Layer]:
    channels, side, widths = 1, 572, (64, 128, 256, 512, 1024)
    for outputs in widths:
        yield Layer(channels, side, outputs, 3, is_first=channels == 1)
        yield Layer(outputs, side - 2, outputs, 3)
        channels, side = outputs, (side - 4) // 2
    side *= 2  # the deepest images are not pooled
    for outputs in reversed(widths[:-1]):
        yield Layer(outputs, 2 * side, channels, 2, 2, is_turned=True)
        side *= 2
        yield Layer(channels, side, outputs, 3)
        yield Layer(outputs, side - 2, outputs, 3)
        channels, side = outputs, side - 4
    yield Layer(channels, side, 2, 1)


NETWORKS = {
    network.name: network
    for network in (
        Network("ResNet-50", 32, dict(Counter(_resnet50()))),
        Network("VGG-16", 32, dict(Counter(_vgg16()))),
        Network("U-Net", 4, dict(Counter(_unet()))),
    )
}


def shrunk(layer: Layer, channels: int, side: int) -> Layer:
    """The layer with fewer channels and smaller images, as an emulated device can do it."""
    least = min(side, layer.side) + layer.kernel  # at least two positions
    return replace(layer, channels=min(layer.channels, channels), outputs=min(layer.outputs, channels), side=least)


__all__ = ["NETWORKS", "Layer", "Network", "shrunk"]
