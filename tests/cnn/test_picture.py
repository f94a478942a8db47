"""Pictures of digits: read from files of every kind, and centred as MNIST's."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from cnn import Dense, Flatten, Sequential, Softmax, picture
from cnn.picture import PictureError, centre, image_size, probabilities, read
from tests.lib.quick_model import digits


def digit():
    """A 4 of whole pixels whose box has 20 rows, light on 0."""
    image = np.zeros((28, 28), np.uint8)
    image[4:16, 8:11] = image[13:16, 8:22] = image[4:24, 17:20] = 255
    return image


def drawing(scale=10):
    """The same, on paper with a margin of its own on each side."""
    return np.pad(np.kron(digit(), np.ones((scale, scale), np.uint8)), ((30, 10), (5, 60)))


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def ink(image):
    return image.astype(np.float32) / 255


# Scaled and placed


def test_a_box_of_20_pixels_keeps_its_pixels():
    assert np.array_equal(centre(ink(centre(ink(digit())))), centre(ink(digit())))
    assert np.count_nonzero(centre(ink(digit()))) == np.count_nonzero(digit())


@pytest.mark.parametrize("scale", [2, 3, 7, 40])  # even, odd, prime, much larger than the result
@pytest.mark.parametrize("place", [(0, 0), (13, 57)])  # touching the corner, and within paper
def test_size_and_place_do_not_matter(scale, place):
    large = np.kron(digit(), np.ones((scale, scale)))
    shown = np.pad(large, ((place[0], 90), (place[1], 20))).astype(np.float32) / 255
    assert np.abs(centre(shown).astype(int) - centre(ink(digit()))).max() <= 1


@pytest.mark.parametrize(
    ("height", "width"),
    [
        (200, 50),  # the height decides
        (31, 124),  # the width does, in sizes that 20 divides neither of
        (5, 3),  # enlarged
        (1, 1),  # one pixel
        (400, 1),  # a line as thin as can be
    ],
)
def test_the_longer_side_becomes_20_and_the_other_follows(height, width):
    shown = centre(np.pad(np.ones((height, width), np.float32), ((9, 70), (40, 3)))) / 255
    assert shown.shape == (28, 28)
    for axis, side in ((0, height), (1, width)):
        # Sums, since a side that is no whole number ends in a grey pixel; one pixel is the least.
        expected = max(1, side * 20 / max(height, width))
        assert shown.sum(axis=axis).max() == pytest.approx(expected, abs=0.01)


def test_the_centre_of_mass_comes_to_the_middle_by_whole_pixels():
    random = np.random.default_rng(0)
    for _ in range(50):
        blocks = random.random((5, 4)) < 0.5
        blocks[0, 0] = blocks[-1, -1] = True  # so that the box is all of it
        shown = centre(np.kron(blocks, np.ones((12, 12), np.float32))).astype(float)
        for axis in (0, 1):
            mass = (np.arange(28) + 0.5) @ shown.sum(axis=1 - axis) / shown.sum()
            assert 13.99 <= mass < 15.01


def test_a_square_of_any_size_and_grey_lies_in_the_middle():
    """Its centre of mass is the middle up to rounding, which must not move it by a pixel."""
    for side in range(1, 200, 3):
        square = np.full((side, side), 0.1 + side / 300, np.float32)
        shown = centre(np.pad(square, ((side % 7, 9), (5, side % 11))))
        for axis in (0, 1):
            assert np.flatnonzero(shown.max(axis=axis))[[0, -1]].tolist() == [4, 23]


def test_a_digit_far_off_its_centre_of_mass_is_not_cut():
    tail = np.zeros((200, 200), np.float32)
    tail[:, 98:102] = 1
    tail[180:, 60:140] = 1  # nearly all of the ink is at the foot
    tail[198:, 0:200] = 1
    shown = centre(tail)
    assert np.flatnonzero(shown.max(axis=1))[[0, -1]].tolist() == [0, 19]
    assert shown.sum() / 255 == pytest.approx(tail.sum() / 100, rel=0.1)


def test_faint_ink_is_made_strong_and_noise_is_left_out():
    noise = np.random.default_rng(0).uniform(0, 0.05, (320, 320)).astype(np.float32)
    large = np.zeros((320, 320), np.float32)
    large[20:300, 10:290] = np.kron(ink(digit()), np.ones((10, 10)))
    shown = centre(noise + 0.25 * large)
    assert shown.max() == 255
    assert np.abs(shown.astype(int) - centre(large)).max() < 50
    assert np.count_nonzero(shown) == np.count_nonzero(centre(large))


@pytest.mark.parametrize("size", [(14, 14), (64, 64), (20, 32), (1, 1)])
def test_a_digit_is_centred_in_images_of_other_sizes(size):
    shown = centre(ink(drawing()), size)
    assert shown.shape == size and shown.max() == 255
    rows = np.flatnonzero(shown.max(axis=1))
    assert np.ptp(rows) + 1 == pytest.approx(min(size) * 20 / 28, abs=1)


@pytest.mark.parametrize(
    "empty",
    [
        np.zeros((280, 280), np.float32),
        np.zeros((1, 1), np.float32),
        np.full((50, 50), 0.03, np.float32),  # less than what counts as contrast
    ],
    ids=["clear", "one pixel", "faint"],
)
def test_a_blank_picture(empty):
    with pytest.raises(PictureError, match="^the picture is blank: nothing stands out"):
        centre(empty)


def test_mnist_comes_back_as_it_was():
    images = digits()[0].images[:1000]
    shown = np.array([centre(ink(image)) for image in images])
    same = np.abs(shown.astype(int) - images).mean(axis=(1, 2)) < 4  # of 255; moved, it is 20
    assert same.mean() > 0.8


# Files


def variants():
    """The same drawing as files of every kind: name -> bytes."""
    grey = Image.fromarray(drawing())
    inverted = Image.fromarray(255 - drawing())
    mask = drawing() > 0
    rgb = np.where(mask[..., None], np.uint8([200, 30, 40]), np.uint8([40, 160, 60]))
    clear = np.zeros((*mask.shape, 4), np.uint8)
    clear[..., :3] = np.random.default_rng(0).integers(256, size=(*mask.shape, 3))
    clear[mask] = 0, 0, 0, 255
    white = np.where(mask[..., None], np.uint8(255), np.uint8([255, 255, 255, 0]))
    palette = inverted.quantize(2)
    clear_palette = Image.fromarray(np.uint8(mask))
    clear_palette.putpalette([255, 0, 0, 0, 0, 0])
    twelve_bits = drawing().astype(np.uint16) * 16  # as scanners write: the top bits are unused
    return {
        "grey": saved(grey),
        "black on white": saved(inverted),
        "1 bit": saved(inverted.convert("1")),
        "little contrast": saved(Image.fromarray(120 + drawing() // 6)),
        "colours": saved(Image.fromarray(rgb)),
        "grey with alpha": saved(inverted.convert("LA")),
        "black on clear noise": saved(Image.fromarray(clear)),
        "white on clear": saved(Image.fromarray(white)),
        "palette": saved(palette),
        "palette with a clear entry": saved(clear_palette, transparency=0),
        "16 bits": saved(Image.fromarray(drawing().astype(np.uint16) * 257)),
        "12 of 16 bits": saved(Image.fromarray(twelve_bits)),
        "16 bits, black on white": saved(Image.fromarray(~(drawing().astype(np.uint16) * 257))),
        "JPEG": saved(inverted, "JPEG"),
        "JPEG in colours": saved(Image.fromarray(rgb), "JPEG"),
        "JPEG in CMYK": saved(grey.convert("CMYK"), "JPEG"),
    }


@pytest.mark.parametrize(("name", "file"), variants().items(), ids=variants())
def test_every_kind_of_file_shows_the_same_digit(name, file):
    away = np.abs(centre(read(file)).astype(int) - centre(ink(drawing())))
    assert away.mean() < 5 if "JPEG" in name else away.max() <= 2  # JPEG rings along the edges


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("orientation", "stored"),  # how the pixels lie that are to be shown upright
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
        (9, None),  # there is none of this number
    ],
)
def test_pictures_that_exif_turns(kind, orientation, stored):
    image, exif = Image.fromarray(drawing()), Image.Exif()
    exif[0x0112] = orientation
    file = saved(image if stored is None else image.transpose(stored), kind, exif=exif)
    shown = centre(read(file))
    assert np.abs(shown.astype(int) - centre(ink(drawing()))).max() <= 2


def test_damaged_exif_does_not_matter():
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.5
    turned = Image.fromarray(drawing()).transpose(Image.Transpose.ROTATE_90)
    whole = saved(turned, "JPEG", exif=exif).getvalue()
    resolution = b"\1\x1a\0\5"  # tag and type
    assert whole.count(resolution) == 1
    damaged = whole.replace(resolution, b"\1\x1a\0\2")  # text instead of a ratio
    assert np.abs(centre(read(io.BytesIO(damaged))).astype(int) - centre(ink(drawing()))).max() <= 2


def test_colours_of_the_same_luminance_differ():
    mask = drawing()[..., None] > 0
    image = Image.fromarray(np.where(mask, np.uint8([255, 0, 0]), np.uint8([0, 130, 0])))
    assert np.ptp(np.asarray(image.convert("L"))) <= 1  # grey would show nothing
    assert np.array_equal(centre(read(saved(image))), centre(ink(drawing())))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_large_picture_is_shrunk(dtype):
    large = drawing(80).astype(dtype) * (np.iinfo(dtype).max // 255)
    found = read(saved(Image.fromarray(large)))
    assert max(found.shape) == picture.MOST_PIXELS
    assert np.abs(centre(found).astype(int) - centre(ink(drawing()))).max() <= 90  # edges alone
    assert np.abs(centre(found).astype(int) - centre(ink(drawing()))).mean() < 5


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_a_picture_that_is_all_border(size):
    with pytest.raises(PictureError, match="blank"):
        centre(read(saved(Image.new("RGB", size, "teal"))))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_damaged_file_is_an_error_wherever_it_ends(kind):
    whole = saved(Image.fromarray(drawing()), kind).getvalue()
    for length in [0, 1, 10, 30, 100, len(whole) // 2, 4 * len(whole) // 5]:
        with pytest.raises(PictureError, match=r"^damaged, or no PNG or JPEG: "):
            read(io.BytesIO(whole[:length]))


def test_a_damaged_byte_is_an_error_of_the_picture_or_shows():
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG"):
        whole = saved(Image.fromarray(drawing()), kind).getvalue()
        for _ in range(150):
            damaged = bytearray(whole)
            damaged[random.integers(len(damaged))] = random.integers(256)
            try:
                assert read(io.BytesIO(damaged)).ndim == 2
            except PictureError as error:
                assert str(error).startswith("damaged, or no PNG or JPEG: ")


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(drawing()).save(tmp_path / "drawing.gif")
    for name, reason in (
        ("missing.png", "No such file or directory"),
        (".", "Is a directory"),
        ("text.png", "damaged, or no PNG or JPEG: "),
        ("drawing.gif", "damaged, or no PNG or JPEG: "),
    ):
        with pytest.raises(PictureError, match=reason):
            read(tmp_path / name)


def test_a_picture_of_too_many_pixels(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(PictureError, match="exceeds limit of 2000 pixels"):
        read(saved(Image.fromarray(drawing())))


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'cnn-kernels\[image\]'"):
        read("drawing.png")


# Answers


def random_digits(count):
    return np.random.default_rng(0).integers(256, size=(count, 28, 28), dtype=np.uint8)


def test_probabilities_add_up_and_are_the_same_with_a_softmax_layer():
    layers = [Flatten(), Dense(10)]
    logits = Sequential(layers, (28, 28, 1), device="cpu", seed=3)
    chances = Sequential([Flatten(), Dense(10), Softmax()], (28, 28), device="cpu", seed=3)
    for name, array in chances.parameters.items():
        array[...] = logits.parameters[name]
    found = probabilities(logits, random_digits(5))
    assert found.shape == (5, 10) and found.sum(axis=1) == pytest.approx(np.ones(5))
    assert np.ptp(found) > 0.1
    assert found == pytest.approx(probabilities(chances, random_digits(5)))
    assert probabilities(logits, random_digits(0)).shape == (0, 10)


def test_a_model_that_diverged():
    model = Sequential([Flatten(), Dense(10)], (28, 28, 1), device="cpu")
    model.parameter_buffer.fill(np.nan)
    with pytest.raises(ValueError, match="model: gives outputs that are not finite"):
        probabilities(model, random_digits(1))


def test_models_that_take_no_grey_images():
    def model(*shape):
        return Sequential([Flatten(), Dense(10)], shape, device="cpu")

    assert image_size(model(20, 32, 1)) == image_size(model(20, 32)) == (20, 32)
    for shape in ((28, 28, 3), (784,), (1, 28, 28, 1)):
        with pytest.raises(ValueError, match=r"model: takes inputs of shape .*, expected \(H, W"):
            image_size(model(*shape))
    with pytest.raises(ValueError, match=r"model: gives outputs of shape \(28, 28, 1\), expected"):
        image_size(Sequential([Softmax()], (28, 28, 1), device="cpu"))
