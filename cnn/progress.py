"""What a training shows of its progress."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

from .training import Training

_LOSS_INTERVAL_SECONDS = 0.3  # reading the loss waits for a GPU


class Bar:
    """Shows images done, images per second and the running loss on standard error.

    On a terminal that is a bar; in a file or a pipe, a line per epoch. If standard error is closed,
    for which `sys` has None, nothing is shown.
    """

    def __init__(self, images: int, done: int, enabled: bool) -> None:
        shown = enabled and sys.stderr is not None
        self._lines = shown and not sys.stderr.isatty()
        disable = self._lines or not shown
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

    def end_epoch(self, text: str, training: Training) -> None:
        """Write the line of the epoch that has ended, unless there is a bar."""
        if self._lines:
            epoch = training.history[-1]
            rate, loss = epoch["images_per_second"], epoch["train_loss"]
            print(f"{text}: {rate:,.0f} images/s, loss {loss:.4f}", file=sys.stderr)
