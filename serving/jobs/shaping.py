"""What a batch job sends for a piece of its input, and what it writes for the answer (behaviour/04, "DataProcessing").

Order: InputFilter, model, join with the unfiltered input, OutputFilter, inference ids, AssembleWith.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from serving.errors import BadRecords, ValidationError
from serving.jobs.joining import (
    CSV,
    JSON,
    JSON_LINES,
    BadText,
    Csv,
    Filter,
    Json,
    Language,
    Texts,
    media_type,
    read,
    woven,
    written,
)
from serving.jobs.jsonpath import parse
from serving.jobs.splitting import Piece, lines

_LANGUAGES: dict[str, Language] = {CSV: Csv(), JSON: Json(), JSON_LINES: Json()}
_COUNTS_DIFFER = "mismatched line count between the input and the output"


class Shape:
    """How one job's requests and results look; compiled once from its CreateTransformJob body.

    ``started``: seconds since 1970, which DataCaptureConfig's GenerateInferenceId writes beside each id. ``accept``:
    what to ask the model for; empty = whatever it likes. Raises ``ValidationError`` for filters that do not parse and
    for settings that do not go together.
    """

    def __init__(self, job: Mapping[str, Any], started: float = 0.0) -> None:
        given, wanted = job.get("TransformInput") or {}, job.get("TransformOutput") or {}
        processing = job.get("DataProcessing") or {}
        content_type = given.get("ContentType") or ""
        self._split: str = given.get("SplitType") or "None"
        self._assemble: str = wanted.get("AssembleWith") or "None"
        self._reads = media_type(content_type)
        self._writes = media_type(wanted.get("Accept") or content_type)
        _check_header(content_type, self._split)
        self._joins = processing.get("JoinSource") == "Input"
        inputs = parse(processing.get("InputFilter") or "$", "InputFilter")
        outputs = parse(processing.get("OutputFilter") or "$", "OutputFilter")
        if self._joins or not inputs.whole or not outputs.whole:
            self._check_processing()
        self._input_filter = None if inputs.whole else _LANGUAGES[self._reads].filter(inputs, "InputFilter")
        self._output_filter = None if outputs.whole else _LANGUAGES[self._writes].filter(outputs, "OutputFilter")
        self._ids = bool((job.get("DataCaptureConfig") or {}).get("GenerateInferenceId"))
        if self._ids and self._writes not in _LANGUAGES:
            raise ValidationError(f"GenerateInferenceId needs Accept to be {CSV}, {JSON} or {JSON_LINES}.")
        self._time = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started))
        self._as_it_comes = not (self._joins or self._output_filter or self._ids)
        self._only_weaves = (self._writes, self._assemble) == (CSV, "Line") and not (self._output_filter or self._ids)
        self.accept: str = wanted.get("Accept") or ("" if self._as_it_comes and inputs.whole else content_type)

    def request(self, piece: Piece) -> bytes:
        """The body to send: the piece's records after InputFilter, a newline after each; a record that goes alone has
        none. Raises ``BadRecords``."""
        if self._input_filter is None:
            return _without_newline(piece.body) if piece.count == 1 and self._split == "Line" else piece.body
        texts = self._work(piece, self._input_filter, self._inputs(piece))
        return b"\n".join(texts) + (b"\n" if len(texts) > 1 else b"")

    def result(self, piece: Piece, answer: bytes, source: str = "") -> bytes:
        """What to append to the output for the model's answer. ``source`` names the job and the object: inference ids
        are made of it and the record's index, so they are the same when a piece is done again.

        Raises ``BadRecords``: with its ``record`` when one cannot be joined or filtered, without when the answer has
        another number of records than the piece."""
        if self._as_it_comes:
            return _without_newline(answer) + b"\n" if self._assemble == "Line" else answer
        language, texts = _LANGUAGES[self._writes], self._answers(piece, answer)
        if self._joins:
            inputs = self._inputs(piece)
            self._check_count(piece, len(inputs), len(texts))
            if self._only_weaves:
                return woven(inputs, texts)
            texts = self._work(piece, lambda answers: language.joined(inputs, answers), texts)
        if self._output_filter:
            texts = self._work(piece, self._output_filter, texts)
        if self._ids:
            if self._split != "None":
                self._check_count(piece, piece.count, len(texts))
            ids = inference_ids(source, piece.first, len(texts))
            texts = self._work(piece, lambda results: language.identified(results, ids, self._time), texts)
        return b"\n".join(texts) + (b"\n" if self._assemble == "Line" or answer.endswith(b"\n") else b"")

    def result_for_bad(self, count: int = 1) -> bytes:
        """What stands in the output for records that failed: an empty line each where line numbers tell which result
        is whose (AssembleWith Line without join), else nothing."""
        return b"\n" * count if self._assemble == "Line" and not self._joins else b""

    def _inputs(self, piece: Piece) -> Texts:
        if self._split == "Line" or self._reads != JSON:
            return lines(piece.body)
        return [piece.body]

    def _answers(self, piece: Piece, answer: bytes) -> Texts:
        """The answer's records. One JSON document may be written over many lines; a line has room for one."""
        if self._writes != JSON or (self._split == "Line" and piece.count > 1):
            return lines(answer) or [b""] * (piece.count == 1)
        if self._assemble == "Line" and b"\n" in answer.strip():
            return self._work(piece, lambda texts: [_on_one_line(text) for text in texts], [answer])
        return [answer.strip()]

    def _work(self, piece: Piece, work: Filter, texts: Texts) -> Texts:
        try:
            return work(texts)
        except BadText as error:
            if piece.count == 1 or len(texts) == piece.count:
                record = piece.first + min(error.index, piece.count - 1)
                raise BadRecords(f"Record {record + 1}: {error}.", record) from None
            raise BadRecords(f"Line {error.index + 1} of the answer: {error}.") from None

    def _check_count(self, piece: Piece, sent: int, answered: int) -> None:
        if sent != answered:
            raise BadRecords(f"{_COUNTS_DIFFER}: {sent} and {answered}", piece.first if piece.count == 1 else None)

    def _check_processing(self) -> None:
        """What filters and joins need of the rest of the job (SageMaker API, DataProcessing)."""
        if self._reads not in _LANGUAGES:
            raise ValidationError(f"DataProcessing needs ContentType to be {CSV}, {JSON} or {JSON_LINES}.")
        if self._writes != self._reads:
            raise ValidationError(f"DataProcessing needs Accept to be the same format as ContentType, {self._reads}.")
        if self._split not in ("None", "Line"):
            raise ValidationError(f"DataProcessing cannot work on records of SplitType {self._split}.")
        if self._split != self._assemble:
            raise ValidationError(
                f"DataProcessing needs AssembleWith to be the same as SplitType, {self._split}, not {self._assemble}."
            )


def inference_ids(source: str, first: int, count: int) -> Iterator[str]:
    """The ids of ``count`` records from index ``first`` of an object on: ``uuid5`` of the index in the namespace that
    is ``uuid5`` of ``source``, the same every time."""
    seed = hashlib.sha1(uuid.uuid5(uuid.NAMESPACE_URL, source).bytes, usedforsecurity=False)
    for index in range(first, first + count):
        digest = seed.copy()
        digest.update(b"%d" % index)
        text = digest.hexdigest()
        variant = "89ab"[int(text[16], 16) & 3]
        yield f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def _on_one_line(text: bytes) -> bytes:
    try:
        return written(read(text))
    except (ValueError, RecursionError):
        raise BadText(0, "the model's answer is not JSON") from None


def _without_newline(body: bytes) -> bytes:
    """Less the one newline at its end, if there is one."""
    return body[: -2 if body.endswith(b"\r\n") else -1] if body.endswith(b"\n") else body


def _check_header(content_type: str, split: str) -> None:
    """A header belongs to an object's first request only, and would be looked for in each."""
    parameters = content_type.lower().replace(" ", "").split(";")[1:]
    if split != "None" and "header=present" in parameters:
        raise ValidationError("CSV with a header cannot be split: use objects without one, or SplitType None.")
