"""The progress bar of a training."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

from .training import Training

_LOSS_INTERVAL_SECONDS = 0.3  # reading the loss waits for a GPU


class Bar:
    """Shows images done, images per second and the running loss on standard error.

    If that is closed, for which `sys` has None, nothing is shown.
    """

    def __init__(self, images: int, done: int, enabled: bool) -> None:
        disable = not enabled or sys.stderr is None
        self._bar = tqdm(
            total=images, initial=done, unit=" images", unit_scale=True, disable=disable
        )
        self._read = 0.0

    def __enter__(self) -> Bar:
        """Show the bar."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def advance(self, images: int, text: str, training: Training) -> None:
        """Add images done; show the loss at most every 0.3 seconds."""
        if self._bar.disable:
            return
        now, done = time.monotonic(), self._bar.n + images
        self._bar.set_description_str(text, refresh=False)
        if now - self._read > _LOSS_INTERVAL_SECONDS or done == self._bar.total:
            self._bar.set_postfix_str(f"loss {training.running_loss:.4f}", refresh=False)
            self._read = now
        self._bar.update(images)
