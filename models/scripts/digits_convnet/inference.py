"""A handwritten digit from 8 x 8 pixels: a small convolution net in PyTorch, weights only, code beside them.

``input_fn`` and ``output_fn`` are left to the server: arrays arrive decoded and leave encoded by their media type.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


class DigitsNet(nn.Module):  # type: ignore[misc,unused-ignore]  # untyped where torch is not followed
    """``[N, 1, 8, 8]`` ink from 0 to 16 -> ``[N, 10]`` logits. The net scales, so callers send raw ink."""

    def __init__(self) -> None:
        """Draw the first weights."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(32 * 4 * 4, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of a batch."""
        logits: torch.Tensor = self.layers(image / 16)
        return logits


def model_fn(model_dir: str) -> DigitsNet:
    """The net with its weights. ``weights_only``: a state dict is data, nothing in the file may run."""
    net = DigitsNet()
    net.load_state_dict(torch.load(Path(model_dir) / "model.pth", map_location="cpu", weights_only=True))
    net.eval()
    return net


def predict_fn(data: Any, model: DigitsNet) -> NDArray[np.float32]:
    """Probabilities ``[N, 10]``."""
    images = torch.as_tensor(np.asarray(data, dtype=np.float32))
    if images.ndim != 4 or images.shape[1:] != (1, 8, 8):
        raise ValueError("This model takes images of shape [N, 1, 8, 8].")
    with torch.inference_mode():
        probabilities: NDArray[np.float32] = torch.softmax(model(images), dim=1).numpy()
    return probabilities
