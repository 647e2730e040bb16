"""The net, how it answers in torch, and its two graphs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from models import recurrent

EMBEDDED, UNITS, DROPOUT = 48, 128, 0.05
BEAM, LONGEST = 3, 24
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
PAD, UNKNOWN, BEGIN, END = range(len(SPECIAL))


def network(letters: int, sounds: int) -> Any:
    """The untrained net, for so many letters and sounds."""
    import torch
    from torch import nn

    class Net(nn.Module):  # type: ignore[misc]  # torch is not seen by the checker
        """Encoder, decoder and the attention between them."""

        def __init__(self) -> None:
            super().__init__()
            self.letters = nn.Embedding(letters, EMBEDDED)
            self.sounds = nn.Embedding(sounds, EMBEDDED)
            self.encoder = nn.GRU(EMBEDDED, UNITS, batch_first=True, bidirectional=True)
            self.bridge = nn.Linear(2 * UNITS, UNITS)
            self.decoder = nn.GRU(EMBEDDED, UNITS, batch_first=True)
            self.key = nn.Linear(UNITS, 2 * UNITS, bias=False)
            self.joined = nn.Linear(3 * UNITS, UNITS)
            self.out = nn.Linear(UNITS, sounds)
            self.dropout = nn.Dropout(DROPOUT)

        def read(self, source: Any, lengths: Any) -> Any:
            """Memory [rows, length, 2 units] and the decoder's first state [1, rows, units]."""
            packed = nn.utils.rnn.pack_padded_sequence(
                self.dropout(self.letters(source)), lengths, batch_first=True, enforce_sorted=False
            )
            memory, last = self.encoder(packed)
            memory, _ = nn.utils.rnn.pad_packed_sequence(memory, batch_first=True)
            return memory, torch.tanh(self.bridge(torch.cat([last[0], last[1]], dim=1)))[None]

        def write(self, tokens: Any, state: Any, memory: Any, lengths: Any) -> Any:
            """Log probabilities [rows, steps, sounds] after each of ``tokens``, the last state, the attention."""
            states, state = self.decoder(self.dropout(self.sounds(tokens)), state)
            match = self.key(states) @ memory.transpose(1, 2)
            beyond = torch.arange(memory.shape[1])[None] >= lengths[:, None]
            attention = match.masked_fill(beyond[:, None], -1e9).softmax(dim=2)
            joined = torch.tanh(self.joined(torch.cat([attention @ memory, states], dim=2)))
            return self.out(self.dropout(joined)).log_softmax(dim=2), state, attention

    return Net()


def answer(net: Any, word: str, source: dict[str, int], target: dict[str, int]) -> tuple[str, list[list[float]]]:
    """What torch says: the likeliest of BEAM beginnings at a time, and its attention [sounds, letters]."""
    import torch

    names = list(target)
    letters = torch.tensor([[source.get(letter, UNKNOWN) for letter in word[:LONGEST]]])
    lengths = torch.tensor([letters.shape[1]])
    with torch.no_grad():
        memory, state = net.read(letters, lengths)
        beginnings: list[tuple[float, list[int], Any, list[Any]]] = [(0.0, [BEGIN], state, [])]
        for _ in range(LONGEST):
            found = [one for one in beginnings if one[1][-1] == END]
            for score, ids, state, paid in beginnings:
                if ids[-1] != END:
                    likely, after, attention = net.write(torch.tensor([[ids[-1]]]), state, memory, lengths)
                    likely[0, 0, [PAD, BEGIN]] = -math.inf
                    for value, token in zip(*likely[0, 0].topk(BEAM), strict=True):
                        found.append((score + float(value), [*ids, int(token)], after, [*paid, attention[0, 0]]))
            beginnings = sorted(found, key=lambda one: -one[0])[:BEAM]
            if beginnings[0][1][-1] == END:
                break
    ids = [one for one in beginnings[0][1][1:] if one != END]
    return " ".join(names[one] for one in ids), [row.tolist() for row in beginnings[0][3][: len(ids)]]


def exported(net: Any, name: str) -> tuple[Any, Any]:
    """The graphs that ``serving/runtimes/algorithms/seq2seq.py`` asks for: encoder, and one step of the decoder."""
    from onnx import helper

    node, tensor = helper.make_node, recurrent.tensor
    weights = {key: value.detach().numpy() for key, value in net.state_dict().items() if "_l0" not in key}
    read = {
        "letters": weights["letters.weight"],
        **recurrent.gru(net.encoder, "gru"),
        "bridge_w": weights["bridge.weight"],
        "bridge_b": weights["bridge.bias"],
        "by_row": np.array([0, 0, -1]),
        "one_row": np.array([0, -1]),
    }
    encoder = [
        node("Gather", ["letters", "source"], ["embedded"]),
        node("Transpose", ["embedded"], ["by_step"], perm=[1, 0, 2]),
        node("Cast", ["lengths"], ["lengths_32"], to=6),
        node(
            "GRU", ["by_step", "gru_w", "gru_r", "gru_b", "lengths_32"], ["states", "last"],
            hidden_size=UNITS, direction="bidirectional", linear_before_reset=1,
        ),
        node("Transpose", ["states"], ["both_ways"], perm=[2, 0, 1, 3]),
        node("Reshape", ["both_ways", "by_row"], ["memory"]),
        node("Transpose", ["last"], ["last_by_row"], perm=[1, 0, 2]),
        node("Reshape", ["last_by_row", "one_row"], ["ends"]),
        node("Gemm", ["ends", "bridge_w", "bridge_b"], ["bridged"], transB=1),
        node("Tanh", ["bridged"], ["state"]),
    ]  # fmt: skip
    written = {
        "sounds": weights["sounds.weight"],
        **recurrent.gru(net.decoder, "gru"),
        "key": weights["key.weight"].T,
        "joined_w": weights["joined.weight"].T,
        "joined_b": weights["joined.bias"],
        "out_w": weights["out.weight"].T,
        "out_b": weights["out.bias"],
        "first": np.array([0]),
        "middle": np.array([1]),
        "last": np.array([2]),
        "zero": np.array(0),
        "one": np.array(1),
        "never": np.array(-1e9, np.float32),
    }
    decoder = [
        node("Gather", ["sounds", "token"], ["embedded"]),
        node("Unsqueeze", ["embedded", "first"], ["one_step"]),
        node("Unsqueeze", ["state", "first"], ["before"]),
        node(
            "GRU", ["one_step", "gru_w", "gru_r", "gru_b", "", "before"], ["", "after"],
            hidden_size=UNITS, linear_before_reset=1,
        ),
        node("Squeeze", ["after", "first"], ["next_state"]),
        node("MatMul", ["next_state", "key"], ["keyed"]),
        node("Unsqueeze", ["keyed", "last"], ["upright"]),
        node("MatMul", ["memory", "upright"], ["matches"]),
        node("Squeeze", ["matches", "last"], ["match"]),
        node("Shape", ["memory"], ["length"], start=1, end=2),
        node("Squeeze", ["length"], ["longest"]),
        node("Range", ["zero", "longest", "one"], ["places"]),
        node("Unsqueeze", ["lengths", "middle"], ["ends"]),
        node("Less", ["places", "ends"], ["within"]),
        node("Where", ["within", "match", "never"], ["seen"]),
        node("Softmax", ["seen"], ["attention"], axis=1),
        node("Unsqueeze", ["attention", "middle"], ["shares"]),
        node("MatMul", ["shares", "memory"], ["contexts"]),
        node("Squeeze", ["contexts", "middle"], ["context"]),
        node("Concat", ["context", "next_state"], ["pair"], axis=1),
        node("Gemm", ["pair", "joined_w", "joined_b"], ["sum"]),
        node("Tanh", ["sum"], ["hidden"]),
        node("Gemm", ["hidden", "out_w", "out_b"], ["logits"]),
        node("LogSoftmax", ["logits"], ["log_probability"], axis=1),
    ]  # fmt: skip
    memory = tensor("memory", ["rows", "length", 2 * UNITS])
    reads = [tensor("source", ["rows", "length"], "INT64"), tensor("lengths", ["rows"], "INT64")]
    writes = [tensor("token", ["rows"], "INT64"), tensor("state", ["rows", UNITS]), memory, reads[1]]
    answers = [
        tensor("log_probability", ["rows", len(weights["out.bias"])]),
        tensor("next_state", ["rows", UNITS]),
        tensor("attention", ["rows", "length"]),
    ]
    return (
        recurrent.graph(f"{name}-encoder", encoder, reads, [memory, tensor("state", ["rows", UNITS])], read),
        recurrent.graph(f"{name}-decoder", decoder, writes, answers, written),
    )
