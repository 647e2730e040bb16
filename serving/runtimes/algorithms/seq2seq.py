"""Seq2Seq: a sequence of tokens in, another out, as a translation is (``behaviour/10``).

Two graphs, one that reads the source and one for a step of the target; the loop over steps is here.

=================  ==================================================================================================
setting            meaning
=================  ==================================================================================================
Encoder            ``encoder.onnx`` unless said. Inputs ``source`` [rows, length] (int64 ids) and ``lengths`` [rows]
                   (int64); outputs ``memory`` [rows, length, m] and ``state`` [rows, n]
Decoder            ``decoder.onnx`` unless said. Inputs ``token`` [rows] (int64), ``state``, ``memory`` and ``lengths``;
                   outputs ``log_probability`` [rows, vocabulary], ``next_state`` and ``attention`` [rows, length]
SourceVocabulary   ``vocab.src.json`` unless said: token -> id, ``<unk>`` among them
TargetVocabulary   ``vocab.trg.json`` unless said: token -> id, ``<s>`` and ``</s>`` among them
BeamSize           how many beginnings of an answer are followed at once, 1 (greedy) to 20; 3 unless said
MaxSourceLength    longer sources are cut off there, as SageMaker's are; 100 tokens unless said
MaxTargetLength    answers end there at the latest; 100 tokens unless said
=================  ==================================================================================================

Tokens are told by the spaces between them. One that the source's vocabulary does not have is read as ``<unk>``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from serving.codecs import recordio
from serving.errors import BadInput, LoadFailed, PredictionFailed
from serving.runtimes.algorithms import bodies, inner
from serving.runtimes.base import LoadSettings, ScriptCall, ScriptModel, ScriptReply, TensorModel
from serving.runtimes.declaration import NAME, Declaration

RECORDIO = "application/x-recordio-protobuf"
_TYPES = (bodies.JSON, bodies.LINES, RECORDIO)
#: Sources that go through the graphs together; most that one request may hold.
_TOGETHER, MOST_SOURCES = 64, 1000
_MOST_LENGTH, _MOST_BEAM = 1000, 20
_VOCABULARY_BYTES = 64 * 2**20
_PAD, _UNKNOWN, _BEGIN, _END = "<pad>", "<unk>", "<s>", "</s>"


class Source(NamedTuple):
    """What is to be answered: ids, at least one; whether the attention is wanted."""

    ids: Sequence[int]
    matrix: bool = False


class Target(NamedTuple):
    """An answer: ids without begin and end; attention [target, source], each row the shares of the source's tokens."""

    ids: list[int]
    attention: np.ndarray


class Form(NamedTuple):
    """The settings, read."""

    source: Mapping[str, int]
    target: Sequence[str]
    begin: int
    end: int
    never: Sequence[int]
    beam: int
    longest_source: int
    longest_target: int


class Seq2Seq(ScriptModel):
    """A loaded translator."""

    engine = "seq2seq"

    def __init__(self, encoder: TensorModel, decoder: TensorModel, form: Form) -> None:
        """``encoder``, ``decoder``: the two graphs."""
        self._encoder = encoder
        self._decoder = decoder
        self._form = form

    def transform(self, call: ScriptCall) -> ScriptReply:
        """The targets of all sources of a body. Raises BadInput, UnsupportedContentType, NotAcceptable."""
        kind, _ = bodies.media_type(call.content_type, _TYPES)
        accept, _ = bodies.accepted(call.accept, bodies.JSON, _TYPES)
        sources = self._sources(call, kind)
        if len(sources) > MOST_SOURCES:
            raise BadInput(f"the body holds {len(sources)} sources; one request may hold {MOST_SOURCES}")
        targets = [
            target
            for at in range(0, len(sources), _TOGETHER)
            for target in self._answered([source.ids for source in sources[at : at + _TOGETHER]])
        ]
        if accept == RECORDIO:
            frames = (recordio.encode_record({"target": np.array(target.ids, np.int32)}) for target in targets)
            return ScriptReply(b"".join(frames), accept)
        answers = [self._said(*pair) for pair in zip(sources, targets, strict=True)]
        if accept == bodies.LINES:
            return ScriptReply(b"".join(_json(answer) + b"\n" for answer in answers), accept)
        return ScriptReply(_json({"predictions": answers}), accept)

    def set_threads(self, threads: int) -> None:
        """The graphs' own."""
        self._encoder.set_threads(threads)
        self._decoder.set_threads(threads)

    def close(self) -> None:
        """Drop the graphs."""
        self._encoder.close()
        self._decoder.close()

    def rehearse(self) -> None:
        """A token in, one out, so that graphs that do not fit their vocabularies are told when they are loaded. Raises
        LoadFailed."""
        try:
            memory, state, lengths = self._read([[max(self._form.source.values())]])
            self._step(np.array([len(self._form.target) - 1]), state, memory, lengths)
        except (BadInput, PredictionFailed) as error:
            raise LoadFailed(f"{NAME}: the graphs do not fit each other or the vocabularies: {error}") from error

    # -- bodies --------------------------------------------------------------------------------------------------------

    def _sources(self, call: ScriptCall, kind: str) -> list[Source]:
        if kind == RECORDIO:
            records = recordio.read_records(call.body)
            if not records:
                raise BadInput("the body is empty")
            return [self._record(record, f"record {number}") for number, record in enumerate(records, 1)]
        rows = bodies.instances(call.body, call.content_type, _TYPES).rows
        key, what = ("source", "line") if kind == bodies.LINES else ("data", "instance")
        return [self._text(row, key, f"{what} {number}") for number, row in enumerate(rows, 1)]

    def _text(self, row: Any, key: str, where: str) -> Source:
        text = row.get(key) if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise BadInput(f"{where} must be an object with a text {key!r}")
        configuration = row.get("configuration", {})
        if not isinstance(configuration, dict):
            raise BadInput(f"{where}: 'configuration' must be an object")
        wanted = str(configuration.get("attention_matrix", "false")).lower()
        if wanted not in ("true", "false"):
            raise BadInput(f'{where}: \'attention_matrix\' must be "true" or "false"')
        tokens = text.split(maxsplit=self._form.longest_source)[: self._form.longest_source]
        if not tokens:
            raise BadInput(f"{where}: {key!r} is empty: it must hold tokens with spaces between them")
        unknown = self._form.source[_UNKNOWN]
        return Source([self._form.source.get(token, unknown) for token in tokens], wanted == "true")

    def _record(self, record: Mapping[str, np.ndarray], where: str) -> Source:
        """Token ids under ``values`` or ``source``, or under the only key there is."""
        found = record.get("values", record.get("source", next(iter(record.values())) if len(record) == 1 else None))
        if found is None or found.dtype.kind != "i" or not found.size:
            raise BadInput(f"{where} must hold the ids of a source's tokens, as an int32 tensor 'values'")
        ids = found.ravel()[: self._form.longest_source]
        most = max(self._form.source.values())
        if ids.min() < 0 or ids.max() > most:
            raise BadInput(f"{where} has an id outside the vocabulary's, which are 0 to {most}")
        return Source(ids.tolist())

    def _said(self, source: Source, target: Target) -> dict[str, Any]:
        answer: dict[str, Any] = {"target": " ".join(self._form.target[one] for one in target.ids)}
        if source.matrix:
            answer["matrix"] = np.ascontiguousarray(target.attention[:, : len(source.ids)])
        return answer

    # -- answering -----------------------------------------------------------------------------------------------------

    def _answered(self, sources: Sequence[Sequence[int]]) -> list[Target]:
        """Beam search: the likeliest beginnings of each answer go on until the likeliest of all has ended. What follows
        only takes from a beginning's probability, so no other could overtake it."""
        form, rows, width = self._form, len(sources), self._form.beam
        memory, state, lengths = (np.repeat(part, width, axis=0) for part in self._read(sources))
        scores = np.full((rows, width), -np.inf)
        scores[:, 0] = 0.0  # all beginnings of an answer are the same one at first
        token = np.full(rows * width, form.begin)
        ended = np.zeros(rows * width, bool)
        trail: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for _ in range(form.longest_target):
            likely, state, attention = self._step(token, state, memory, lengths)
            likely[:, form.never] = -np.inf
            likely[ended] = -np.inf
            likely[ended, form.end] = 0.0
            total = (scores[:, :, None] + likely.reshape(rows, width, -1)).reshape(rows, -1)
            best = np.argsort(-total, axis=1, kind="stable")[:, :width]
            scores = np.take_along_axis(total, best, axis=1)
            parent = (best // likely.shape[1] + np.arange(rows)[:, None] * width).ravel()
            token = (best % likely.shape[1]).ravel()
            state, ended = state[parent], token == form.end
            trail.append((token, parent, attention[parent]))
            if ended.reshape(rows, width)[:, 0].all():
                break
        return [self._traced(trail, row * width) for row in range(rows)]

    def _traced(self, trail: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], row: int) -> Target:
        """The answer that ends in ``row`` of the last step, from there back."""
        ids, shares = [], []
        for token, parent, attention in reversed(trail):
            if token[row] != self._form.end:
                ids.append(int(token[row]))
                shares.append(attention[row])
            row = int(parent[row])
        length = trail[0][2].shape[1]
        return Target(ids[::-1], np.array(shares[::-1]).reshape(len(ids), length))

    def _read(self, sources: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Memory, state and length of each source."""
        lengths = np.array([len(source) for source in sources])
        ids = np.zeros((len(sources), int(lengths.max())), np.int64)
        for row, source in zip(ids, sources, strict=True):
            row[: len(source)] = source
        memory, state = _named(self._encoder, {"source": ids, "lengths": lengths}, "memory", "state")
        if memory.shape[:2] != ids.shape or state.ndim != 2:
            raise PredictionFailed("the encoder answers with arrays of other shapes than its sources have")
        return memory, state, lengths

    def _step(
        self, token: np.ndarray, state: np.ndarray, memory: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log probabilities of the next token, the state after it, and the attention paid to the source's tokens."""
        feeds = {"token": token, "state": state, "memory": memory, "lengths": lengths}
        likely, after, attention = _named(self._decoder, feeds, "log_probability", "next_state", "attention")
        if likely.shape != (len(token), len(self._form.target)):
            raise PredictionFailed(f"the decoder does not tell {len(self._form.target)} target tokens apart")
        if after.shape != state.shape or attention.shape != memory.shape[:2]:
            raise PredictionFailed("the decoder answers with arrays of other shapes than its inputs have")
        return np.nan_to_num(likely.astype(np.float64), nan=-np.inf), after, attention


def load(declared: Declaration, settings: LoadSettings) -> ScriptModel:
    """The translator that ``algorithm.json`` declares. Raises LoadFailed."""
    source = _vocabulary(declared, "SourceVocabulary", "vocab.src.json", (_UNKNOWN,))
    target = _vocabulary(declared, "TargetVocabulary", "vocab.trg.json", (_BEGIN, _END))
    names = sorted(target, key=lambda token: target[token])
    form = Form(
        source=source,
        target=names,
        begin=target[_BEGIN],
        end=target[_END],
        never=[target[token] for token in (_PAD, _BEGIN) if token in target],
        beam=min(declared.whole("BeamSize", 3, most=_MOST_BEAM), len(names)),
        longest_source=declared.whole("MaxSourceLength", 100, most=_MOST_LENGTH),
        longest_target=declared.whole("MaxTargetLength", 100, most=_MOST_LENGTH),
    )
    encoder = inner.model(declared, settings, "Encoder", "encoder.onnx")
    decoder = inner.model(declared, settings, "Decoder", "decoder.onnx")
    translator = Seq2Seq(encoder, decoder, form)
    translator.rehearse()
    return translator


def _vocabulary(declared: Declaration, key: str, default: str, needed: Sequence[str]) -> dict[str, int]:
    """Token -> id. Raises LoadFailed unless the ids are 0, 1, 2 ..., each once, and ``needed`` are there."""
    path: Path = declared.file(key, default)
    if path.stat().st_size > _VOCABULARY_BYTES:
        raise LoadFailed(f"{path.name} is larger than {_VOCABULARY_BYTES // 2**20} MiB")
    try:
        found = orjson.loads(path.read_bytes())
    except ValueError as error:
        raise LoadFailed(f"{path.name} is not JSON") from error
    if not isinstance(found, dict) or not all(type(one) is int for one in found.values()):
        raise LoadFailed(f"{path.name} must be an object of tokens and their ids")
    if sorted(found.values()) != list(range(len(found))):
        raise LoadFailed(f"{path.name} must give its tokens the ids 0, 1, 2 ..., each once")
    missing = [token for token in needed if token not in found]
    if missing:
        raise LoadFailed(f"{path.name} has no {missing[0]}")
    return found


def _named(model: TensorModel, feeds: dict[str, np.ndarray], *names: str) -> tuple[np.ndarray, ...]:
    found = model.predict(feeds)
    if not isinstance(found, dict) or any(name not in found for name in names):
        raise PredictionFailed(f"a graph must answer with {', '.join(names)}")
    return tuple(found[name] for name in names)


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
