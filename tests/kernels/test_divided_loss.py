"""The last dense layer and its loss, of so many inputs that blocks share the sum over them."""

import numpy as np
import pytest

from kernels.common.reduce import accumulator
from kernels.gemm import division
from kernels.loss.dense_loss import dense_cross_entropy
from kernels.step.batch import Progress
from tests.lib import reference
from tests.lib.comparison import assert_close
from tests.lib.support import RTOL, host, normal


# Rows and classes of one tile, of several, and those that leave a rest; by vectors and by element.
@pytest.mark.parametrize(
    ("rows", "inputs", "classes"), [(5, 512, 3), (300, 768, 10), (129, 515, 64), (70, 640, 33)]
)
def test_equals_the_oracle(cuda, dtype, monkeypatch, rows, inputs, classes):
    monkeypatch.setattr(division, "_SPLITS", (3,))
    divided, divide = [], division.divide
    monkeypatch.setattr(
        division, "divide", lambda *a, **k: divided.append(divide(*a, **k)) or divided[-1]
    )
    x = normal(0, rows, inputs, dtype=dtype)
    w = (0.05 * normal(1, classes, inputs)).astype(dtype)
    b, labels = normal(2, classes, dtype=dtype), np.arange(rows) % classes
    labels[:2] = -100, classes  # ignored, and no class
    arrays = [cuda.array(array) for array in (x, w, b, labels)]
    progress = Progress(cuda.array(np.zeros(3, np.int64)), cuda.array(np.zeros(2)))
    results = [dense_cross_entropy(*arrays, 0.1, progress) for _ in range(2)]
    assert [work.splits for work in divided] == [3, 3]
    logits, losses, dlogits = map(host, results[0])
    rtol = RTOL[dtype.name]
    assert_close(logits, reference.dense(x, w.T, b), rtol=rtol)
    options = {"label_smoothing": 0.1}
    _, gradient = reference.softmax_cross_entropy(logits, labels, **options)
    row_losses, _ = reference.softmax_cross_entropy(logits, labels, reduction="none", **options)
    counted = np.arange(rows) != 1
    assert np.isnan(losses[1]) and np.isnan(dlogits[1]).all()
    assert_close(losses[counted], row_losses[counted], rtol=RTOL[accumulator(x.dtype)])
    assert_close(dlogits[counted], gradient[counted], rtol=rtol)
    # A block that is not the last one of its tile counts nothing, and the counters are zero again.
    for again, first in zip(results[1], results[0], strict=True):
        assert host(again).tobytes() == host(first).tobytes()
    assert host(progress.counters).tolist() == [2, 2 * rows, 2]
    hits = ((logits.argmax(axis=1) == labels) & (labels >= 0)).sum()
    assert host(progress.totals)[1] == 2 * hits
