"""What hypothesis draws for several tests."""

from hypothesis import strategies as st


@st.composite
def windows(draw, pool=False):
    """Draw an image's (H, W), a kernel and the options of a window that fits it."""
    kernel, dilation = draw(_pairs(1, 4)), draw(_pairs(1, 3))
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    most = [extent - 1 if pool else 4 for extent in extents]
    form = draw(st.sampled_from(["int", "pair", "sides", "same", "valid"]))
    if form == "int":
        padding = draw(st.integers(0, min(most)))
        pads = (padding, padding), (padding, padding)
    elif form == "pair":
        padding = tuple(draw(st.integers(0, limit)) for limit in most)
        pads = tuple((side, side) for side in padding)
    elif form == "sides":
        padding = tuple(draw(st.tuples(*[st.integers(0, limit)] * 2)) for limit in most)
        pads = padding
    else:
        padding, pads = form, ((0, 0), (0, 0))
    stride = draw(_pairs(1, 4))
    options = {"stride": _short(stride), "padding": padding, "dilation": _short(dilation)}
    hanging = (0, 0)
    if pool:
        options["ceil_mode"] = draw(st.booleans())
        if draw(st.booleans()):
            options["stride"], stride = None, kernel
        if options["ceil_mode"]:  # the only window may be larger than the padded image
            hanging = tuple(step - 1 for step in stride)
    least = [
        1 if form == "same" else max(1, extent - before - after - over)
        for extent, (before, after), over in zip(extents, pads, hanging, strict=True)
    ]
    size = tuple(draw(st.integers(length, length + 6)) for length in least)
    return size, _short(kernel), options


def _pairs(least, most):
    return st.tuples(st.integers(least, most), st.integers(least, most))


def _short(pair):
    """Return an int where both of a pair are equal."""
    return pair[0] if pair[0] == pair[1] else pair
