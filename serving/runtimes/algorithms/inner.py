"""The model file that a declaration names, loaded by the runtime of its format."""

from __future__ import annotations

from serving.errors import LoadFailed
from serving.runtimes import formats, registry
from serving.runtimes.base import LoadSettings, TensorModel
from serving.runtimes.declaration import NAME, Declaration


def model(
    declared: Declaration, settings: LoadSettings, key: str = "Model", default: str = "model.onnx"
) -> TensorModel:
    """The runtime's own model of the file that the setting ``key`` names. Raises LoadFailed, CodeNotAllowed."""
    file = declared.file(key, default)
    found = registry.load(formats.recognise(file), settings)
    if not isinstance(found, TensorModel):
        raise LoadFailed(f"{NAME}: {key} names a script, where a model of arrays is needed")
    return found
