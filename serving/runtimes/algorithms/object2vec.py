"""Object2Vec: pairs of token lists to scores, or one side alone to its embeddings (``behaviour/10``).

Requests, as JSON or JSON Lines, with lists of any length::

    {"instances": [{"in0": [6, 17, 606], "in1": [16, 21]}]}      {"predictions": [{"scores": [0.65, 0.08, 0.27]}]}
    {"instances": [{"in0": [6, 17, 606]}]}                       {"predictions": [{"embeddings": [0.05, 0.03]}]}

Content-Type's parameter ``infer_max_seqlens=8,12`` cuts the two sides after so many tokens, from 1 to 5000.

Settings: ``Model``, an ONNX graph from int64 ``in0`` and ``in1`` [rows, tokens], where the ends of shorter lists are
-1, to ``scores``, ``embeddings0`` and ``embeddings1``; ``Enc0VocabSize`` and ``Enc1VocabSize``, as the hyperparameters:
tokens are below them; ``Enc0MaxSeqLen`` and ``Enc1MaxSeqLen`` (5000): lists are cut after so many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from serving.errors import BadInput, LoadFailed, PredictionFailed, ServingError
from serving.runtimes.algorithms import answers, bodies, inner
from serving.runtimes.base import LoadSettings, ScriptCall, ScriptModel, ScriptReply, TensorModel
from serving.runtimes.declaration import NAME, Declaration

SIDES = ("in0", "in1")
_MOST_TOKENS = 5000
_PADDING = -1
#: Tokens that go through the model at once, padding among them: one long list pads all its neighbours.
_TOKENS_AT_ONCE = 1 << 15


class Side(NamedTuple):
    """What one of the two encoders takes: tokens below ``vocabulary``, no more than ``longest`` of them."""

    vocabulary: int
    longest: int


class Object2Vec(ScriptModel):
    """Two encoders and what compares them."""

    def __init__(self, model: TensorModel, sides: Mapping[str, Side]) -> None:
        """``sides``: of in0 and in1."""
        self._model = model
        self._sides = sides
        self.engine = model.engine

    def transform(self, call: ScriptCall) -> ScriptReply:
        """Answer one call. Raises BadInput, UnsupportedContentType, NotAcceptable."""
        asked = bodies.instances(call.body, call.content_type)
        answer_in, _ = bodies.accepted(call.accept, bodies.JSON, (bodies.JSON, bodies.LINES))
        given = _given(asked.rows)
        sides = _cut(self._sides, asked.params.get("infer_max_seqlens", ""))
        lists = {
            name: [_tokens(row[name], name, at, sides[name]) for at, row in enumerate(asked.rows, 1)] for name in given
        }
        field, output = ("scores", "scores") if len(given) == 2 else ("embeddings", f"embeddings{given[0][-1]}")
        rows = [{field: row} for row in self.run(lists, output)]
        body = answers.document({"predictions": rows}) if answer_in == bodies.JSON else answers.lines(rows)
        return ScriptReply(body, answer_in)

    def run(self, lists: Mapping[str, list[list[int]]], output: str) -> np.ndarray:
        """An output [rows, any] for lists of tokens by side; a side that is left out is one token of padding. Raises
        BadInput for too many, PredictionFailed."""
        sizes = np.max([[len(tokens) for tokens in side] for side in lists.values()], axis=0)
        order = np.argsort(sizes, kind="stable")  # lists of like length together: less padding
        pieces = []
        for piece in _pieces(sizes[order].tolist()):
            rows = order[piece]
            inputs = {
                name: _padded([lists[name][row] for row in rows] if name in lists else [[]] * len(rows))
                for name in SIDES
            }
            outputs = self._model.predict(inputs)
            if not isinstance(outputs, dict) or output not in outputs:
                raise PredictionFailed(f"the model has no output {output!r}")
            pieces.append(outputs[output].reshape(len(rows), -1))
            answers.check_size(len(order) * pieces[0].shape[1])
        found = np.empty((len(order), pieces[0].shape[1]), pieces[0].dtype)
        found[order] = np.concatenate(pieces)
        if not np.isfinite(found).all():
            raise PredictionFailed(f"the model's {output} are no finite numbers")
        return found

    def set_threads(self, threads: int) -> None:
        """The model's own."""
        self._model.set_threads(threads)

    def close(self) -> None:
        """Drop the model."""
        self._model.close()


def load(declared: Declaration, settings: LoadSettings) -> Object2Vec:
    """Load the graph and ask it once, so that one that does not fit its declaration is not served. Raises
    LoadFailed."""
    sides = {
        name: Side(
            declared.whole(f"Enc{name[-1]}VocabSize"),
            declared.whole(f"Enc{name[-1]}MaxSeqLen", _MOST_TOKENS, most=_MOST_TOKENS),
        )
        for name in SIDES
    }
    model = Object2Vec(inner.model(declared, settings), sides)
    try:
        for output in ("scores", "embeddings0", "embeddings1"):
            model.run({name: [[0], [side.vocabulary - 1]] for name, side in sides.items()}, output)
    except ServingError as error:
        raise LoadFailed(f"{NAME}: the model does not answer a pair of tokens: {error}") from error
    return model


def _given(rows: Sequence[Any]) -> list[str]:
    """Which sides the instances have: all of them the same. Raises BadInput."""
    given: list[str] = []
    for at, row in enumerate(rows, 1):
        found = [name for name in SIDES if name in row] if isinstance(row, dict) else []
        if not found:
            raise BadInput(f"instance {at} must be an object with 'in0', 'in1' or both, lists of tokens")
        given = given or found
        if found != given:
            raise BadInput(f"instance {at} has {' and '.join(found)}, where those before have {' and '.join(given)}")
    return given


def _cut(sides: Mapping[str, Side], lengths: str) -> Mapping[str, Side]:
    """The sides under Content-Type's ``infer_max_seqlens``. Raises BadInput."""
    if not lengths:
        return sides
    parts = [part.strip() for part in lengths.split(",")]
    if len(parts) != 2 or not all(
        part.isdecimal() and len(part) <= 4 and 0 < int(part) <= _MOST_TOKENS for part in parts
    ):
        raise BadInput(f"'infer_max_seqlens' must be two whole numbers from 1 to {_MOST_TOKENS} with a comma between")
    return {
        name: sides[name]._replace(longest=min(sides[name].longest, int(part)))
        for name, part in zip(SIDES, parts, strict=True)
    }


def _tokens(value: Any, name: str, at: int, side: Side) -> list[int]:
    """The tokens of one list, cut. Raises BadInput."""
    if not isinstance(value, list) or set(map(type, value)) != {int}:
        raise BadInput(f"{name!r} of instance {at} must be a list of at least one token, each a whole number")
    if min(value) < 0 or max(value) >= side.vocabulary:
        raise BadInput(f"{name!r} of instance {at} has a token that is not from 0 to {side.vocabulary - 1}")
    return value[: side.longest]


def _pieces(sizes: list[int]) -> Iterator[slice]:
    """Runs of ``sizes``, which rise, that are few enough tokens when each is padded to the last of its run."""
    start = 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or (end + 1 - start) * sizes[end] > _TOKENS_AT_ONCE:
            yield slice(start, end)
            start = end


def _padded(lists: Sequence[Sequence[int]]) -> np.ndarray:
    """Lists as int64 [rows, longest], at least one column, with the padding at their ends."""
    padded = np.full((len(lists), max(1, *map(len, lists))), _PADDING, np.int64)
    for row, tokens in zip(padded, lists, strict=True):
        row[: len(tokens)] = tokens
    return padded
