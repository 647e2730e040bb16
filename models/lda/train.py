"""Twenty topics of the Spam Assassin mails, found by scikit-learn, as SageMaker's LDA answers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from models import samples, topics
from models.cards import Card
from models.data import SEED, Floats
from models.lda import graph
from models.packaging import onnx_bytes, onnx_run
from models.recipes import Tell

PASSES = 10
STEPS = 100
PRIOR = 0.1
AIM = 500.0
SAMPLE_ROWS = 20


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Fit, write the inference as ``model.onnx``, foretell the second half of mails nobody saw. ``effort``: share of
    the passes over the mails."""
    tell(0.02, "reading mails")
    data = topics.counts()
    model = _fitted(data.train, max(1, round(effort * PASSES)), tell)
    onnx = onnx_bytes(graph.of(model.exp_dirichlet_component_, PRIOR, STEPS, into.name))
    (into / "model.onnx").write_bytes(onnx)
    (into / "vocab.txt").write_text("\n".join(data.vocabulary) + "\n")
    (into / "algorithm.json").write_text(json.dumps({"Algorithm": "lda", "Model": "model.onnx"}) + "\n")

    tell(0.9, "judging held-out mails")
    chances = model.components_ / model.components_.sum(axis=1, keepdims=True)
    read, unread = topics.halves(data.held)
    score = topics.score(onnx_run(onnx, {"counts": read})["topic_mixture"] @ chances, unread, data.train)
    rows = topics.shown(data)
    answers = [{"topic_mixture": row.astype(np.float32)} for row in model.transform(rows)]
    return Card(
        name=into.name,
        title="LDA: topics of mails",
        artifact=into.name,
        framework="onnx",
        data=topics.source(data),
        score=dataclasses.replace(score, aim=AIM if effort >= 1 else None),
        inputs=f"how often each of the {len(data.vocabulary)} words of `vocab.txt` is in a mail",
        outputs=f"`topic_mixture`, the part of each of the {topics.TOPICS} topics; their sum is 1",
        limits=(
            *topics.LIMITS,
            f"{STEPS} steps of inference for every row, as many as scikit-learn is told to take: for three mails in a "
            "hundred the mixture would still move by more than 0.001.",
            "A row without any word of the vocabulary is answered with all topics alike.",
        ),
        samples=topics.samples_of(rows, answers, (samples.CSV, samples.JSON, samples.RECORDIO)),
        training=f"Variational Bayes in {PASSES} passes; the inference is a graph of scikit-learn's own steps.",
        extra=topics.extra(data, chances),
    )


def _fitted(rows: Floats, passes: int, tell: Tell) -> Any:
    """scikit-learn's model. From here on it infers in exactly ``STEPS`` steps, as the graph does; by itself it stops
    where a step changes little."""
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import LatentDirichletAllocation

    # All mails as one batch and a decay of 0: each partial fit is one pass of the batch method.
    model = LatentDirichletAllocation(
        topics.TOPICS,
        doc_topic_prior=PRIOR,
        learning_decay=0.0,
        batch_size=len(rows),
        total_samples=len(rows),
        random_state=SEED,
    )
    sparse = csr_matrix(rows, dtype=np.float64)
    for done in range(passes):
        tell(0.3 + 0.6 * done / passes, f"pass {done + 1} of {passes}")
        model.partial_fit(sparse)
    return model.set_params(max_doc_update_iter=STEPS, mean_change_tol=0.0)
