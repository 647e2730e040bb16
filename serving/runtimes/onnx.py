"""ONNX models through ONNX Runtime: data only, loaded by path so that external tensors stay inside the model's folder.

ONNX Runtime refuses external data that leads out of that folder (``../``, absolute, links), and all of it when a model
is loaded from bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.codecs.base import InputSpec, Outputs, TensorSpec
from serving.errors import BadInput, LoadFailed, OutOfMemory, PredictionFailed
from serving.runtimes import fit
from serving.runtimes.base import Artifact, LoadSettings, TensorModel
from serving.runtimes.failures import is_out_of_memory, said

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(string)": "str",
}
_QUIET = 4  # log severity: fatal only; errors come back as exceptions


def session(model: str | bytes, threads: int) -> Any:
    """An ``onnxruntime.InferenceSession`` of a file's path or of a model's bytes. Raises what ONNX Runtime raises."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    options.enable_cpu_mem_arena = False  # the arena never gives back; measured: no slower without
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are shared with other workers
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OnnxModel(TensorModel):
    """A graph. Inputs and outputs keep the names and dtypes of the graph; one output is answered bare."""

    def __init__(self, run: Any) -> None:
        """``run``: an InferenceSession. Raises LoadFailed for inputs that are no tensors of a numpy dtype."""
        self._session = run
        self._outputs = [output.name for output in run.get_outputs()]
        self.spec = InputSpec(tuple(_tensor(one) for one in run.get_inputs()), fill=0.0)
        self.engine = "onnxruntime"
        fixed = {tensor.shape[0] for tensor in self.spec.tensors if tensor.shape} - {None}
        self.max_batch_rows = min((size for size in fixed if size is not None), default=None)
        self.batchable = self._rows_are_free(run)

    def predict(self, inputs: np.ndarray | dict[str, np.ndarray]) -> Outputs:
        """Run the graph. Raises BadInput for shapes and dtypes it does not take, PredictionFailed otherwise."""
        feeds = fit.tensors(inputs, self.spec)
        results = self._run(feeds)
        answers = {name: _array(name, result) for name, result in zip(self._outputs, results, strict=True)}
        if self.batchable:
            rows = len(feeds[self.spec.tensors[0].name])
            if any(len(answer) != rows for answer in answers.values()):
                raise PredictionFailed(f"the model was given {rows} rows and answered with another number of them")
        return next(iter(answers.values())) if len(answers) == 1 else answers

    def close(self) -> None:
        """Drop the session; ONNX Runtime frees it with its last reference."""
        self._session = None

    def _run(self, feeds: dict[str, np.ndarray]) -> Sequence[Any]:
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

        try:
            results: Sequence[Any] = self._session.run(self._outputs, feeds)
        except InvalidArgument as error:
            raise BadInput(f"the model refused its input: {said(error)}") from error
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemory("there is not enough memory for this prediction") from error
            raise PredictionFailed(f"ONNX Runtime could not predict: {said(error)}") from error
        return results

    def _rows_are_free(self, run: Any) -> bool:
        """Whether axis 0 is the row everywhere. By the graph's own shapes: each input leads with the same free axis,
        each output with it or with an unnamed one. Where the names differ, two rows tell."""
        inputs, outputs = run.get_inputs(), run.get_outputs()
        if not inputs or any(not one.shape or isinstance(one.shape[0], int) for one in inputs):
            return False
        leads = {one.shape[0] for one in inputs}
        if len(leads) > 1:
            return False
        answers = {one.shape[0] for one in outputs if one.shape}
        if any(isinstance(lead, int) for lead in answers) or any(
            not one.shape and one.type.startswith("tensor") for one in outputs
        ):
            return False
        return answers <= {None, *leads} or self._two_rows_answer_two()

    def _two_rows_answer_two(self) -> bool:
        if any(None in tensor.shape[1:] for tensor in self.spec.tensors):
            return False
        shapes = {
            tensor.name: (2, *(size for size in tensor.shape[1:] if size is not None)) for tensor in self.spec.tensors
        }
        try:
            results = self._run(fit.tensors({name: np.zeros(shape) for name, shape in shapes.items()}, self.spec))
            return all(len(_array("", result)) == 2 for result in results)
        except (BadInput, PredictionFailed):
            return False


def load(artifact: Artifact, settings: LoadSettings) -> TensorModel:
    """A graph by path. Raises LoadFailed with what ONNX Runtime says of a damaged or foreign one."""
    return OnnxModel(session(str(artifact.file), settings.threads))


def _tensor(described: Any) -> TensorSpec:
    if described.type not in _DTYPES:
        raise LoadFailed(f"the model's input {described.name!r} is a {described.type}, which no request can hold")
    shape = tuple(size if isinstance(size, int) else None for size in described.shape)
    return TensorSpec(described.name, _DTYPES[described.type], shape)


def _array(name: str, result: Any) -> np.ndarray:
    """An output as an array. ZipMap's list of {class: score} becomes [rows, classes], in the classes' order."""
    if isinstance(result, list):
        if result and isinstance(result[0], dict):
            result = np.array([list(row.values()) for row in result], np.float32)
        else:
            try:
                result = np.array(result)
            except ValueError:
                raise PredictionFailed(f"the model's output {name!r} is a sequence of unlike tensors") from None
    if not isinstance(result, np.ndarray):
        raise PredictionFailed(f"the model's output {name!r} is no tensor")
    if result.dtype == object:
        result = result.astype(np.str_)
    return np.atleast_1d(result)
