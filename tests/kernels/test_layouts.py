"""Tests that how an array lies in memory, and who owns it, changes no result."""

import numpy as np
import pytest

import kernels
from tests.cases.case import flat
from tests.lib.calls import ARGUMENTS, CALLS
from tests.lib.support import host


def strided(array):
    """Every other element of a larger array."""
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 99, array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def negative(array):
    """A view with negative strides."""
    return np.ascontiguousarray(array[::-1, ...])[::-1, ...]


def misaligned(array):
    """Aligned to its dtype and to nothing more."""
    return from_offset(array, array.itemsize)


def unaligned(array):
    """Not even aligned to its dtype."""
    return from_offset(array, 1)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def from_offset(array, offset):
    buffer = np.zeros(array.nbytes + 64 + offset, np.uint8)
    start = -buffer.ctypes.data % 64 + offset
    view = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


class Foreign:
    """An array of another library: all it offers is DLPack."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


LAYOUTS = [strided, negative, np.asfortranarray, misaligned, unaligned, read_only, Foreign]


def layouts(array):
    """Return the array in every layout that its library has, the foreign one last."""
    if isinstance(array, np.ndarray):
        return [layout(array) for layout in LAYOUTS]
    wide = array.repeat(2, axis=-1)
    return [wide[..., ::2], array[::-1].copy()[::-1], array.T.copy().T, Foreign(array)]


IN_PLACE = [(name, argument) for name, call in CALLS.items() for argument in call.in_place]
READ = [pair for pair in ARGUMENTS if pair not in IN_PLACE]


@pytest.mark.parametrize("name, argument", READ)
def test_any_layout_gives_the_same_bits(target, name, argument):
    call = CALLS[name]
    arguments = call.arguments(target, np.float32)
    expected = call(arguments)
    for array in layouts(arguments[argument]):
        again = {**call.arguments(target, np.float32), argument: array}
        for result, same in zip(call(again), expected, strict=True):
            assert result.tobytes() == same.tobytes()


@pytest.mark.parametrize("name, argument", IN_PLACE)
def test_what_is_updated_in_place_must_allow_it(target, name, argument):
    call = CALLS[name]
    for array in layouts(call.arguments(target, np.float32)[argument])[:-1]:
        arguments = {**call.arguments(target, np.float32), argument: array}
        before = host(array).copy()
        lacking = [
            word
            for word, flag in [
                ("C-contiguous", "c_contiguous"),
                ("aligned",) * 2,
                ("writeable",) * 2,
            ]
            if not getattr(array.flags, flag, True)  # CuPy lacks the last two
        ]
        if lacking:
            with pytest.raises(ValueError, match=f"^{argument}: is updated .*{lacking[0]}"):
                call(arguments)
            np.testing.assert_array_equal(host(array), before)
        else:
            call(arguments)
            assert (host(array) != before).any()


@pytest.mark.parametrize("name", CALLS)
def test_arguments_are_not_changed(target, name):
    call = CALLS[name]
    arguments = call.arguments(target, np.float32)
    before = {argument: array.copy() for argument, array in arguments.items()}
    call(arguments)
    for argument in set(arguments) - set(call.in_place):
        assert (arguments[argument] == before[argument]).all()
    for argument in call.in_place:
        assert (arguments[argument] != before[argument]).any()


@pytest.mark.parametrize("name", CALLS)
def test_results_are_new_contiguous_arrays(target, name):
    call = CALLS[name]
    arguments = call.arguments(target, np.float32)
    for result in flat(call.function(**{**call.options, **arguments})):
        assert isinstance(result, type(arguments[next(iter(arguments))]))
        assert result.flags.c_contiguous
        for array in arguments.values():
            assert not isinstance(array, np.ndarray) or not np.shares_memory(result, array)


def test_dlpack_arrays_are_taken_without_a_copy(target):
    array = target.array(np.full(10_000, 2.0, np.float32))
    grad = target.array(np.ones(10_000, np.float32))
    kernels.sgd_step(Foreign(array), Foreign(grad), lr=0.5)
    assert (array == 1.5).all()


def test_dlpack_objects_that_numpy_cannot_take_are_named():
    class Broken(Foreign):
        def __dlpack__(self, **options):
            raise BufferError("of a type that nobody knows")

    with pytest.raises(TypeError, match="x: NumPy cannot .* of a type that nobody knows"):
        kernels.relu(Broken(np.ones(3)))
