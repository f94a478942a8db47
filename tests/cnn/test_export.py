"""ONNX: every layer's graph gives, in ONNX Runtime, what the layer gives."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    ReLU,
    Sequential,
    Softmax,
)
from cnn.__main__ import main
from cnn.formats.onnx import to_onnx
from cnn.recipes import RECIPES
from tests.cases.layers import LAYERS
from tests.lib import fresh_python
from tests.lib.comparison import assert_close
from tests.lib.strategies import windows
from tests.lib.support import normal

BATCHES = [3, 1, 0]  # an empty batch is not an error; of several sizes, N is free


def runtime(proto):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def with_random_state(model):
    """Give batch-norm statistics, scales and shifts that a mistake in their order would show."""
    for name, array in (model.parameters | model.state).items():
        if name.endswith(("beta", "bias", "mean")):
            array[...] = normal(len(name), *array.shape)
        elif name.endswith(("gamma", "var")):
            array[...] = 0.5 + abs(normal(len(name), *array.shape))
    return model


def assert_exports(layers, shape, dtype="float32", batches=BATCHES):
    """Compare ONNX Runtime with the model on float inputs; return the graph's operators."""
    model = with_random_state(Sequential(layers, shape, "cpu", dtype))
    proto = to_onnx(model, "float32")
    session = runtime(proto)
    for N in batches:
        x = normal(N, N, *shape, dtype=np.float32)
        given_x = x[..., 0] if len(shape) == 3 and shape[-1] == 1 else x
        (found,) = session.run(None, {session.get_inputs()[0].name: given_x})
        assert found.dtype == np.float32
        # ONNX Runtime's maximum of no cell at all is its lowest number, where the layer's is -inf.
        found = np.where(found == np.finfo(np.float32).min, -np.inf, found)
        assert_close(found, model.predict(x), rtol=1e-5)
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv2D(5, 3), (8, 9, 3)),
        (Conv2D(5, 3, bias=False), (8, 9, 1)),  # grey: the input has no channel axis
        (Conv2D(4, (2, 3), stride=(2, 1)), (8, 9, 3)),
        (Conv2D(4, 3, padding="same"), (8, 9, 3)),
        (Conv2D(4, (2, 4), padding="same", stride=2), (8, 9, 3)),  # one more at bottom and right
        (Conv2D(4, 3, padding=((2, 0), (1, 3))), (8, 9, 3)),  # no two sides alike
        (Conv2D(4, 3, stride=3, padding=((0, 2), (0, 1))), (9, 9, 3)),  # unused rows at the end
        (Conv2D(4, 3, padding=5), (2, 2, 3)),  # whole windows in the padding
        (Conv2D(4, (2, 3), dilation=(3, 2), padding=1), (8, 9, 3)),
        (Conv2D(6, 3, groups=3), (8, 9, 3)),
        (Conv2D(6, 3, groups=2, stride=2, dilation=2, padding="same", bias=False), (9, 8, 4)),
        (Dense(7), (5,)),
        (Dense(7, bias=False), (5,)),
        (BatchNorm(eps=0.1), (4, 5, 3)),
        (BatchNorm(), (6,)),
        (BatchNorm(), (6, 3)),  # neither an image nor a row: (N, L, C)
        (ReLU(), (4, 5, 3)),
        (Softmax(), (6,)),
        (Softmax(), (4, 5, 3)),  # over the channels, which are another axis in the graph
        (MaxPool2D(2), (8, 9, 3)),
        (AvgPool2D(2), (8, 9, 3)),
        (GlobalAvgPool2D(), (4, 5, 3)),
        (GlobalAvgPool2D(), (1, 1, 3)),
        (Dropout(0.5), (6,)),  # nothing is left of it: a graph of one Identity
        (Flatten(), (4, 5, 3)),  # in the order of (H, W, C)
        (Flatten(), (4, 5, 1)),
        (Flatten(), (6,)),
    ],
    ids=str,
)
def test_settings_of_layers(layer, shape):
    # A layer has one place: each run of a parametrised test makes its own.
    assert_exports([type(layer)(**layer.settings())], shape)


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS)
def test_every_layer_of_the_table(case):
    assert_exports([case.make()], case.input[1:])


def test_a_model_without_layers_is_an_identity():
    assert assert_exports([], (4,)) == ["Identity"]


# Shapes are drawn, not listed: windows that a rounded-up count lets hang over the padding, that
# start in it, and dilated ones with pads of the kernel's size are where ONNX means something else.
@settings(max_examples=200)
@given(windows(pool=True), st.booleans())
def test_pools_of_any_window(window, count_include_pad):
    (H, W), kernel, options = window
    assert_exports([MaxPool2D(kernel, **options)], (H, W, 2), batches=[2])
    averages = AvgPool2D(kernel, **options, count_include_pad=count_include_pad)
    assert_exports([averages], (H, W, 2), batches=[2])


@settings(max_examples=100)
@given(windows())
def test_convolutions_of_any_window(window):
    (H, W), kernel, options = window
    assert_exports([Conv2D(4, kernel, groups=2, **options)], (H, W, 2), batches=[2])


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": True},  # hangs over the padding
        {"kernel": 2, "stride": 3, "padding": 1, "ceil_mode": True},  # would start in it
        {"kernel": 2, "padding": 1, "dilation": 3},
        {"kernel": 3, "stride": 1, "padding": "same"},
        {"kernel": 8, "stride": 3, "ceil_mode": True},  # the only window hangs over
    ],
    ids=str,
)
def test_pools_where_libraries_differ(options, count_include_pad):
    assert_exports([MaxPool2D(**options)], (6, 7, 2))
    assert_exports([AvgPool2D(**options, count_include_pad=count_include_pad)], (6, 7, 2))


def test_averages_are_one_operator_where_that_means_the_same():
    for layer in (
        AvgPool2D(3, 1, 1),
        AvgPool2D(3, 1, 1, count_include_pad=False),
        AvgPool2D(3, 2, ceil_mode=True, count_include_pad=False),
    ):
        assert assert_exports([layer], (6, 7, 1)) == ["Unsqueeze", "AveragePool", "Transpose"]


def test_a_dilated_maximum_may_have_pads_of_the_kernels_size():
    assert "Pad" in assert_exports([MaxPool2D(2, 1, padding=3, dilation=4)], (6, 7, 2))
    # Windows without a cell of the image.
    assert_exports([MaxPool2D(2, 1, padding=1, dilation=3)], (2, 4, 2))


def test_transposes_are_few():
    """There is one at the input, unless images are grey, and one before the first dense layer."""
    network = [Conv2D(4, 3), BatchNorm(), ReLU(), MaxPool2D(2), Flatten(), Dense(3), Softmax()]
    operators = assert_exports(network, (9, 8, 2))
    assert operators.count("Transpose") == 2
    grey = [Conv2D(4, 3), ReLU(), MaxPool2D(2), GlobalAvgPool2D(), Dense(3)]
    assert "Transpose" not in assert_exports(grey, (9, 8, 1))


def test_arithmetic_is_float32_whatever_the_models_dtype():
    layers = [Conv2D(4, 3), BatchNorm(), MaxPool2D(2), AvgPool2D(2, 1, 1), Flatten(), Dense(3)]
    assert_exports(layers, (9, 8, 2), dtype="float64")


# The input


def recipe_model(name):
    model = with_random_state(Sequential(RECIPES[name].layers(), (28, 28, 1), "cpu"))
    model.pixel_mean, model.pixel_std = 33.3, 78.6
    return model


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_take_images_as_predict_does(name):
    model = recipe_model(name)
    proto = to_onnx(model)
    session = runtime(proto)
    images = np.random.default_rng(0).integers(256, size=(9, 28, 28), dtype=np.uint8)
    for count in (9, 1, 0):
        (found,) = session.run(["logits"], {"images": images[:count]})
        assert_close(found, model.predict(images[:count]), rtol=1e-5)


def test_colour_images_have_their_channels_last():
    model = Sequential([Conv2D(4, 3), ReLU(), Flatten(), Dense(3)], (6, 5, 3), "cpu")
    model.pixel_mean, model.pixel_std = 100.0, 50.0
    images = np.random.default_rng(0).integers(256, size=(2, 6, 5, 3), dtype=np.uint8)
    (found,) = runtime(to_onnx(model)).run(["logits"], {"images": images})
    assert_close(found, model.predict(images), rtol=1e-5)


def axes(value):
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_the_graph_says_what_it_is():
    proto = to_onnx(recipe_model("speedrun"))
    assert (proto.ir_version, proto.opset_import[0].version) == (7, 13)
    assert len(proto.opset_import) == 1 and proto.opset_import[0].domain == ""
    (source,), (result,) = proto.graph.input, proto.graph.output
    assert source.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert axes(source) == ["N", 28, 28] and axes(result) == ["N", 10]
    meta = runtime(proto).get_modelmeta()
    assert (meta.producer_name, meta.version) == ("cnn-kernels", 1)
    assert meta.custom_metadata_map == {
        "input": "images: uint8 (N, 28, 28), as they are: normalised in the graph",
        "output": "logits: float32 (N, 10)",
        "classes": "10",
        "pixel_mean": "33.3",
        "pixel_std": "78.6",
    }
    inferred = {value.name: axes(value) for value in proto.graph.value_info}
    assert inferred["0.Conv"] == ["N", 24, 24, 24] and inferred["6.Flatten"] == ["N", 800]


def test_the_output_is_named_after_what_it_is():
    proto = to_onnx(Sequential([Dense(3), Softmax()], (4,), "cpu"), "float32")
    assert [value.name for value in proto.graph.output] == ["probabilities"]
    assert [value.name for value in proto.graph.input] == ["inputs"]


def test_a_layer_of_ones_own_is_refused():
    class Twice(ReLU):
        def forward(self, x, training=False):
            return 2 * x

    expected = "layers: got Twice at position 1, which has no ONNX form, expected one of Conv2D, "
    with pytest.raises(TypeError, match=expected):
        to_onnx(Sequential([Dense(3), Twice()], (4,), "cpu"))


def test_another_input_type_is_refused():
    with pytest.raises(ValueError, match="input_type: got 'int8', expected 'uint8' or 'float32'"):
        to_onnx(Sequential([Dense(3)], (4,), "cpu"), "int8")


# The command


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    recipe_model("speedrun").save(path)
    return path


def test_the_command_writes_a_graph_that_runs(saved, capsys):
    path = saved.with_suffix(".onnx")
    assert main(["export", str(saved), str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.out == (
        f"{path}: images: uint8 (N, 28, 28), as they are: normalised in the graph; "
        "logits: float32 (N, 10); opset 13\n"
    )
    onnx.checker.check_model(path, full_check=True)
    images = np.random.default_rng(0).integers(256, size=(2, 28, 28), dtype=np.uint8)
    (found,) = onnxruntime.InferenceSession(path).run(["logits"], {"images": images})
    assert_close(found, recipe_model("speedrun").predict(images), rtol=1e-5)
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, saved.name]


def test_the_command_writes_one_that_takes_floats(saved):
    path = saved.with_suffix(".onnx")
    assert main(["export", str(saved), str(path), "--input-type", "float32"]) == 0
    images = normal(0, 2, 28, 28, dtype=np.float32)
    (found,) = onnxruntime.InferenceSession(path).run(["logits"], {"images": images})
    assert_close(found, recipe_model("speedrun").predict(images), rtol=1e-5)


def test_exporting_the_same_model_gives_the_same_bytes(saved):
    first, second = saved.with_name("a.onnx"), saved.with_name("b.onnx")
    for path in (first, second):
        assert main(["export", str(saved), str(path)]) == 0
    assert first.read_bytes() == second.read_bytes()


def test_what_cannot_be_written_is_said_first(tmp_path, capsys):
    path = tmp_path / "missing" / "model.onnx"
    assert main(["export", str(tmp_path / "none.safetensors"), str(path)]) == 1
    expected = f"cnn: error: {path} cannot be written: there is no folder {path.parent}\n"
    assert capsys.readouterr().err == expected


def test_without_the_extra_it_says_what_to_install(saved, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "cnn.formats.onnx")
    assert main(["export", str(saved), str(saved.with_suffix(".onnx"))]) == 1
    expected = "cnn: error: exporting needs onnx: pip install 'cnn-kernels[onnx]'\n"
    assert capsys.readouterr().err == expected


def test_the_other_commands_do_without_onnx_and_matplotlib():
    script = (
        "import sys; sys.modules['onnx'] = sys.modules['matplotlib'] = None; "
        "from cnn.__main__ import main; sys.exit(main(['info']))"
    )
    assert fresh_python.run("-c", script).returncode == 0
