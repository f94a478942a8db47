"""Tests of bad input: the error names the argument, what came and what was expected."""

import inspect
import re

import numpy as np
import pytest

import kernels
from tests.cases import CASES
from tests.cases.case import zeros
from tests.lib.calls import ARGUMENTS, CALLS
from tests.lib.support import NARROW, host

INTEGERS = {"argmax", "labels", "mask"}
SAVED = {"mean", "inv_std"}  # of the dtype that sums are taken in
OWN_FLOAT = {"images", "matrix"} | SAVED  # need not be of the other arguments' dtype
OPTIONAL = {("conv2d", "b"), ("dense", "b"), ("softmax_cross_entropy", "weight")}


def refuse(target, name, error, message, changed):
    """Assert that a call with some arguments changed raises an error, and that no array moved."""
    call = CALLS[name]
    arguments = call.arguments(target, np.float32)
    before = {key: host(array).tobytes() for key, array in arguments.items()}
    given = {
        key: target.array(value) if isinstance(value, np.ndarray) else value
        for key, value in changed.items()
    }
    with pytest.raises(error, match=message) as raised:
        call({**arguments, **given})
    assert type(raised.value) is error and "\n" not in str(raised.value)
    assert {key: host(array).tobytes() for key, array in arguments.items()} == before


@pytest.mark.parametrize("name, argument", ARGUMENTS)
def test_what_is_no_array(target, name, argument):
    for value in ([[1.0]], 2.0, "x", {}, np.float32(1)):
        message = f"^(saved.)?{argument}: got {type(value).__name__}, expected a .* array"
        refuse(target, name, TypeError, message, {argument: value})


@pytest.mark.parametrize("name, argument", ARGUMENTS)
def test_none_where_an_array_is_needed(target, name, argument):
    if (name, argument) in OPTIONAL:
        return
    # Optional, but for this call's momentum or ReLU: not the type is wrong, but the value.
    needed = (name, argument) in {("sgd_step", "velocity"), ("batch_norm_backward", "y")}
    error = ValueError if needed else TypeError
    refuse(
        target, name, error, f"^(saved.)?{argument}: got None(Type)?, expected", {argument: None}
    )


@pytest.mark.parametrize("name, argument", ARGUMENTS)
def test_wrong_dtypes(target, name, argument):
    wrong = [np.bool_, np.complex64, np.int32]
    if argument in INTEGERS:
        wrong[-1] = np.float32
    if target.name != "cuda":  # CuPy has no such arrays
        wrong += [object, "M8[s]"] + [">f4"] * (argument not in INTEGERS)
    if argument in INTEGERS - {"labels"}:
        wrong += [np.uint32, np.int8]
    for dtype in wrong:
        array = CALLS[name].arrays[argument].astype(np.float32).astype(bool).astype(dtype)
        came = re.escape(str(np.dtype(dtype)))
        message = rf"^(saved.)?{argument}: got {came}( on [a-z:0-9]+)?, expected "
        refuse(target, name, TypeError, message, {argument: array})


@pytest.mark.parametrize("name, argument", ARGUMENTS)
def test_masked_arrays(target, name, argument):
    if target.name == "cuda":  # CuPy has none
        return
    masked = np.ma.array(CALLS[name].arrays[argument])
    message = f"^(saved.)?{argument}: got a masked array, expected one without a mask$"
    refuse(target, name, TypeError, message, {argument: masked})


@pytest.mark.parametrize("name, argument", ARGUMENTS)
def test_float16_runs_on_cuda_alone(target, name, argument):
    if target.name == "cuda":
        return
    array = CALLS[name].arrays[argument].astype(np.float16)
    expected = "integer" if argument == "labels" else "uint|float"
    refuse(
        target,
        name,
        TypeError,
        f"^(saved.)?{argument}: got float16.*, expected .*({expected})",
        {argument: array},
    )


@pytest.mark.parametrize("name, argument", ARGUMENTS)
def test_mixed_float_dtypes(target, name, argument):
    call = CALLS[name]
    if argument in INTEGERS | OWN_FLOAT or not set(call.arrays) - INTEGERS - OWN_FLOAT - {argument}:
        return
    message = "^[a-z_]+: got float(32|64), expected float(64|32) like [a-z]+$"
    refuse(target, name, TypeError, message, {argument: call.arrays[argument].astype(np.float64)})


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused])
def test_wrong_shapes_and_parameters(target, name):
    for changed, message in CASES[name].refused:
        refuse(target, name, ValueError, f"^{message}", changed)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.mistyped])
def test_parameters_of_a_wrong_type(target, name):
    for changed, message in CASES[name].mistyped:
        refuse(target, name, TypeError, f"^{message}", changed)


def outs():
    """Yield arguments that gradients of the table are written to: (name, argument, shape)."""
    for name in CASES:
        for argument in inspect.signature(getattr(kernels, name)).parameters:
            if argument.startswith("out_d"):
                forward = CALLS[name.removesuffix("_backward")]
                yield name, argument, forward.arrays[argument.removeprefix("out_d")].shape


@pytest.mark.parametrize(
    "name, out, shape",
    [
        *outs(),
    ],
)
def test_results_are_written_only_where_they_fit(target, name, out, shape):
    right = zeros(*shape)
    for wrong in (right[..., None], right[1:]):
        refuse(target, name, ValueError, f"^{out}: got shape", {out: wrong})
    refuse(target, name, TypeError, f"^{out}: got float64, expected", {out: right.astype("f8")})
    apart = target.array(zeros(*shape[:-1], 2 * shape[-1]))[..., ::2]
    message = f"^{out}: is updated in place, expected a C-contiguous array"
    arguments = CALLS[name].arguments(target, np.float32)
    with pytest.raises(ValueError, match=message):
        CALLS[name]({**arguments, out: apart})


@pytest.mark.parametrize("name, argument", [pair for pair in ARGUMENTS if pair[1] in SAVED])
@pytest.mark.parametrize("dtype", ["float64", *NARROW])
def test_saved_statistics_are_not_cast(target, name, argument, dtype):
    saved = CALLS[name].arrays[argument].astype(dtype)
    message = f"^saved.{argument}: got {dtype}, expected float32$"
    refuse(target, name, TypeError, message, {argument: saved})


@pytest.mark.parametrize(
    "name", sorted({name for name, argument in ARGUMENTS if argument in SAVED})
)
def test_saved_must_come_from_the_forward_function(target, name):
    arguments = CALLS[name].arguments(target, np.float32)
    others = {key: array for key, array in arguments.items() if key not in SAVED}
    with pytest.raises(TypeError, match=r"^saved: got NoneType, expected a \w+Saved$"):
        getattr(kernels, name)(**others, **CALLS[name].options, saved=None)


def test_optional_arrays_may_be_none(target):
    for name, argument in OPTIONAL:
        call = CALLS[name]
        arguments = call.arguments(target, np.float32)
        without = {key: array for key, array in arguments.items() if key != argument}
        for got, same in zip(call({**arguments, argument: None}), call(without), strict=True):
            np.testing.assert_array_equal(got, same)


def test_an_array_in_place_of_a_number_is_shown_in_short(target):
    for name, argument in (("dropout_backward", "p"), ("max_pool2d", "kernel")):
        message = rf"^{argument}: got array\(\[\[0., .{{1,70}}\.\.\., expected a (whole )?number$"
        refuse(target, name, TypeError, message, {argument: zeros(9, 9)})


def test_whole_numbers_of_numpy_are_whole_numbers(target):
    call = CALLS["max_pool2d"]
    expected = call(call.arguments(target))
    pair = (np.int64(2), np.uint8(3))
    for got, same in zip(call({**call.arguments(target), "kernel": pair}), expected, strict=True):
        np.testing.assert_array_equal(got, same)
    assert expected[0].shape == (5, 15, 7, 9)


def overlapping(target):
    """Calls that write to an array that they read, or to one array twice."""
    x, dy, w = (target.array(zeros(*shape)) for shape in ((4, 3), (4, 3), (3, 3)))
    images, filters = target.array(zeros(2, 4, 4, 3)), target.array(zeros(3, 3, 3, 3))
    both = target.array(zeros(5))
    first, second = both[:3], both[2:]
    of_batch = kernels.batch_norm(x, first, first, *map(target.array, zeros(2, 3)), training=True)
    of_layer = kernels.layer_norm(x, first, first)
    backward = {"dense": (dy, x, w), "conv2d": (images[:, :2, :2], images, filters)}
    for name, arguments in backward.items():
        function = getattr(kernels, f"{name}_backward")
        yield function, arguments, {"out_dw": arguments[2]}, "out_dw: overlaps w in memory"
        given = {"out_dw": arguments[2][:], "out_db": arguments[1].reshape(-1)[:3]}
        yield function, arguments, given | {"out_dw": None}, "out_db: overlaps x in memory"
    for name, (_, saved) in {"batch_norm": of_batch, "layer_norm": of_layer}.items():
        function = getattr(kernels, f"{name}_backward")
        yield function, (dy, x, first, saved), {"out_dgamma": first}, "out_dgamma: overlaps gamma"
        given = {"out_dgamma": first, "out_dbeta": second}
        message = "out_dbeta: overlaps out_dgamma in memory, expected an array of its own"
        yield function, (dy, x, target.array(zeros(3)), saved), given, message
    statistics = (first, second)
    gamma = target.array(zeros(3))
    message = "running_var: overlaps running_mean in memory"
    yield kernels.batch_norm, (x, gamma, gamma, *statistics), {"training": True}, message
    rate = {"lr": 0.1}
    yield kernels.sgd_step, (first, second), rate, "param: overlaps grad in memory"
    message = "velocity: overlaps grad in memory"
    yield kernels.sgd_step, (gamma, first, second), rate | {"momentum": 0.9}, message
    adam = kernels.adam_step, (gamma, target.array(zeros(3)), first, first), rate | {"step": 1}
    yield *adam, "v: overlaps m in memory"


def test_what_is_written_overlaps_nothing(target):
    for function, arguments, given, message in overlapping(target):
        with pytest.raises(ValueError, match=f"^{message}"):
            function(*arguments, **given)
