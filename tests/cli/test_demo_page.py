"""The demo's page in a real browser: drawn on, read, used by keys and on a phone.

Needs Playwright and a Chromium: pip install 'cnn-kernels[browser]', Debian: apt install chromium.
"""

import re
import shutil
import threading
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest

from cnn import Dense, Flatten, Sequential
from cnn.demo import Server, classifier
from cnn.explanation import explain
from cnn.picture import centre, probabilities
from tests.lib.quick_model import quick_model

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# As parts of the canvas's sides.
ONE = [(0.5, 0.15), (0.48, 0.85)]
SEVEN = [(0.25, 0.2), (0.72, 0.2), (0.45, 0.85)]


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("the page is tested with Playwright: pip install 'cnn-kernels[browser]'")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail(
            f"the page is tested in a browser and none of {', '.join(BROWSERS)} is installed "
            "(Debian: apt install chromium)"
        )
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, chromium_sandbox=False)
        yield started
        started.close()


@contextmanager
def serving(model):
    with Server(classifier(model), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def running():
    with serving(quick_model()) as server:
        yield server


@pytest.fixture
def opened(browser, running):
    """Open the page in a window of its own; at the end, it must have reported no fault."""
    contexts, faults = [], []

    def open_page(width=1000, height=800, expected_faults=(), url=running.url, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: message.text in expected_faults or faults.append(message.text),
        )
        page.on(
            "request",
            lambda request: request.url.startswith((url, "data:")) or faults.append(request.url),
        )
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def expect(locator):
    from playwright.sync_api import expect as expect_of

    return expect_of(locator)


def on_canvas(page, points):
    box = page.get_by_role("application", name="Drawing area").bounding_box()
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]


def draw(page, points):
    start, *others = on_canvas(page, points)
    page.mouse.move(*start)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=12)
    page.mouse.up()


def canvas_ink(page):
    """Return the drawing as the page has it, (H, W) in [0, 1]."""
    opacity = page.evaluate(
        """() => {
            const canvas = document.getElementById("canvas"), side = canvas.width;
            const pixels = canvas.getContext("2d").getImageData(0, 0, side, side).data;
            return Array.from({ length: side * side }, (_, i) => pixels[4 * i + 3]);
        }"""
    )
    side = int(len(opacity) ** 0.5)
    return np.array(opacity, np.float32).reshape(side, side) / 255


def shown_pixels(canvas):
    """Return a canvas of the page as red, green and blue (H, W, 3)."""
    height, width, pixels = canvas.evaluate(
        """canvas => {
            const { height, width } = canvas, copy = new OffscreenCanvas(width, height);
            // Otherwise the browser says in the console that reading is slow.
            const context = copy.getContext("2d", { willReadFrequently: true });
            context.drawImage(canvas, 0, 0);
            return [height, width, [...context.getImageData(0, 0, width, height).data]];
        }"""
    )
    return np.array(pixels, np.uint8).reshape(height, width, 4)[..., :3]


def settled(page):
    """Wait until the answer is read out, which comes after the last of them."""
    expect(page.get_by_role("status")).to_contain_text("sure.")


def shown_percentages(page):
    return [int(text.rstrip("%")) for text in page.locator(".percent").all_inner_texts()]


@pytest.mark.parametrize(("digit", "points"), [(1, ONE), (7, SEVEN)])
def test_a_drawn_digit_is_recognised(opened, digit, points):
    page = opened()
    draw(page, points)
    expect(page.locator("#guess")).to_have_text(str(digit))
    settled(page)
    ink = canvas_ink(page)
    expected = probabilities(quick_model(), centre(ink)[None])[0]
    assert shown_percentages(page) == pytest.approx(100 * expected, abs=0.51)
    status = page.get_by_role("status").inner_text()
    assert status == f"It is a {digit}, {max(shown_percentages(page))}% sure."
    heights = [
        fill.bounding_box()["height"] / page.locator(".track").first.bounding_box()["height"]
        for fill in page.locator(".fill").all()
    ]
    assert heights == pytest.approx(expected, abs=0.01)
    assert page.locator("#bars > li.best .digit").inner_text() == str(digit)
    assert np.array_equal(shown_pixels(page.locator("#preview"))[..., 0], centre(ink))


def test_what_the_layers_see_and_what_decided(opened):
    page = opened()
    assert not page.get_by_role("heading", name="What the layers see").is_visible()
    draw(page, SEVEN)
    settled(page)
    expect(page.get_by_role("heading", name="What the layers see")).to_be_visible()
    digit = centre(canvas_ink(page))
    (maps,), gradient = explain(quick_model(), digit[None], [7])
    grid = page.get_by_role("img", name="Responses of convolution 1")
    shown = [shown_pixels(canvas)[..., 0] for canvas in grid.locator("canvas").all()]
    assert np.array(shown) / 255 == pytest.approx(
        maps[0].transpose(2, 0, 1) / maps.max(), abs=0.002 + 1e-6
    )
    assert page.locator("#maps figcaption").all_inner_texts() == [
        "Convolution 1: 16 filters, 12 \u00d7 12 responses each"
    ]
    name = "What decided: ink on blue raises the answer\u2019s score, ink on orange lowers it"
    heat = shown_pixels(page.get_by_role("img", name=name))
    gradient, blank = gradient[0, :, :, 0], digit == 0  # where ink adds no grey
    strong = blank & (abs(gradient) > 0.1 * abs(gradient).max())
    assert (strong & (gradient > 0)).any() and (strong & (gradient < 0)).any()
    bluer = heat[..., 2].astype(int) > heat[..., 0]
    assert np.array_equal(bluer[strong], gradient[strong] > 0)
    share = abs(gradient[blank]) / abs(gradient).max()
    assert heat[blank].max(axis=1) / 255 == pytest.approx(share, abs=0.01)
    page.get_by_role("button", name="Clear").click()
    for canvas in page.locator("figure canvas").all():
        assert not shown_pixels(canvas).any()


def test_a_model_without_convolutions_has_no_feature_maps(opened):
    model = Sequential([Flatten(), Dense(10)], (20, 28, 1), device="cpu")
    with serving(model) as server:
        page = opened(url=server.url)
        draw(page, SEVEN)
        settled(page)
        assert not page.locator("#layers").is_visible()
        for name in ("#preview", "#heat"):
            picture = page.locator(name)
            assert shown_pixels(picture).shape == (20, 28, 3) and shown_pixels(picture).any()
            box = picture.bounding_box()
            assert box["width"] / box["height"] == pytest.approx(28 / 20, rel=0.02)


def test_the_answer_comes_while_the_digit_is_drawn(opened):
    page = opened()
    start, *others = on_canvas(page, SEVEN)
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*others[0], steps=12)
    expect(page.locator("#guess")).not_to_have_text("?")  # the button is still down
    page.mouse.move(*others[1], steps=12)
    expect(page.locator("#guess")).to_have_text("7")
    page.mouse.up()
    before = canvas_ink(page)
    page.mouse.move(*start, steps=5)  # no button: draws nothing
    assert np.array_equal(canvas_ink(page), before)


def test_a_click_and_the_space_bar_draw_a_dot(opened):
    page = opened()
    draw(page, [(0.25, 0.5)])
    settled(page)  # and not the server's answer to a blank drawing, which `opened` would find, too
    rows, columns = np.nonzero(canvas_ink(page))
    pen = 28 / 320
    assert (np.ptp(rows) + 1) / len(canvas_ink(page)) == pytest.approx(pen, abs=0.01)
    assert (columns.mean() + 0.5) / len(canvas_ink(page)) == pytest.approx(0.25, abs=0.01)
    page.keyboard.press("c")
    page.keyboard.press("Space")
    settled(page)
    assert canvas_ink(page).any()


def test_the_button_clears(opened):
    page = opened()
    draw(page, SEVEN)
    settled(page)
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("status")).to_have_text("Cleared.")
    expect(page.locator("#guess")).to_have_text("?")
    assert shown_percentages(page) == [0] * 10 and not canvas_ink(page).any()
    draw(page, ONE)
    expect(page.locator("#guess")).to_have_text("1")


def test_keys_draw_and_clear(opened):
    page = opened(height=400)  # the page is higher, so that keys could scroll it
    canvas, status = page.get_by_role("application"), page.get_by_role("status")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Clear")).to_be_focused()
    assert not page.locator("#pen").is_visible()
    page.keyboard.press("Tab")
    expect(canvas).to_be_focused()
    expect(page.locator("#pen")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.getElementById('board')).outlineStyle") == (
        "solid"
    )
    scrolled = page.evaluate("scrollY")
    page.keyboard.press("ArrowUp")  # moves the pen and draws nothing
    assert not canvas_ink(page).any()
    page.keyboard.press("Space")
    expect(page.locator("#pen.down")).to_be_visible()
    expect(status).to_have_text(re.compile("Pen down|sure"))
    for _ in range(22):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    expect(page.locator("#pen.down")).to_have_count(0)
    expect(page.locator("#guess")).to_have_text("1")
    before = canvas_ink(page)
    page.keyboard.press("ArrowLeft")
    assert np.array_equal(canvas_ink(page), before)
    assert page.evaluate("scrollY") == scrolled
    page.keyboard.press("c")
    expect(status).to_have_text("Cleared.")
    expect(page.locator("#guess")).to_have_text("?")
    page.keyboard.press("Shift+Tab")  # the keys do not keep the focus
    expect(page.get_by_role("button", name="Clear")).to_be_focused()


def test_two_arrows_draw_a_diagonal_that_ends_at_the_edge(opened):
    page = opened()
    page.get_by_role("application").focus()
    page.keyboard.press("Space")
    page.keyboard.down("ArrowRight")
    for _ in range(40):
        page.keyboard.press("ArrowDown")
    page.keyboard.up("ArrowRight")
    rows, columns = np.nonzero(canvas_ink(page))
    assert np.corrcoef(rows, columns)[0, 1] > 0.5
    assert rows.max() == columns.max() == len(canvas_ink(page)) - 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1440])  # the least, a phone, a tablet, a screen
def test_it_fits_every_width(opened, width, scheme):
    page = opened(width, 700, color_scheme=scheme)
    draw(page, SEVEN)
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    board = page.locator("#board").bounding_box()
    assert board["width"] == pytest.approx(board["height"], abs=1)
    assert board["width"] >= 0.85 * min(width, 400)
    for element in page.locator("main *:visible").all():
        box = element.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width + 0.5
    button = page.get_by_role("button", name="Clear").bounding_box()
    assert min(button["width"], button["height"]) >= 44  # for a thumb
    page_colour, text = (
        page.evaluate(f"getComputedStyle(document.body).{name}")
        for name in ("backgroundColor", "color")
    )
    light = sum(map(int, re.findall(r"\d+", page_colour))) > sum(map(int, re.findall(r"\d+", text)))
    assert light == (scheme == "light")


def test_a_finger_draws_and_does_not_scroll(opened):
    page = opened(320, 480, has_touch=True, is_mobile=True)
    touch = page.context.new_cdp_session(page)
    points = on_canvas(page, ONE)
    (x, y), (_, end) = points
    steps = [(x, y + part * (end - y) / 12) for part in range(13)]

    def send(kind, *at):
        touch.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in at]},
        )

    send("touchStart", steps[0])
    for _, point in pairwise(steps):
        send("touchMove", point)
    send("touchEnd")
    expect(page.locator("#guess")).to_have_text("1")
    assert page.evaluate("scrollY") == 0
    rows = np.flatnonzero(canvas_ink(page).any(axis=1))
    assert np.ptp(rows) > 0.6 * len(canvas_ink(page))


def test_it_says_when_the_server_does_not_answer(opened, running):
    page = opened(expected_faults=["Failed to load resource: net::ERR_FAILED"])
    page.route("**/classify", lambda route: route.abort())
    draw(page, ONE)
    expect(page.get_by_role("status")).to_have_text("The server does not answer: is it running?")
    page.unroute("**/classify")
    draw(page, SEVEN)  # it asks again
    settled(page)
