"""TorchScript and ``torch.export`` programs. Both formats are code: ``registry.load`` has asked for consent.

Nothing is unpickled here beyond what ``torch.jit.load`` and ``torch.export.load`` do themselves. ONNX answers the same
models two to six times sooner and is data only: better for new artifacts.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from serving.codecs.base import InputSpec, Outputs, TensorSpec
from serving.errors import BadInput, LoadFailed, OutOfMemory, PredictionFailed
from serving.runtimes import fit
from serving.runtimes.base import Artifact, LoadSettings, TensorModel
from serving.runtimes.failures import is_out_of_memory, said

#: How PyTorch words a shape or dtype that does not fit; it has no exception type of its own for them.
_INPUT_WORDS = (
    "shape",
    "size of tensor",
    "dimension",
    "channels",
    "expected input",
    "dtype",
    "index out of range",
    "guard",
)

#: First layer of a TorchScript program -> axes that its input has after rows and channels.
_SPATIAL_AXES = {"Linear": 0, "BatchNorm1d": 0, "Conv1d": 1, "Conv2d": 2, "BatchNorm2d": 2, "Conv3d": 3}


class TorchModel(TensorModel):
    """A program from tensors to a tensor, a sequence or a dictionary of them."""

    def __init__(self, module: Callable[..., Any], spec: InputSpec, engine: str) -> None:
        """``module`` takes one positional tensor per input of ``spec``."""
        self._module: Callable[..., Any] | None = module
        self.spec = spec
        self.engine = engine

    def predict(self, inputs: np.ndarray | dict[str, np.ndarray]) -> Outputs:
        """Run the program without gradients. Raises BadInput for shapes it does not take."""
        import torch

        feeds = self._fitted(inputs)
        try:
            with torch.inference_mode():
                answer = self._module(*(torch.from_numpy(feeds[one.name]) for one in self.spec.tensors))  # type: ignore[misc]  # closed models are not called
        except Exception as error:
            raise _translated(error) from error
        return _arrays(answer)

    def set_threads(self, threads: int) -> None:
        """PyTorch has one thread pool for the whole process."""
        import torch

        torch.set_num_threads(threads)

    def close(self) -> None:
        """Drop the program and its weights."""
        self._module = None
        gc.collect()

    def _fitted(self, inputs: np.ndarray | dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: _writable(values) for name, values in fit.tensors(inputs, self.spec).items()}


class ScriptedModel(TorchModel):
    """TorchScript: it names its inputs and says nothing of their shapes, so neither do we before it has tried."""

    def _fitted(self, inputs: np.ndarray | dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = self.spec.tensors
        if not isinstance(inputs, dict):
            inputs = {tensors[0].name: inputs}
        if set(inputs) != {tensor.name for tensor in tensors}:
            raise BadInput(f"the model reads the inputs {', '.join(tensor.name for tensor in tensors)}")
        return {tensor.name: _writable(fit.cast(inputs[tensor.name], tensor)) for tensor in tensors}


def load_script(artifact: Artifact, settings: LoadSettings) -> TensorModel:
    """A TorchScript file, in evaluation mode on the CPU."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that TorchScript is old news is the artifact's affair
        module = torch.jit.load(str(artifact.file), map_location="cpu").eval()
    arguments = module.forward.schema.arguments[1:]
    needed = [one for one in arguments if not one.has_default_value()]
    if not needed or any(str(one.type) != "Tensor" for one in needed):
        raise LoadFailed("the TorchScript model's forward takes something else than tensors")
    dtype, shape = _first_layer(module) if len(needed) == 1 else ("float32", (None, None))
    spec = InputSpec(tuple(TensorSpec(one.name, dtype, shape) for one in needed), fill=0.0)
    model = ScriptedModel(module, spec, "torchscript")
    model.set_threads(settings.threads)
    return model


def load_exported(artifact: Artifact, settings: LoadSettings) -> TensorModel:
    """A ``.pt2`` file. Shapes and dtypes are those it was exported with; a free first axis makes it batchable."""
    import torch

    program = torch.export.load(str(artifact.file))
    names = set(program.graph_signature.user_inputs)
    inputs = (node for node in program.graph.nodes if node.op == "placeholder" and node.name in names)
    values = {node.name: node.meta["val"] for node in inputs}
    if not values or any(not isinstance(value, torch.Tensor) for value in values.values()):
        raise LoadFailed("the exported program takes something else than tensors")
    spec = InputSpec(tuple(_tensor(name, value) for name, value in values.items()), fill=0.0)
    model = TorchModel(program.module(), spec, "torch.export")
    leads = {tensor.shape[0] if tensor.shape else 0 for tensor in spec.tensors}
    model.batchable = leads == {None}
    fixed = min((size for size in leads if size is not None), default=None)
    model.max_batch_rows = _most_rows(program, values) if model.batchable else fixed
    model.set_threads(settings.threads)
    return model


def _first_layer(module: Any) -> tuple[str, tuple[int | None, ...]]:
    """dtype and shape that the program reads, judged by its first layer with weights; TorchScript itself keeps neither.
    Where the layer is an unknown one: float32 rows of any width."""
    for layer in module.modules():
        weight = getattr(layer, "weight", None)
        if weight is None:
            continue
        kind, width = layer.original_name, int(weight.shape[1]) if weight.dim() > 1 else int(weight.shape[0])
        if kind == "Embedding":
            return "int64", (None, None)
        if kind in _SPATIAL_AXES:
            return "float32", (None, width, *(None for _ in range(_SPATIAL_AXES[kind])))
        break
    return "float32", (None, None)


def _tensor(name: str, value: Any) -> TensorSpec:
    dtype = str(value.dtype).removeprefix("torch.")
    return TensorSpec(name, dtype, tuple(size if isinstance(size, int) else None for size in value.shape))


def _most_rows(program: Any, values: dict[str, Any]) -> int | None:
    """The upper bound on a free first axis that the program was exported with, if any."""
    bounds = {str(symbol): bound.upper for symbol, bound in program.range_constraints.items()}
    found = [bounds.get(str(value.shape[0])) for value in values.values()]
    finite = [int(bound) for bound in found if bound is not None and str(bound).isdecimal()]
    return min((bound for bound in finite if bound < 2**31), default=None)


def _writable(values: np.ndarray) -> np.ndarray:
    """torch wants memory it could write to; what came off the wire is often read-only."""
    return values if values.flags.writeable and values.flags.c_contiguous else values.copy()


def _translated(error: Exception) -> BadInput | OutOfMemory | PredictionFailed:
    if is_out_of_memory(error):
        return OutOfMemory("there is not enough memory for this prediction")
    text = _telling(str(error))
    if any(word in text.lower() for word in _INPUT_WORDS):
        return BadInput(f"the model refused its input: {said(text)}")
    return PredictionFailed(f"PyTorch could not predict: {type(error).__name__}: {said(text)}")


def _telling(text: str) -> str:
    """TorchScript reports a trace of its own first; the reason is on its last line."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines and "Traceback of TorchScript" in text else text


def _arrays(answer: Any) -> Outputs:
    import torch

    if isinstance(answer, torch.Tensor):
        return np.atleast_1d(answer.detach().numpy())
    if isinstance(answer, dict):
        named = {str(name): value for name, value in answer.items()}
    elif isinstance(answer, tuple | list):
        named = {f"output_{index}": value for index, value in enumerate(answer)}
    else:
        named = {}
    if not named or any(not isinstance(value, torch.Tensor) for value in named.values()):
        raise PredictionFailed(f"the model answered with a {type(answer).__name__}, which is no tensor")
    return {name: np.atleast_1d(value.detach().numpy()) for name, value in named.items()}
