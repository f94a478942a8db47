"""``cnn demo``: a page to draw digits on."""

from __future__ import annotations

import argparse
import contextlib
import errno
import socket
from typing import TYPE_CHECKING

from .options import PREPARING, add_device, device, path, say, whole

if TYPE_CHECKING:
    from ..demo.server import Classifier, Server

HELP = "serve a page to draw digits on"
DESCRIPTION = "Serve a page to draw a digit on; the model answers while it is drawn."
EXAMPLES = """\
  cnn demo model.safetensors
  cnn demo model.safetensors --port 0           any port that is free
  cnn demo model.safetensors --host 0.0.0.0     for phones in the same network"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and the address."""
    parser.add_argument("model", type=path, metavar="MODEL", help="one that train wrote")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="NAME",
        help="address to listen on; the default serves this machine alone (%(default)s)",
    )
    parser.add_argument(
        "--port",
        type=whole(0, 65535),
        default=8000,
        metavar="N",
        help="0 picks one that is free (default: %(default)s)",
    )
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C, the normal end, and return 0."""
    import numpy as np

    from ..demo import CANVAS_SIDE, classifier
    from ..model import Sequential

    # First: the address may be taken, and a model takes long to prepare. Early clients wait.
    with _server(lambda canvas: classify(canvas), options.host, options.port) as server:
        model = Sequential.load(options.model, device(options.device, say))
        say(PREPARING)
        classify = classifier(model)
        # The first answer takes longest, and fails if the model's outputs are not finite.
        classify(np.eye(CANVAS_SIDE, dtype=np.uint8) * 255)
        with contextlib.suppress(KeyboardInterrupt):
            print(f"draw on {server.url} (Ctrl-C ends)", flush=True)
            server.serve_forever()
    return 0


def _server(classify: Classifier, host: str, port: int) -> Server:
    """Return a server that listens on the address; OSError says why it cannot."""
    from ..demo import Server

    try:
        return Server(classify, host, port)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"--host: {host!r} is no address: {error.args[-1]}") from error
    except OSError as error:
        address = f"{host} port {port}"
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"{address} is in use: choose another --port, or 0") from error
        raise OSError(f"cannot listen on {address}: {error.strerror}") from error
