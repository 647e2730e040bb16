"""fastText's files read with NumPy: beside the library itself, and files that are damaged or hostile."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import LoadFailed
from serving.runtimes.algorithms import fasttext, ngrams
from tests.runtimes.texts import FILMS, softmax

#: Words of one, two and three bytes a letter, and one of a single letter.
WORDS = ("bär", "日本", "cat", "dog", "a", "whale", "œuf", "x" * 40, "é", "boat")
LABELS = "ABCDEFG"
#: Name -> how it is trained: every loss, with and without n-grams of words and of letters.
KINDS: dict[str, dict[str, Any]] = {
    "softmax": {"loss": "softmax"},
    "pairs": {"loss": "softmax", "wordNgrams": 3},
    "subwords": {"loss": "softmax", "minn": 2, "maxn": 4},
    "tree": {"loss": "hs", "minn": 1, "maxn": 3, "wordNgrams": 2},
    "each": {"loss": "ova"},
    "negative": {"loss": "ns", "wordNgrams": 2},
}
#: Enough buckets to be quantised.
LARGE = KINDS["subwords"]
TEXTS = (
    "cat dog",
    "bär 日本 never seen",
    "aa",
    "bb\tcc é\x0bœufs\x00dog",
    "x" * 200 + " a",
    "__label__A cat __label__Z",
    "dog </s> bb bb bb",
    "zzz qqq",
    "",
)

Pair = tuple[fasttext.FastText, Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """A kind's model, as read here and as the library has it; trained at its first use."""
    library = pytest.importorskip("fasttext")
    folder = tmp_path_factory.mktemp("fasttext")
    dice, made = random.Random(3), {}
    lines = []
    for _ in range(300):
        label = dice.choice(LABELS)
        lines.append(f"__label__{label} {' '.join(dice.choices(WORDS, k=dice.randint(1, 9)))} {label.lower() * 2}\n")
    (folder / "lines.txt").write_text("".join(lines))

    def model(kind: str) -> Pair:
        if kind not in made:
            options: dict[str, Any] = {"dim": 12, "epoch": 5, "bucket": 1000, "thread": 1, "verbose": 0}
            if kind == "words":
                options |= {"model": "skipgram", "minn": 2, "maxn": 4, "minCount": 1}
                found = library.train_unsupervised(str(folder / "lines.txt"), **options)
            else:
                found = library.train_supervised(str(folder / "lines.txt"), **options, **KINDS.get(kind, LARGE))
            found.save_model(str(folder / f"{kind}.bin"))
            made[kind] = fasttext.read(folder / f"{kind}.bin"), found
        return made[kind]

    return model


@pytest.fixture(scope="module")
def whole() -> bytes:
    """A small file, with buckets."""
    return FILMS._replace(rows=(*FILMS.rows, (1.0, 1.0), (2.0, 0.0)), buckets=2, word_grams=2).content()


def written(path: Path, content: bytes) -> Path:
    """``path`` with that content."""
    path.write_bytes(content)
    return path


def same(ours: fasttext.FastText, library: Any, text: str) -> None:
    """The same labels with the same probabilities; the library's are 0.00001 too large for each of its logarithms."""
    expected = {label: chance for chance, label in library.f.predict(f"{text}\n", 7, 0.0, "strict")}
    labels, chances = ours.best(text, 7)
    assert expected == pytest.approx(dict(zip(labels, chances.tolist(), strict=True)), abs=3e-5)
    assert sorted(chances.tolist(), reverse=True) == chances.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_texts_have_the_labels_of_the_library(trained: Callable[[str], Pair], kind: str) -> None:
    """Known and unknown words, letters of several bytes, all of its blanks, labels, an end in its midst."""
    for text in TEXTS:
        same(*trained(kind), text)


@settings(max_examples=40)
@given(
    words=st.lists(st.one_of(st.sampled_from(WORDS), st.text(st.characters(exclude_characters="\n\r"), max_size=9))),
    kind=st.sampled_from(sorted(KINDS)),
)
def test_any_text_has_the_labels_of_the_library(trained: Callable[[str], Pair], words: list[str], kind: str) -> None:
    """Whatever is written in it."""
    same(*trained(kind), " ".join(words))


@pytest.mark.parametrize("kind", ["words", "subwords", "softmax"])
def test_words_have_the_vectors_of_the_library(trained: Callable[[str], Pair], kind: str) -> None:
    """Those that were never seen too, from their letters; zeros where there are no letters to go by."""
    ours, library = trained(kind)
    for word in (*WORDS, "unseen", "éé", "日", "</s>", "x" * 300):
        assert pytest.approx(library.get_word_vector(word), abs=1e-6) == ours.vector(word)
    assert (kind == "softmax") == (not ours.vector("unseen").any())


def test_line_ends_are_blanks(trained: Callable[[str], Pair]) -> None:
    """The library refuses them; who sends a mail has them."""
    ours, _ = trained("pairs")
    assert ours.best("cat dog\nbb\r\n", 3)[1].tolist() == ours.best("cat dog bb", 3)[1].tolist()


def test_quantised_model_is_refused_with_advice(trained: Callable[[str], Pair], tmp_path: Path) -> None:
    """A ``.ftz`` of the library's own."""
    _, library = trained("to be quantised")
    library.quantize()
    library.save_model(str(tmp_path / "model.ftz"))
    with pytest.raises(LoadFailed, match="quantised, which this server does not read: give it the"):
        fasttext.read(tmp_path / "model.ftz")


def test_probabilities_are_a_softmax_of_the_mean(tmp_path: Path) -> None:
    """By the formula: the rows of a line and of its end, their mean, the labels' scores."""
    model = fasttext.read(written(tmp_path / "model.bin", FILMS.content()))
    labels, chances = model.best("a good good film", 2)
    assert ["__label__praise", "__label__blame"] == labels
    assert pytest.approx(softmax(12.0 / 4, 0.0)) == chances.tolist()


def test_text_of_which_nothing_is_known_has_no_label(tmp_path: Path) -> None:
    """Only where not even a line's end is known, as in the library."""
    endless = FILMS._replace(words={"good": 5}, rows=((6.0, 0.0),))
    assert [] == fasttext.read(written(tmp_path / "model.bin", endless.content())).best("what", 1)[0]


def test_classifier_of_the_version_before_has_no_subwords(tmp_path: Path) -> None:
    """Its file says that it has, and the library knows better."""
    old = FILMS._replace(version=11, letters=(3, 6))
    assert not fasttext.read(written(tmp_path / "model.bin", old.content())).vector("unseen").any()


@pytest.mark.parametrize("text", ["x" * 100_000, "a " * 60_000, "日" * 70_000])
def test_long_texts_are_added_up_in_pieces_to_the_same(trained: Callable[[str], Pair], text: str) -> None:
    """More n-grams than are looked at together."""
    same(*trained("tree"), text)


def test_pieces_of_letters_are_bounded() -> None:
    """A word of any length costs as much memory at once as one of 32,768 letters."""
    assert max(map(len, ngrams.of_letters([b"x" * 100_000], 1, 6))) <= 1 << 15


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": 13}, "of version 13, not 11 or 12"),
        ({"pruned": 4}, "quantised"),
        ({"quantised": True}, "quantised"),
        ({"loss": 9}, "a loss of the unknown number 9"),
        ({"word_grams": 2}, "n-grams and no buckets"),
        ({"word_grams": 1 << 20, "buckets": 1}, "arguments are none of a training"),
        ({"buckets": 5}, "of another size than its words and buckets"),
        ({"buckets": 2**31 - 1}, "of another size than its words and buckets"),
        ({"labels": {}, "output": ((1.0, 0.0),)}, "without labels"),
        ({"loss": 1, "labels": {"a": -1, "b": 1}}, "cannot be true"),
        ({"loss": 1, "labels": {"a": 2**62, "b": 1}}, "cannot be true"),
        ({"words": {"</s>": 1, "good": 1, "bad": 1}, "labels": {"good": 1, "x": 1}}, "out of order"),
    ],
)
def test_files_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    """In a sentence that says what is wrong with them."""
    with pytest.raises(LoadFailed, match=why):
        fasttext.read(written(tmp_path / "model.bin", FILMS._replace(**changes).content()))


def test_file_cut_anywhere_is_refused(tmp_path: Path, whole: bytes) -> None:
    """At each of its bytes."""
    for length in range(len(whole)):
        with pytest.raises(LoadFailed):
            fasttext.read(written(tmp_path / "model.bin", whole[:length]))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(min_value=4), bits=st.integers(1, 255), text=st.text(max_size=30))
def test_file_with_any_byte_turned_is_refused_or_answers(
    tmp_path: Path, whole: bytes, at: int, bits: int, text: str
) -> None:
    """Nothing but LoadFailed comes of it, and no endless work."""
    content = bytearray(whole)
    content[4 + at % (len(whole) - 4)] ^= bits
    try:
        model = fasttext.read(written(tmp_path / "model.bin", bytes(content)))
    except LoadFailed:
        return
    with np.errstate(all="ignore"):
        assert len(model.best(text, 3)[0]) <= 3
        assert 2 == len(model.vector(text))
