"""Predicting: forward passes recorded once per batch size, over fused layers."""

from __future__ import annotations

from contextvars import copy_context
from dataclasses import fields, is_dataclass
from typing import Any

from kernels.lowlevel import Arena, Array, Proof, Recording, Rehearsal, floating

from . import checks
from .fusion import fuse_for_prediction
from .network import Network
from .recordable import arrays_of, recordable, unchanged

_MOST_RECORDINGS = 4  # of different batch sizes; the oldest is dropped

_SETTINGS = ("float", float, "bool", bool, "int", int, "str", str)  # types of fields


class Inference:
    """The forward passes of a model, over the layers of `fuse_for_prediction`.

    The launches of a pass are recorded and replayed for every batch of the same size. They read
    the model's own parameters, so a replay uses their current values.

    Parameters
    ----------
    model : Network
        Its layers must be built.
    """

    def __init__(self, model: Network) -> None:
        self._model = model
        self._layers = fuse_for_prediction(model)
        self._recordable = all(map(recordable, model.layers))
        # Such as `BatchNorm.eps`: what launches take, and what may be set at any time.
        self._settings = [
            (layer, field.name)
            for layer in model.layers
            for field in (fields(layer) if is_dataclass(layer) else ())
            if field.type in _SETTINGS and field.name not in layer.built_with
        ]
        self._recordings: dict[Any, tuple[Recording, Array, Array]] = {}

    def __call__(self, images: Array, outputs: Array) -> None:
        """Write the outputs (N, ...) for images (N, ...), which `Sequential.prepare` takes."""
        # Threads take turns: they share the recordings' arrays and the attributes of the layers.
        with self._model.lock, self._model.target.on():
            if not self._recordable:
                outputs[...] = self._forward(images)
                return
            dtype = self._dtype(images.dtype)
            # A recorded launch holds the statistics and the layers' settings as arguments.
            statistics = self._model.pixel_mean, self._model.pixel_std
            settings = [getattr(layer, name) for layer, name in self._settings]
            key = (images.shape, dtype, *statistics, *settings)
            new = key not in self._recordings
            if new:
                while len(self._recordings) >= _MOST_RECORDINGS:
                    del self._recordings[next(iter(self._recordings))]
                # Ctrl-C may come as a recording ends, and leave it on: then only in this context.
                self._recordings[key] = copy_context().run(self._record, images, dtype)
            recording, source, result = self._recordings[key]
            with self._model.target.on(recording.arena.stream):
                if not new:  # recording a pass runs it
                    source[...] = images
                    recording.replay()
                outputs[...] = result

    def rehearse(self, rows: int, dtype: Any, rehearsal: Rehearsal) -> None:
        """Run a recordable pass for images (rows, ...) of a dtype, without its launches."""
        model = self._model
        if not self._recordable:
            return
        with unchanged(model.layers), rehearsal:
            images = model.target.empty((rows, *model.input_shape), self._dtype(dtype))
            self._forward(images)

    def _dtype(self, dtype: Any) -> Any:
        """Return the dtype of a recording's images: floating ones are cast before it."""
        return self._model.dtype if floating(dtype) else dtype

    def _record(self, images: Array, dtype: Any) -> tuple[Recording, Array, Array]:
        target, layers = self._model.target, self._model.layers
        source = target.fresh(images.shape, dtype)
        source[...] = images
        arena = Arena(target)
        rehearsal = Rehearsal(arena)
        self.rehearse(len(images), dtype, rehearsal)
        rehearsal.compile()
        held = arrays_of([self._model, *layers], type(source))
        proof, recording = Proof(target, held), Recording(arena, [source, *held])
        with recording:
            result = self._forward(source)
        proof.check([recording], [result])
        return recording, source, result

    def _forward(self, images: Array) -> Array:
        x = self._model.prepare(images)
        for layer in self._layers:
            x = layer.forward(x)
        found, expected = getattr(x, "shape", None), (len(images), *self._model.output_shape)
        if found != expected:  # it would be broadcast, or None become NaN
            got = checks.shown(x) if found is None else f"outputs of shape {found}"
            raise ValueError(
                f"model: its layers return {got}, expected shape {expected} by `build`"
            )
        return x
