"""The net, how it forecasts in torch, and its graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from models import recurrent
from models.data import Floats
from models.deepar.grids import HELD_DAYS

CONTEXT, HORIZON = 48, 48
LAGS = (1, 48, 96, 336)
PAST = max(LAGS) + CONTEXT
UNITS, WIDTH, DROPOUT = 40, 4, 0.15


def network() -> Any:
    """The untrained net."""
    import torch
    from torch import nn

    class Net(nn.Module):  # type: ignore[misc]  # torch is not seen by the checker
        """Features of a step and the series' number -> location and spread of what is next."""

        def __init__(self) -> None:
            super().__init__()
            self.series = nn.Embedding(len(HELD_DAYS), WIDTH)
            self.gru = nn.GRU(2 * len(LAGS) + 8 + 1 + WIDTH, UNITS, batch_first=True)
            self.dropout = nn.Dropout(DROPOUT)
            self.head = nn.Linear(UNITS, 2)
            self.freedom = nn.Parameter(torch.tensor(3.0))

        def forward(self, features: Any, series: Any, hidden: Any = None) -> Any:
            known = self.series(series)[:, None].expand(-1, features.shape[1], -1)
            states, hidden = self.gru(torch.cat([features, known], dim=2), hidden)
            location, spread = self.head(self.dropout(states)).unbind(2)
            return location, nn.functional.softplus(spread) + 1e-3, hidden

        def degrees(self) -> Any:
            """Degrees of freedom of what is left to chance."""
            return 2 + nn.functional.softplus(self.freedom)

    return Net()


def scale_of(past: np.ndarray, otherwise: float) -> float:
    """The mean size of the context; of what is known at all where the context has nothing; else ``otherwise``."""
    for part in (past[-CONTEXT:], past):
        if np.isfinite(part).any():
            return float(np.nanmean(np.abs(part))) or 1.0
    return otherwise


def features_of(seen: np.ndarray, known: Floats) -> Floats:
    """``seen`` [..., PAST + steps - CONTEXT] scaled -> per step the values of some lags ago (0 where unknown), whether
    they are known, and what is known of the step itself: [..., steps, n]."""
    steps = known.shape[-2]
    first = seen.shape[-1] - steps
    lagged = np.stack([seen[..., first - lag : first - lag + steps] for lag in LAGS], axis=-1)
    known = np.broadcast_to(known, (*lagged.shape[:-1], known.shape[-1]))
    return np.concatenate([np.nan_to_num(lagged), np.isfinite(lagged), known], axis=-1).astype(np.float32)


def forecast(net: Any, number: int, past: np.ndarray, known: Floats, noise: np.ndarray, usual: float) -> np.ndarray:
    """Sample paths [paths, HORIZON] after ``past`` [PAST], NaN where unknown. ``known``: [CONTEXT + HORIZON, 9];
    ``noise``: draws of the standard Student t, [paths, HORIZON]; ``usual``: the scale of a series without a past."""
    import torch

    scale = scale_of(past, usual)
    series = torch.full((len(noise),), number)
    seen = np.concatenate([np.repeat(past[None] / scale, len(noise), axis=0), np.full_like(noise, np.nan)], axis=1)
    with torch.no_grad():
        context = features_of(seen[:1, :PAST], known[:CONTEXT])
        _, _, hidden = net(torch.from_numpy(context), series[:1])
        hidden = hidden.expand(-1, len(noise), -1).contiguous()
        for step in range(HORIZON):
            features = features_of(seen[:, : PAST + step + 1], known[CONTEXT + step : CONTEXT + step + 1])
            location, spread, hidden = net(torch.from_numpy(features), series, hidden)
            seen[:, PAST + step] = location[:, -1].numpy() + spread[:, -1].numpy() * noise[:, step]
    return seen[:, PAST:] * scale


def exported(net: Any, name: str) -> Any:
    """One graph for any number of steps: the context in one call, then the forecast step by step."""
    from onnx import helper

    node, tensor = helper.make_node, recurrent.tensor
    weights = {
        "series": net.series.weight.detach().numpy(),
        **recurrent.gru(net.gru, "gru"),
        "head_w": net.head.weight.detach().numpy().T,
        "head_b": net.head.bias.detach().numpy(),
        "first": np.array([0]),
        "middle": np.array([1]),
        "one": np.array([1]),
        "two": np.array([2]),
        "least": np.array(1e-3, np.float32),
    }
    nodes = [
        node("Gather", ["series", "cat"], ["known"]),
        node("Shape", ["features"], ["steps"], start=1, end=2),
        node("Concat", ["one", "steps", "one"], ["spread_out"], axis=0),
        node("Expand", ["known", "spread_out"], ["known_steps"]),
        node("Concat", ["features", "known_steps"], ["all"], axis=2),
        node("Transpose", ["all"], ["by_step"], perm=[1, 0, 2]),
        node("Unsqueeze", ["hidden", "first"], ["before"]),
        node(
            "GRU", ["by_step", "gru_w", "gru_r", "gru_b", "", "before"], ["states", "after"],
            hidden_size=UNITS, linear_before_reset=1,
        ),
        node("Squeeze", ["after", "first"], ["next_hidden"]),
        node("Squeeze", ["states", "middle"], ["steps_first"]),
        node("Transpose", ["steps_first"], ["by_row"], perm=[1, 0, 2]),
        node("MatMul", ["by_row", "head_w"], ["product"]),
        node("Add", ["product", "head_b"], ["parameters"]),
        node("Split", ["parameters"], ["location_2", "raw_2"], axis=2),
        node("Squeeze", ["location_2", "two"], ["location"]),
        node("Softplus", ["raw_2"], ["soft_2"]),
        node("Squeeze", ["soft_2", "two"], ["soft"]),
        node("Add", ["soft", "least"], ["spread"]),
    ]  # fmt: skip
    inputs = [
        tensor("features", ["rows", "steps", 2 * len(LAGS) + 9]),
        tensor("hidden", ["rows", UNITS]),
        tensor("cat", ["rows", 1], "INT64"),
    ]
    outputs = [tensor(one, ["rows", "steps"]) for one in ("location", "spread")]
    return recurrent.graph(name, nodes, inputs, [*outputs, tensor("next_hidden", ["rows", UNITS])], weights)
