"""The demo's server over real sockets: every answer, every refusal, and clients that misbehave."""

import base64
import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from cnn import Conv2D, Dense, Flatten, MaxPool2D, ReLU, Sequential
from cnn.demo import CANVAS_SIDE, Server, classifier, server
from cnn.explanation import explain
from cnn.picture import PictureError, centre, probabilities

CANVAS_BYTES = CANVAS_SIDE**2


def first_byte(canvas):
    """Stands in for a model where the test is about HTTP."""
    if not canvas.any():
        raise PictureError("the picture is blank")
    return {"first": int(canvas[0, 0])}


@contextmanager
def serving(classify=first_byte):
    with Server(classify, "127.0.0.1", 0) as started:
        thread = threading.Thread(target=started.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield started
        finally:
            started.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def running():
    with serving() as started:
        yield started


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(server._Handler, "timeout", 1)
    with serving() as started:
        yield started


def connected(started, seconds=30):
    return socket.create_connection(started.server_address, timeout=seconds)


def answer(client):
    """Return status, headers and body of one answer."""
    response = http.client.HTTPResponse(client)
    response.begin()
    return response.status, response.headers, response.read()


def ask(started, head, body=b""):
    """Send a request, given as its lines, and return the answer."""
    with connected(started) as client:
        client.sendall("\r\n".join([*head, "", ""]).encode() + body)
        return answer(client)


def post(**changes):
    """The lines of a good request, with headers changed, or left out where None."""
    fields = {
        "Host": "127.0.0.1:8000",
        "Content-Type": "application/octet-stream",
        "Content-Length": str(CANVAS_BYTES),
    }
    fields |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return ["POST /classify HTTP/1.1", *lines]


def get(path="/", method="GET", **fields):
    fields = {"Host": "localhost:8000"} | {n.replace("_", "-"): v for n, v in fields.items()}
    return [f"{method} {path} HTTP/1.1", *(f"{name}: {v}" for name, v in fields.items())]


DRAWING = bytes([7]) * CANVAS_BYTES


# What is served


@pytest.mark.parametrize(
    ("path", "kind", "part"),
    [
        ("/", "text/html", b'<script src="page.js"'),
        ("/?drawing=7", "text/html", b"<!DOCTYPE html>"),
        ("/page.css", "text/css", b"prefers-color-scheme"),
        ("/page.js", "text/javascript", b"fetch("),
    ],
)
def test_the_page_and_its_files(running, path, kind, part):
    status, headers, body = ask(running, get(path))
    assert status == 200 and part in body
    assert headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in headers["Server"]
    # http.client takes the answer to HEAD for one with a body, unless it is told.
    with connected(running) as client:
        client.sendall("\r\n".join([*get(path, "HEAD", Connection="close"), "", ""]).encode())
        whole = b"".join(iter(lambda: client.recv(65536), b""))
    assert whole.endswith(b"\r\n\r\n") and b"Content-Length: %d\r\n" % len(body) in whole


def test_the_page_asks_for_nothing_from_elsewhere(running):
    for path in ("/", "/page.css", "/page.js"):
        body = ask(running, get(path))[2].decode().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in body and "https:" not in body and "//" not in body.replace("// ", "")


def test_a_drawing_is_classified(running):
    status, headers, body = ask(running, post(), DRAWING)
    assert status == 200 and headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"first": 7}


def test_several_drawings_over_one_connection(running):
    with connected(running) as client:
        for first in (1, 2, 3):
            client.sendall("\r\n".join([*post(), "", ""]).encode() + bytes([first]) * CANVAS_BYTES)
            assert json.loads(answer(client)[2]) == {"first": first}


def test_many_drawings_at_once():
    """None is turned away while the server has not come to accept it yet."""
    with Server(first_byte, "127.0.0.1", 0) as started, ExitStack() as clients:
        sockets = [clients.enter_context(connected(started, seconds=5)) for _ in range(50)]
        thread = threading.Thread(target=started.serve_forever, args=(0.01,))
        thread.start()
        try:
            for client in sockets:
                client.sendall("\r\n".join([*post(), "", ""]).encode() + DRAWING)
            assert [answer(client)[0] for client in sockets] == [200] * 50
        finally:
            started.shutdown()
            thread.join()


# What is refused


def refusals():
    """Name -> request, status, part of the sentence."""
    size = f"expected {CANVAS_BYTES} bytes, one per pixel"
    short = {"Content_Length": "99"}
    return {
        "path": (get("/favicon.ico"), 404, "there is no /favicon.ico here"),
        "folder": (get("/../server.py"), 404, "there is no"),
        "malformed path": (get("//["), 404, "there is no"),
        "file of the package": (get("/server.py"), 404, "there is no"),
        "post to the page": (get("/", "POST"), 405, "got POST, expected GET, HEAD"),
        "get of the answer": (get("/classify"), 405, "got GET, expected POST"),
        "delete": (get("/", "DELETE"), 405, "got DELETE"),
        "preflight": (get("/classify", "OPTIONS"), 405, "got OPTIONS"),
        "no type": (post(Content_Type=None), 415, "Content-Type: got nothing, expected appl"),
        "a form's type": (post(Content_Type="text/plain"), 415, "got text/plain, expected appl"),
        "no length": (post(Content_Length=None), 411, "Content-Length: got none"),
        "chunked": (post(Content_Length=None, Transfer_Encoding="chunked"), 411, "got none"),
        "chunked with a length": (post(Transfer_Encoding="chunked"), 411, "got none"),
        "length in words": (post(Content_Length="many"), 400, "Content-Length: got many"),
        "negative length": (post(Content_Length="-1"), 400, "Content-Length: got -1"),
        "length of other digits": (post(Content_Length="\u0661"), 400, "Content-Length: got"),
        "two lengths": ([*post(), "Content-Length: 5"], 400, f"got {CANVAS_BYTES}, 5, expected a"),
        "a byte too many": (post(Content_Length=str(CANVAS_BYTES + 1)), 413, size),
        "far too many": (post(Content_Length="9" * 5000), 413, size),
        "empty": (post(Content_Length="0"), 400, f"body: got 0 bytes, {size}"),
        "a few bytes": (post(**short), 400, f"body: got 99 bytes, {size}", bytes(99)),
        "blank": (post(), 422, "the picture is blank", bytes(CANVAS_BYTES)),
        "no host": (post(Host=None), 400, "Host: got 0 of this header, expected one"),
        "two hosts": ([*post(), "Host: localhost"], 400, "Host: got 2 of this header"),
    }


@pytest.mark.parametrize("refusal", refusals().values(), ids=refusals())
def test_a_request_that_is_refused(running, refusal):
    head, expected, sentence, *body = refusal
    status, headers, content = ask(running, head, *body)
    assert status == expected and sentence in json.loads(content)["error"]
    assert headers["Connection"] == "close" and headers["Content-Type"] == "application/json"
    if status == 405:
        assert headers["Allow"] in ("GET, HEAD", "POST")
    assert ask(running, post(), DRAWING)[0] == 200  # it goes on serving


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01 hello\r\n\r\n", 400),  # TLS on a port that speaks none
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 505),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),  # no method that HTTP knows
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_no_http(running, sent, status):
    with connected(running) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        shown = b"".join(iter(lambda: client.recv(65536), b""))
    assert b" %d " % status in shown.splitlines()[0] or shown.startswith(b"%d " % status)
    assert b"<" not in shown.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9", "localhost", "LocalHost:80", "[::1]:5", "10.1.2.3"]
)
def test_hosts_that_only_this_server_can_be(running, host):
    assert ask(running, get(Host=host))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",  # a name that its owner can point at this machine
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example@127.0.0.1.evil.example",
        "",
        "[::1",
        "2130706433",  # 127.0.0.1 as one number, which only some take for an address
    ],
)
def test_hosts_that_may_be_another_sites_name(running, host):
    for head in (get(Host=host), post(Host=host)):
        status, _, content = ask(running, head)
        assert status == 403 and "expected the address of this server" in content.decode()


def test_the_name_it_was_started_with_is_a_host():
    with Server(first_byte, "localhost", 0) as started:
        assert started.url == f"http://localhost:{started.server_address[1]}/"
        started.host = "Digits.example"
        thread = threading.Thread(target=started.serve_forever, args=(0.01,))
        thread.start()
        assert ask(started, get(Host="digits.example:8000"))[0] == 200
        started.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8000", 200),
        ("https://127.0.0.1:8000", 200),  # behind a proxy that adds TLS
        ("http://127.0.0.1:8001", 403),  # another server on this machine
        ("http://evil.example", 403),
        ("http://[", 403),
        ("null", 403),  # a sandboxed frame, or a file
        ("", 403),
    ],
)
def test_posts_of_other_sites(running, origin, status):
    assert ask(running, post(Origin=origin), DRAWING)[0] == status


# Clients that misbehave


def test_a_refusal_arrives_though_the_body_is_still_being_sent(running):
    with connected(running) as client:
        client.sendall("\r\n".join([*post(Content_Length="300000"), "", ""]).encode())
        for _ in range(3):  # a connection reset by now would refuse these
            time.sleep(0.05)
            client.sendall(bytes(100_000))
        assert answer(client)[0] == 413


def test_a_client_that_stops_halfway_does_not_block_the_others(impatient):
    with connected(impatient) as slow, connected(impatient) as silent:
        slow.sendall("\r\n".join([*post(), "", ""]).encode() + DRAWING[:100])
        assert ask(impatient, post(), DRAWING)[0] == 200
        status, _, content = answer(slow)
        assert status == 408 and f"got 100 of {CANVAS_BYTES} bytes in time" in content.decode()
        assert silent.recv(1) == b""  # it has said nothing: closed


def test_a_client_that_drips_is_ended_too(impatient):
    """Each byte comes before the connection counts as silent."""
    with connected(impatient) as client:
        client.sendall("\r\n".join([*post(), "", ""]).encode())
        end = time.monotonic() + 30
        client.settimeout(0.05)
        while time.monotonic() < end:
            client.sendall(b"\7")
            try:
                assert client.recv(12) == b"HTTP/1.1 408"
                return
            except TimeoutError:
                continue
    pytest.fail("it still reads")


def test_a_body_that_ends_early(running):
    with connected(running) as client:
        client.sendall("\r\n".join([*post(), "", ""]).encode() + b"abc")
        client.shutdown(socket.SHUT_WR)
        status, _, content = answer(client)
    assert status == 400 and "body: got 3 bytes" in content.decode()


def test_clients_that_have_gone_are_no_error(capfd):
    gone = threading.Event()

    def late(canvas):
        gone.wait(30)
        time.sleep(0.05)  # for the reset to arrive
        return {"long": [0] * 1_000_000}  # more than a socket's buffer takes

    with serving(late) as started:
        client = connected(started)
        client.sendall("\r\n".join([*post(), "", ""]).encode() + DRAWING)
        client.close()
        gone.set()
        with connected(started) as other:
            other.sendall("\r\n".join([*get(Connection="close"), "", ""]).encode())
            assert answer(other)[0] == 200
        time.sleep(0.3)
    assert capfd.readouterr().err == ""


def test_a_fault_in_the_model_is_shown(capfd):
    def broken(canvas):
        raise RuntimeError("planted")

    with serving(broken) as started, connected(started) as client:
        client.sendall("\r\n".join([*post(), "", ""]).encode() + DRAWING)
        assert client.recv(1) == b""
    assert "RuntimeError: planted" in capfd.readouterr().err


# The model


def ten_classes(*shape):
    return Sequential([Flatten(), Dense(10)], shape, device="cpu", seed=1)


def test_the_answer_is_what_predict_would_say():
    model = ten_classes(28, 28, 1)
    canvas = np.zeros((CANVAS_SIDE, CANVAS_SIDE), np.uint8)
    canvas[40:200, 100:130] = 255
    canvas[180:200, 100:220] = 128
    with serving(classifier(model)) as started:
        status, _, body = ask(started, post(), canvas.tobytes())
    found = json.loads(body)
    digit = centre(canvas.astype(np.float32) / 255)
    assert status == 200 and set(found) == {"digit", "probabilities", "gradient", "layers"}
    assert found["digit"] == digit.tolist()
    assert found["probabilities"] == probabilities(model, digit[None])[0].tolist()


def test_the_answer_says_what_the_layers_see_and_what_decided():
    layers = [Conv2D(3, 5), MaxPool2D(2), ReLU(), Conv2D(2, 3), Flatten(), Dense(10)]
    model = Sequential(layers, (20, 28, 1), device="cpu", seed=1)
    canvas = np.zeros((CANVAS_SIDE, CANVAS_SIDE), np.uint8)
    canvas[40:200, 100:130] = 255
    found = classifier(model)(canvas)
    digit = centre(canvas.astype(np.float32) / 255, (20, 28))
    best = np.argmax(found["probabilities"])
    maps, gradient = explain(model, digit[None], [best])
    gradient = gradient[0, :, :, 0]
    assert abs(np.array(found["gradient"])).max() == 127
    assert np.array(found["gradient"]) / 127 == pytest.approx(
        gradient / abs(gradient).max(), abs=0.004
    )
    assert [layer["shape"] for layer in found["layers"]] == [(3, 8, 12), (2, 6, 10)]
    for layer, of_layer in zip(found["layers"], maps, strict=True):
        levels = np.frombuffer(base64.b64decode(layer["maps"]), np.uint8).reshape(layer["shape"])
        expected = of_layer[0].transpose(2, 0, 1)
        least = min(0, expected.min())
        expected = (expected - least) / (expected.max() - least)
        assert levels / 255 == pytest.approx(expected, abs=0.002 + 1e-6)
    assert (maps[0] >= 0).all() and maps[1].min() < 0  # both kinds were met


def test_layers_that_respond_to_nothing():
    model = Sequential([Conv2D(3, 5), ReLU(), Flatten(), Dense(10)], (28, 28, 1), device="cpu")
    model.parameter_buffer[...] = 0
    canvas = np.eye(CANVAS_SIDE, dtype=np.uint8) * 255
    found = classifier(model)(canvas)
    assert not np.any(found["gradient"])
    assert not any(base64.b64decode(found["layers"][0]["maps"]))


def test_every_client_gets_the_answer_to_its_own_drawing():
    model = ten_classes(28, 28, 1)
    classify = classifier(model)
    drawings = [bytes(n * CANVAS_BYTES // 9) + DRAWING[n * CANVAS_BYTES // 9 :] for n in range(6)]
    drawings = [drawing.replace(b"\7", b"\xff") for drawing in drawings]
    canvases = [np.frombuffer(d, np.uint8).reshape(CANVAS_SIDE, -1) for d in drawings]
    expected = [classify(canvas) for canvas in canvases]
    with serving(classify) as started, ThreadPoolExecutor(6) as clients:
        found = list(clients.map(lambda drawing: ask(started, post(), drawing), drawings * 4))
    assert [answer[0] for answer in found] == [200] * 24
    assert [json.loads(answer[2]) for answer in found] == expected * 4


def test_models_that_the_page_cannot_show():
    classifier(ten_classes(20, 32))
    with pytest.raises(ValueError, match=r"model: takes inputs of shape \(28, 28, 3\)"):
        classifier(ten_classes(28, 28, 3))
    three = Sequential([Flatten(), Dense(3)], (28, 28, 1), device="cpu")
    with pytest.raises(ValueError, match=r"model: gives outputs of shape \(3,\), expected \(10,\)"):
        classifier(three)
