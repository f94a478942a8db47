"""A page to draw digits on, classified while they are drawn."""

from .server import CANVAS_SIDE, Server, classifier

__all__ = ["CANVAS_SIDE", "Server", "classifier"]
