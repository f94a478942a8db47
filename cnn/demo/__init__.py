"""A page to draw digits on, classified while they are drawn."""

from .classifier import classifier
from .server import CANVAS_SIDE, Server

__all__ = ["CANVAS_SIDE", "Server", "classifier"]
