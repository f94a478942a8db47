"""Models: networks that predict, and are saved and loaded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from kernels.lowlevel import Array, Rehearsal, choose_target

from . import checks, layers
from .formats import checkpoint
from .formats.checkpoint import CheckpointError, Content
from .host import to_host
from .inference import Inference
from .layers import Layer
from .network import Network
from .summary import summary

# What the layers and recordings share: another object in its place would be saved, but not used.
_SHARED = "layers parameters gradients state parameter_buffer gradient_buffer state_buffer".split()
# In grey levels; a deviation is above 0.
_STATISTICS = {"pixel_mean": checks.number(), "pixel_std": checks.number(1e-9)}


class Sequential(Network):
    """Layers applied one after the other; parameters and attributes are those of `Network`."""

    def __setattr__(self, name: str, value: Any) -> None:
        # It is the same object after an operation in place, such as *=.
        if name in _SHARED and vars(self).get(name, value) is not value:
            raise AttributeError(f"{name}: got another object, expected values set in place")
        if name in _STATISTICS:
            value = float(_STATISTICS[name](name, value))
        super().__setattr__(name, value)

    def predict(self, x: Any, batch_size: int = 1024) -> Array:
        """Return the outputs for images or other inputs x (N, ...), on the model's device.

        A forward pass takes `batch_size` inputs. Several threads may call it at once: their passes
        take turns.

        Raises
        ------
        TypeError, ValueError
            If dtype or shape do not fit the model, or `batch_size` is no whole number above 0.
        KernelError
            If a layer sets `recordable` but does more than launch kernels.
        """
        batch_size = checks.count("batch_size", batch_size)
        x = self._images(x)
        outputs = self.target.empty((len(x), *self.output_shape), self.dtype)
        for start in range(0, len(x), batch_size):
            stop = start + batch_size
            self._inference(x[start:stop], outputs[start:stop])
        return outputs

    def rehearse(self, rows: int, dtype: Any, rehearsal: Rehearsal) -> None:
        """Let `rehearsal` note the kernels that `predict` launches for images (rows, ...)."""
        self._inference.rehearse(rows, dtype, rehearsal)

    def summary(self, batch_size: int = 256) -> str:
        """Return a table of the layers' output shapes, parameters, operations and memory.

        Below it stand the units of the columns, and the memory of a step of `batch_size` images:
        activations, parameters and gradients. The optimizer's state is not counted.
        """
        return summary(self, checks.count("batch_size", batch_size))

    def save(self, path: str | Path) -> None:
        """Write architecture, parameters, state and normalisation to a safetensors file.

        Raises
        ------
        TypeError
            If a layer's settings cannot be saved; see `Layer.settings`.
        OSError
            If the file cannot be written; a file that was there is then unchanged.
        """
        with self.lock:
            checkpoint.write(path, self.content())

    @staticmethod
    def load(path: str | Path, device: str = "auto") -> Sequential:
        """Return the model in a file that `save` wrote; layers of your own must be imported.

        Raises
        ------
        CheckpointError
            If the file is not such a file, or names a layer that is not defined here.
        OSError
            If it cannot be read.
        ValueError, KernelError
            If there is no such device, or it does not work.
        """
        choose_target(device)  # its errors are not CheckpointErrors
        content = checkpoint.read(path)
        kinds = [_kind(path, name) for name, _ in content.architecture["layers"]]
        return _built(content, kinds, device, path)

    def architecture(self) -> dict[str, Any]:
        """Return what an equal model is made from, except its arrays.

        Raises
        ------
        TypeError
            If a layer's settings are not known, or no file can hold them; see `Layer.settings`.
        """
        return {
            "layers": [[_name(type(layer)), _settings(layer)] for layer in self.layers],
            "input_shape": self.input_shape,
            "dtype": self.dtype.name,
            "pixel_mean": self.pixel_mean,
            "pixel_std": self.pixel_std,
        }

    def content(self) -> Content:
        """Return what `save` writes."""
        return Content(
            self.architecture(), {name: to_host(array) for name, array in self.arrays.items()}
        )

    def fill(self, content: Content, source: str | Path) -> None:
        """Copy values into the model's arrays, in place.

        Parameters
        ----------
        content : Content
            Its architecture must be this model's.
        source : str or Path
            The file it was read from; errors begin with it.

        Raises
        ------
        CheckpointError
            If its arrays are not those of the model.
        """
        expected = {name: tuple(array.shape) for name, array in self.arrays.items()}
        if expected != {name: array.shape for name, array in content.arrays.items()}:
            raise CheckpointError(f"{source} holds other arrays than its architecture has")
        with self.lock, self.target.on():
            for name, array in self.arrays.items():
                array[...] = self.target.array(content.arrays[name])
        self.pixel_mean = content.architecture["pixel_mean"]
        self.pixel_std = content.architecture["pixel_std"]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle what `save` writes, and the layers' seeds and draws."""
        kinds = [type(layer) for layer in self.layers]
        with self.lock:
            draws = [(layer.seed, layer.draws) for layer in self.layers]
            content = checkpoint.to_bytes(self.content())
        return _copied, (content, kinds, draws, self.target.name)

    @cached_property
    def _inference(self) -> Inference:
        return Inference(self)


def _settings(layer: Layer) -> dict[str, Any]:
    """Return the settings of a layer, or raise TypeError if JSON does not hold one."""
    settings = layer.settings()
    for name, value in settings.items():
        if not _is_json(value):
            raise TypeError(
                f"{type(layer).__name__}: {name}: got {checks.shown(value)}, expected what JSON "
                "holds: numbers, strings, lists of them, dicts from strings to them, True, False "
                "or None; see `Layer.settings`"
            )
    return settings


def _is_json(value: Any) -> bool:
    """Whether JSON holds a value as it is, but for tuples, which become lists.

    json.dumps makes numbers of enumerations, and strings of keys.
    """
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(type(key) is str and _is_json(entry) for key, entry in value.items())
    return value is None or isinstance(value, float) or type(value) in (bool, int, str)


def _copied(
    content: bytes, kinds: Sequence[type[Layer]], draws: Sequence[tuple[int, int]], device: str
) -> Sequential:
    """Return a copy of the model in `content`; copying and unpickling a model call this.

    `kinds` are the classes of its layers, `draws` their attributes `seed` and `draws`.
    """
    source = "the pickled model"
    model = _built(checkpoint.from_bytes(content, source), kinds, device, source)
    for layer, (seed, drawn) in zip(model.layers, draws, strict=True):
        layer.seed, layer.draws = seed, drawn
    return model


def _built(
    content: Content, kinds: Sequence[type[Layer]], device: str, source: str | Path
) -> Sequential:
    """Return the model in `content`, whose layers are of these classes."""
    described = content.architecture
    layers = [
        _layer(source, kind, settings)
        for kind, (_, settings) in zip(kinds, described["layers"], strict=True)
    ]
    shape, dtype = tuple(described["input_shape"]), described["dtype"]
    try:
        model = Sequential(layers, shape, device=device, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source} holds a model that cannot be built here: {error}"
        ) from error
    model.fill(content, source)
    return model


def _name(kind: type[Layer]) -> str:
    """Return what a file calls a class: its name, after its module if a layer here has the name."""
    taken = vars(layers).get(kind.__name__, kind) is not kind
    return f"{kind.__module__}.{kind.__name__}" if taken else kind.__name__


def _kind(path: str | Path, name: str) -> type[Layer]:
    """Return the class of layers that a file calls so; of several, the last one defined."""
    found = [kind for kind in _kinds(Layer) if _name(kind) == name]
    if not found:
        raise CheckpointError(
            f"{path} has a layer {name}, which is not defined here; import the module that has it"
        )
    return found[-1]


def _kinds(kind: type[Layer]) -> list[type[Layer]]:
    """Return a class and all that derive from it."""
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]


def _layer(source: str | Path, kind: type[Layer], settings: dict[str, Any]) -> Layer:
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source} has a layer {kind.__name__} of other settings: {error}"
        ) from error
