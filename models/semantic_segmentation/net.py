"""U-Net (Ronneberger, Fischer and Brox, MICCAI 2015), small: what it sees in the large joins what it sees closely."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.convolutions import Graph

WIDTHS = (8, 16, 32)
HALVINGS = len(WIDTHS) - 1
CLASSES = 2


def _block(seen: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (seen, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):  # type: ignore[misc]  # torch is not followed
    """``[n, 1, height, width]`` -> ``[n, 2, height, width]``; both sides multiples of ``2 ** HALVINGS``."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(seen, width) for seen, width in zip((1, *WIDTHS), WIDTHS, strict=False))
        pairs = list(zip(WIDTHS[::-1], WIDTHS[-2::-1], strict=False))
        self.up = nn.ModuleList(_block(deep + wide, wide) for deep, wide in pairs)
        self.last = nn.Conv2d(WIDTHS[0], CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        """The classes' logits."""
        seen, levels = image, []
        for number, block in enumerate(self.down):
            seen = block(nn.functional.max_pool2d(seen, 2) if number else seen)
            levels.append(seen)
        for block, level in zip(self.up, levels[-2::-1], strict=True):
            larger = nn.functional.interpolate(seen, scale_factor=2, mode="nearest")
            seen = block(torch.cat([larger, level], dim=1))
        logits: Tensor = self.last(seen)
        return logits

    def onnx(self, graph: Graph, image: str) -> str:
        """``forward`` once more, as nodes of ``graph``."""
        seen, levels = image, []
        for number, block in enumerate(self.down):
            halved = graph.add("MaxPool", seen, kernel_shape=[2, 2], strides=[2, 2]) if number else seen
            seen = graph.sequential(halved, block)
            levels.append(seen)
        for block, level in zip(self.up, levels[-2::-1], strict=True):
            larger = graph.doubled(seen)
            seen = graph.sequential(graph.add("Concat", larger, level, axis=1), block)
        return graph.conv(seen, self.last)
