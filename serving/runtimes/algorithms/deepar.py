"""DeepAR: series in, sample paths of what follows, and of those their mean and quantiles (``behaviour/10``).

The model is one graph, a step of a recurrent net; the loop over steps is here, so one file serves any horizon.

=================  ==================================================================================================
setting            meaning
=================  ==================================================================================================
Model              inputs ``features`` [rows, steps, n], ``hidden`` [rows, m] and, with Cardinality, ``cat`` [rows, c]
                   (int64); outputs ``location`` and ``spread`` [rows, steps], ``next_hidden`` [rows, m]
TimeFreq           how long a step is: ``M``, ``W``, ``D``, ``H``, ``min``, a number before it (``30min``)
ContextLength      steps that the net reads before it forecasts
PredictionLength   steps that it forecasts
Lags               how many steps before a step are the values that the net sees, 1 among them
TimeFeatures       what it is told of a step's time, of ``timeline.PARTS``; none unless said
DynamicFeatures    how many ``dynamic_feat`` a request must have; none unless said
Cardinality        how many values each of ``cat`` has; none unless said
Scales             usual size of a series' values, one for each value of the first of ``cat`` (or one): for series
                   without any past
Likelihood         ``gaussian`` or ``student-T``, which has ``Degrees`` of freedom (above 2)
=================  ==================================================================================================

A step's features, in this order: the values at the lags, divided by the series' scale, 0 where unknown; for each lag 1
where it is known, else 0; the waves of TimeFeatures; the dynamic features. Scale: the mean size of the context.

Sampling is seeded by the series' ``start`` and ``target``: the same request has the same answer, alone or among
others, and a what-if (another ``dynamic_feat``) is drawn with the same chances.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from serving.errors import BadInput, LoadFailed, PredictionFailed
from serving.runtimes.algorithms import bodies, inner, timeline
from serving.runtimes.algorithms.deepar_request import LARGEST, Asked, Form, Series, asked, series
from serving.runtimes.base import LoadSettings, ScriptCall, ScriptModel, ScriptReply, TensorModel
from serving.runtimes.declaration import NAME, Declaration

_READS = (bodies.JSON, bodies.LINES)
#: Sample paths that go through the net together: more is no faster, and takes memory.
_ROWS = 2048
#: Most numbers that one request may have drawn and answered, steps times samples, quantiles and mean: some two seconds
#: of work.
MOST_NUMBERS = 1_000_000
_MOST_STEPS = 10_000


class DeepAR(ScriptModel):
    """A loaded forecaster."""

    engine = "deepar"

    def __init__(self, model: TensorModel, form: Form, width: int, default: Asked, batch: bool) -> None:
        """``width``: numbers in the hidden state; ``default``: what is answered where a request does not say;
        ``batch``: whether it serves a batch transform, whose bodies are lines."""
        self._model = model
        self._form = form
        self._width = width
        self._default = default
        self._reads = _READS[::-1] if batch else _READS
        self._usual = self._reads[0]

    def transform(self, call: ScriptCall) -> ScriptReply:
        """Forecasts of all series of a body. Raises BadInput, UnsupportedContentType, NotAcceptable."""
        accept, _ = bodies.accepted(call.accept, self._usual, _READS)
        found = bodies.instances(call.body, call.content_type, self._reads)
        wanted = asked(found.configuration, self._default)
        each = wanted.samples + len(wanted.quantiles) + 1
        if len(found.rows) * each * self._form.horizon > MOST_NUMBERS:
            raise BadInput(
                f"{len(found.rows)} series of {self._form.horizon} steps with {wanted.samples} samples and "
                f"{len(wanted.quantiles)} quantiles each are more than the {MOST_NUMBERS} numbers that one request may "
                "ask for: send fewer series, or ask for a smaller num_samples"
            )
        together = max(1, _ROWS // wanted.samples)
        answers = [
            _answer(paths, wanted)
            for at in range(0, len(found.rows), together)
            for paths in self._paths(self._read(found.rows[at : at + together], at), wanted.samples)
        ]
        if accept == bodies.LINES:
            return ScriptReply(b"".join(_json(answer) + b"\n" for answer in answers), accept)
        return ScriptReply(_json({"predictions": answers}), accept)

    def set_threads(self, threads: int) -> None:
        """The graph's own."""
        self._model.set_threads(threads)

    def close(self) -> None:
        """Drop the graph."""
        self._model.close()

    def rehearse(self) -> None:
        """Two steps of zeros, so that a graph that answers otherwise is told when it is loaded. Raises LoadFailed."""
        form = self._form
        lagged, known, hidden, cat = (
            np.zeros(shape, np.float32)
            for shape in ((1, 2, len(form.lags)), (1, 2, form.known), (1, self._width), (1, len(form.cardinality)))
        )
        try:
            self._step(lagged, known, hidden, cat)
        except (BadInput, PredictionFailed) as error:
            raise LoadFailed(f"{NAME}: the model is no step of a forecaster: {error}") from error

    def _read(self, rows: Sequence[Any], before: int) -> list[Series]:
        """Some of a body's instances, ``before`` of which are read already."""
        return [series(row, self._form, f"instance {before + number}") for number, row in enumerate(rows, 1)]

    # -- forecasting ---------------------------------------------------------------------------------------------------

    def _paths(self, group: Sequence[Series], samples: int) -> np.ndarray:
        """Sample paths of several series: float64 [series, samples, horizon], in the series' own units."""
        form = self._form
        scale = np.array([[one.scale] for one in group])
        with np.errstate(over="ignore"):  # a giant before a context of dwarfs
            past = np.clip(np.stack([one.past for one in group]) / scale, -LARGEST, LARGEST).astype(np.float32)
        known = np.stack([one.known for one in group])
        cat = np.stack([one.cat for one in group])
        _, _, hidden = self._step(
            past[:, _lagged(form.lags, past.shape[1] - form.context, form.context)],
            known[:, : form.context],
            np.zeros((len(group), self._width), np.float32),
            cat,
        )
        noise = np.stack([_noise(one, form, samples) for one in group])
        drawn = [
            self._continued(past, known[:, form.context :], hidden, cat, noise[:, at : at + _ROWS])
            for at in range(0, samples, _ROWS)
        ]
        paths = np.concatenate(drawn, axis=1) * scale[:, :, None]
        if not np.isfinite(paths).all():
            raise PredictionFailed("the model's forecast is not finite")
        return np.asarray(paths)

    def _continued(
        self, past: np.ndarray, known: np.ndarray, hidden: np.ndarray, cat: np.ndarray, noise: np.ndarray
    ) -> np.ndarray:
        """What follows ``past``, scaled, each step drawn given the drawn ones before it ("ancestral sampling"):
        [series, samples, horizon]. ``noise``: [series, samples, horizon] of the standard distribution."""
        samples, horizon = noise.shape[1:]
        rows, before = len(past) * samples, past.shape[1]
        seen = np.empty((rows, before + horizon), np.float32)
        seen[:, :before] = np.repeat(past, samples, axis=0)
        known, hidden, cat = (np.repeat(part, samples, axis=0) for part in (known, hidden, cat))
        noise = noise.reshape(rows, horizon)
        for step in range(horizon):
            lagged = seen[:, _lagged(self._form.lags, before + step, 1)]
            location, spread, hidden = self._step(lagged, known[:, step : step + 1], hidden, cat)
            seen[:, before + step] = location[:, 0] + spread[:, 0] * noise[:, step]
        return seen[:, before:].astype(np.float64).reshape(len(past), samples, horizon)

    def _step(
        self, lagged: np.ndarray, known: np.ndarray, hidden: np.ndarray, cat: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Location and spread [rows, steps] of each step, the state after them. ``lagged``: [rows, steps, lags]."""
        seen = np.isfinite(lagged)
        features = np.concatenate([np.where(seen, lagged, np.float32(0)), seen, known], axis=2, dtype=np.float32)
        feeds = {"features": features, "hidden": hidden}
        if self._form.cardinality:
            feeds["cat"] = cat.astype(np.int64, copy=False)
        found = self._model.predict(feeds)
        if not isinstance(found, dict) or any(name not in found for name in ("location", "spread", "next_hidden")):
            raise PredictionFailed("it must answer with location, spread and next_hidden")
        location, spread, after = found["location"], found["spread"], found["next_hidden"]
        if location.shape != features.shape[:2] or spread.shape != location.shape or after.shape != hidden.shape:
            raise PredictionFailed("it answers with arrays of other shapes than its inputs have")
        return location, spread, after


def load(declared: Declaration, settings: LoadSettings) -> ScriptModel:
    """The forecaster that ``algorithm.json`` declares. Raises LoadFailed."""
    form = _form(declared)
    batch = settings.environment.get("SAGEMAKER_BATCH", "").lower() == "true"
    default = _configured(settings.environment.get("DEEPAR_INFERENCE_CONFIG", ""))
    model = inner.model(declared, settings)
    inputs = {tensor.name: tensor.shape for tensor in model.spec.tensors}
    expected = {"features": 2 * len(form.lags) + form.known, "hidden": None}
    if form.cardinality:
        expected["cat"] = len(form.cardinality)
    if set(inputs) != set(expected):
        raise LoadFailed(f"{NAME}: the model must have the inputs {', '.join(expected)}; it has {', '.join(inputs)}")
    for name, width in expected.items():
        found = inputs[name][-1] if inputs[name] else None
        if found is None or (width is not None and found != width):
            raise LoadFailed(f"{NAME}: the model's input {name!r} is {found} wide, the settings say {width}")
    forecaster = DeepAR(model, form, inputs["hidden"][-1] or 0, default, batch)
    forecaster.rehearse()
    return forecaster


def _form(declared: Declaration) -> Form:
    step = timeline.frequency(declared.text("TimeFreq"))
    if step is None:
        raise LoadFailed(f"{NAME}: TimeFreq must be M, W, D, H or min, a whole number before it")
    parts = declared.words("TimeFeatures", [])
    if not set(parts) <= set(timeline.PARTS):
        raise LoadFailed(f"{NAME}: TimeFeatures must be some of {', '.join(timeline.PARTS)}")
    lags = _whole(declared, "Lags", most=_MOST_STEPS)
    if not lags or len(lags) > 100:
        raise LoadFailed(f"{NAME}: Lags must be 1 to 100 whole numbers")
    cardinality = _whole(declared, "Cardinality", [])
    scales = declared.numbers("Scales", [1.0])
    if not all(0 < scale < 1e30 for scale in scales) or len(scales) not in {1, *cardinality[:1]}:
        raise LoadFailed(f"{NAME}: Scales must be one number above 0, or one for each value of the first of cat")
    return Form(
        step=step,
        context=declared.whole("ContextLength", most=_MOST_STEPS),
        horizon=declared.whole("PredictionLength", most=_MOST_STEPS),
        lags=np.array(lags),
        parts=tuple(parts),
        dynamic=declared.whole("DynamicFeatures", 0, least=0, most=1000),
        cardinality=tuple(cardinality),
        scales=tuple(scales),
        degrees=_degrees(declared),
    )


def _whole(declared: Declaration, key: str, default: Any = ..., most: int = 2**31 - 1) -> list[int]:
    numbers = declared.numbers(key) if default is ... else declared.numbers(key, default)
    if not all(number.is_integer() and 1 <= number <= most for number in numbers):
        raise LoadFailed(f"{NAME}: {key} must be whole numbers from 1 to {most}")
    return [int(number) for number in numbers]


def _degrees(declared: Declaration) -> float | None:
    """Degrees of freedom of the noise, None for normal noise."""
    likelihood = declared.text("Likelihood", "gaussian")
    if likelihood == "gaussian":
        return None
    degrees = declared.number("Degrees")
    if likelihood != "student-T" or not degrees > 2:
        raise LoadFailed(f"{NAME}: Likelihood must be gaussian, or student-T with more than 2 Degrees")
    return degrees


def _configured(text: str) -> Asked:
    """``DEEPAR_INFERENCE_CONFIG``, which says what a batch transform answers; AWS's defaults where it is not set."""
    if not text.strip():
        return Asked()
    try:
        return asked(orjson.loads(text), Asked())
    except (BadInput, ValueError) as error:
        raise LoadFailed(f"DEEPAR_INFERENCE_CONFIG is no configuration: {error}") from error


def _lagged(lags: np.ndarray, at: int, steps: int) -> np.ndarray:
    """Where the values lie that are seen at the steps ``at`` ...: [steps, lags]."""
    return np.asarray(at + np.arange(steps)[:, None] - lags)


def _noise(one: Series, form: Form, samples: int) -> np.ndarray:
    """[samples, horizon] of the standard distribution, by the series' seed: SHA-256 of start and target. More samples
    are the same ones and further ones."""
    digest = hashlib.sha256(one.start.encode() + one.target.astype("<f8").tobytes()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    size = samples, form.horizon
    return random.standard_normal(size) if form.degrees is None else random.standard_t(form.degrees, size)


def _answer(paths: np.ndarray, wanted: Asked) -> dict[str, Any]:
    """A series' answer of its sample paths [samples, horizon]."""
    answer: dict[str, Any] = {}
    if "mean" in wanted.types:
        answer["mean"] = paths.mean(axis=0)
    if "quantiles" in wanted.types:
        found = np.quantile(paths, [float(level) for level in wanted.quantiles], axis=0)
        answer["quantiles"] = dict(zip(wanted.quantiles, found, strict=True))
    if "samples" in wanted.types:
        answer["samples"] = np.ascontiguousarray(paths)
    return answer


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
