"""OpenVINO on the CPU."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdist.engines.interface import Pictures
from segdist.engines.onnx_engine import OnnxEngine, pad_pixels
from segdist.models.onnx_file import CLASS_IDS, LOGITS

STATIC_SHAPES = 2
"""So many sizes are compiled for themselves, which is fastest; all further ones share a model of dynamic size."""
HINTS = {"fp32": "f32", "bf16": "bf16"}
NAMES = {"f32": "fp32", "float": "fp32", "bf16": "bf16", "f16": "fp16"}


class OpenVinoEngine(OnnxEngine):
    """An ONNX file in OpenVINO. The precision is always set: by default fp32 models would run in bf16 where the CPU
    has it. What an int8 model leaves in floating point runs in bf16 there, as ``describe`` says.

    Args:
        path: the file.
        precision: fp32, bf16 or int8; None takes the file's own.
        threads: threads of inference; 0 leaves it to OpenVINO.
        cache_dir: where compiled models are kept, so that they load in a fraction of the time; None keeps none.

    Raises:
        ConfigError: see :class:`~segdist.engines.onnx_engine.OnnxEngine`.
    """

    name = "openvino"
    file_precisions = ("fp32", "bf16")

    def __init__(
        self, path: Path, precision: str | None = None, threads: int = 0, cache_dir: Path | None = None
    ) -> None:
        self.cache_dir = cache_dir
        self.from_cache = False
        self._compiled: dict[tuple[str, tuple[int, ...]], Any] = {}
        self._latest: Any = None
        super().__init__(path, precision, threads)

    def _open(self) -> tuple[str, ...]:
        import openvino

        self._core: Any = openvino.Core()
        self._model: Any = self._core.read_model(str(self.path))
        return tuple(one.get_any_name() for one in self._model.outputs)

    @property
    def precision(self) -> str:
        """int8, or the floating-point precision that OpenVINO says it takes."""
        if self.wanted == "int8" or self._latest is None:
            return self.wanted
        return self._floating_point()

    def _floating_point(self) -> str:
        hint = self._latest.get_property("INFERENCE_PRECISION_HINT")
        name = hint.get_type_name()
        return NAMES.get(name, name)

    def _compile(self, shape: tuple[int, ...], hint: str = "LATENCY") -> Any:
        """The model for pictures of a shape, with an infer request of its own."""
        key = (hint, shape)
        if key not in self._compiled:
            if len(self._compiled) >= STATIC_SHAPES:
                key = (hint, ())
            if key not in self._compiled:
                self._compiled[key] = self._compile_now(key[1], hint)
        self._latest = self._compiled[key]
        return self._latest

    def _compile_now(self, shape: tuple[int, ...], hint: str) -> Any:
        start = time.perf_counter()
        rest = "bf16" if self.cpu.has_bf16 else "fp32"
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": hint,
            "INFERENCE_PRECISION_HINT": HINTS[rest if self.wanted == "int8" else self.wanted],
        }
        if self.threads:
            config["INFERENCE_NUM_THREADS"] = self.threads
        if self.cache_dir is not None:
            config["CACHE_DIR"] = str(self.cache_dir)
        model = self._model.clone()
        if shape:
            model.reshape(list(shape))
        compiled = self._core.compile_model(model, "CPU", config)
        self.from_cache = bool(compiled.get_property("LOADED_FROM_CACHE"))
        self.load_seconds += time.perf_counter() - start
        return compiled

    def _run(self, pixels: Pictures, output: str) -> NDArray[Any]:
        request = self._compile(pixels.shape).create_infer_request()
        request.infer([pixels], share_inputs=True)
        found: NDArray[Any] = request.get_tensor(output).data.copy()
        return found

    def map_class_ids(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Several pictures at a time, as many as OpenVINO finds best; what follows each one's net runs meanwhile."""
        output = CLASS_IDS if CLASS_IDS in self.outputs else LOGITS
        under_way: deque[tuple[Any, Any, int, int]] = deque()
        idle: dict[int, list[Any]] = {}

        def finish() -> NDArray[np.uint8]:
            compiled, request, height, width = under_way.popleft()
            request.wait()
            found = self._to_class_ids(request.get_tensor(output).data, height, width)[0]
            idle[id(compiled)].append(request)
            return found

        try:
            for picture in pictures:
                pixels = pad_pixels(picture[None])
                compiled = self._compile(pixels.shape, "THROUGHPUT")
                most = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
                if len(under_way) >= most:
                    yield finish()
                waiting = idle.setdefault(id(compiled), [])
                request = waiting.pop() if waiting else compiled.create_infer_request()
                request.start_async([pixels])
                under_way.append((compiled, request, *picture.shape[:2]))
            while under_way:
                yield finish()
        finally:
            for _, request, *_ in under_way:
                request.wait()

    def describe(self) -> dict[str, Any]:
        """What ``result.json`` says, with the number of convolutions that really run in each precision."""
        found = super().describe()
        if self._latest is not None:
            found |= {
                "floating_point": self._floating_point(),
                "convolutions": executed_precisions(self._latest),
                "loaded_from_cache": self.from_cache,
            }
        return found

    def close(self) -> None:
        """Give memory and threads back."""
        self._compiled.clear()
        self._latest = self._model = self._core = None


def executed_precisions(compiled: Any) -> dict[str, int]:
    """How many convolutions of a compiled model run in which precision, as its execution graph has it."""
    found = Counter[str]()
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if "Conv" in str(info["layerType"].astype(str)):
            found[info["runtimePrecision"].astype(str)] += 1
    return dict(sorted(found.items()))
