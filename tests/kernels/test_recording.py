"""Recordings: replays compute anew on the same arrays, and arenas lend memory only once."""

import threading

import numpy as np
import pytest

import kernels
from kernels.runtime import KernelError
from kernels.runtime.arena import Arena
from kernels.runtime.recording import Proof, Recording
from tests.lib.support import host, normal

FLOAT = np.float32


def chain(x, w):
    """Arrays that come and go: each is dropped once the next is made."""
    y = kernels.dense(x, w, relu=True)
    for _ in range(3):
        y = kernels.relu(kernels.softmax(y))
    return kernels.dense_backward(y, x, w)


@pytest.fixture
def arena(target):
    return Arena(target)


@pytest.fixture
def inputs(target):
    # A tail of one over the vectors and tiles, and a single row.
    return [[target.array(normal(i, n, 33, dtype=FLOAT)) for i in (0, 1)] for n in (33, 1)]


def same(arrays, expected):
    return [host(a).tobytes() for a in arrays] == [host(a).tobytes() for a in expected]


def test_replays_compute_anew_with_the_same_bits(target, arena, inputs):
    for x, w in inputs:
        w = inputs[0][1]
        with Recording(arena, [x, w]) as recording:
            results = chain(x, w)
        assert same(results, chain(x, w))
        for seed in (5, 6):
            x[...] = target.array(normal(seed, *x.shape, dtype=FLOAT))
            for array in results:
                array.fill(np.nan)
            recording.replay()
            assert same(results, chain(x, w))


def test_freed_memory_is_lent_again_and_live_memory_is_not(target, arena, inputs, monkeypatch):
    """Freed memory is overwritten at once: results are right only if none of it is needed."""
    give_back, overwritten = Arena.give_back, []

    def poisoning(self, address, size):
        for first, last, memory in self._chunks:
            if first <= address < last:
                memory[address - first : address - first + size].fill(0xFF)  # NaN
        overwritten.append(size)
        give_back(self, address, size)

    monkeypatch.setattr(Arena, "give_back", poisoning)
    x, w = inputs[0]
    with Recording(arena, [x, w]):
        results = chain(x, w)
    assert len(overwritten) >= 7 and same(results, chain(x, w))


def test_memory_goes_back_with_the_last_view(target, arena):
    address = target.address
    with Recording(arena, []):
        first = target.empty((100,), FLOAT)
        view, place = first[10:20].reshape(2, 5), address(first)
        del first
        assert address(target.empty((100,), FLOAT)) != place
        del view
        assert address(target.empty((100,), FLOAT)) == place
        # Neighbours that are free make one block.
        parts = [target.empty((64,), FLOAT) for _ in range(4)]
        places = [address(part) for part in parts]
        del parts
        assert address(target.empty((4 * 64,), FLOAT)) == min(places)


def test_arrays_are_aligned_and_the_arena_grows_as_it_must(target, arena):
    with Recording(arena, []):
        # Odd sizes, nothing, a scalar, and more than the least that an arena takes at once.
        shapes = [(3,), (0, 4), (), (5, 7), (1 << 19,), (1,)]
        arrays = [target.empty(shape, dtype) for shape in shapes for dtype in (FLOAT, np.uint8)]
    assert all(target.address(array) % 64 == 0 for array in arrays)
    assert [array.shape for array in arrays[::2]] == shapes
    spans = sorted((target.address(a), target.address(a) + a.nbytes) for a in arrays if a.size)
    assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:], strict=False))
    assert sum(array.nbytes for array in arrays) <= arena.bytes <= 6 * 2**20


def test_a_second_recording_takes_the_memory_of_the_first(arena, inputs):
    for x, w in (inputs[0], inputs[0]):
        with Recording(arena, [x, w]):
            chain(x, w)
        taken = arena.bytes
    assert arena.bytes == taken


def test_a_recording_keeps_the_arrays_it_was_given(target, arena):
    x = target.array(normal(0, 100, dtype=FLOAT))
    expected = host(kernels.relu(x)).copy()
    with Recording(arena, [x]) as recording:
        y = kernels.relu(x)
    del x
    others = [target.array(normal(i, 100, dtype=FLOAT)) for i in range(20)]
    y.fill(np.nan)
    recording.replay()
    assert np.array_equal(host(y), expected) and len(others) == 20


def test_zeros_are_zeroed_by_every_replay(target, dtype, arena):
    with Recording(arena, []) as recording:
        zeros = target.zeros((3, 5), dtype)
    assert not host(zeros).any()
    zeros.fill(7)
    recording.replay()
    assert not host(zeros).any()
    outside = target.zeros((3, 5), dtype)
    assert not arena.owns(outside) and not host(outside).any()


def test_the_losses_of_rows_are_computed_anew(target, dtype, arena):
    logits, labels = target.array(normal(0, 9, 5, dtype=dtype)), target.array(np.arange(9) % 5)
    with Recording(arena, [logits, labels]) as recording:
        results = kernels.softmax_cross_entropy(logits, labels, reduction="none")
    logits[...] = target.array(normal(1, 9, 5, dtype=dtype))
    recording.replay()
    assert same(results, kernels.softmax_cross_entropy(logits, labels, reduction="none"))


def test_dropout_draws_anew_at_every_replay(target, arena):
    x = target.array(np.ones(1000, FLOAT))
    counter = target.array(np.array([3]))
    with Recording(arena, [x], counter, step=3) as recording:
        y, _ = kernels.dropout(x, 0.5, seed=1, offset=7)
    for steps in (0, 1, 5):
        counter[...] = 3 + steps
        recording.replay()
        assert same([y], kernels.dropout(x, 0.5, seed=1, offset=7 + steps)[:1])


def test_replays_allocate_nothing(target, arena, inputs, monkeypatch):
    with Recording(arena, inputs[0]) as recording:
        chain(*inputs[0])
    for name in ("empty", "fresh", "array"):
        monkeypatch.setattr(type(target), name, None)
    recording.replay()
    assert len(recording) >= 8


# --- what is refused


def test_one_recording_at_a_time_in_a_thread(target, arena):
    with Recording(arena, []) as recording:
        with pytest.raises(KernelError, match="under way in this thread"), Recording(arena, []):
            pass
        other = threading.Thread(target=kernels.relu, args=(target.array(np.ones(3, FLOAT)),))
        other.start()
        other.join()
        assert len(recording) == 0


def test_a_failed_recording_is_not_replayed(target, arena):
    x = target.array(np.ones(3, FLOAT))
    recording = Recording(arena, [x])
    with pytest.raises(ZeroDivisionError), recording:
        kernels.relu(x)
        raise ZeroDivisionError
    with pytest.raises(KernelError, match="nothing was recorded to its end"):
        recording.replay()
    assert not arena.owns(target.empty((3,), FLOAT))


def test_a_copy_that_no_replay_would_make(target, arena):
    x = target.array(normal(0, 4, 6, dtype=FLOAT))
    with (
        Recording(arena, [x]),
        pytest.raises(KernelError, match="not C-contiguous would be copied"),
    ):
        kernels.relu(x.T)


# --- what a replay would not do, found while it is recorded


def halves(x):
    """Half of an array, by NumPy or CuPy."""
    return x * x.dtype.type(0.5)


def a_copy(x):
    return x.copy()


def a_cast(x):
    return x.astype(np.float64).astype(FLOAT)


@pytest.mark.parametrize("made", [halves, a_copy, a_cast])
def test_an_array_that_no_kernel_made(target, arena, made):
    x = target.array(normal(0, 4, 6, dtype=FLOAT))
    expected = "relu_forward: x: an array that is no input of the recording, nor made by"
    with Recording(arena, [x]), pytest.raises(KernelError, match=expected):
        kernels.relu(made(x))
    with Recording(arena, [x]), pytest.raises(KernelError, match=expected):
        kernels.relu(made(kernels.relu(x)))
    # Nor may one be written: the next replay would find what this one left there.
    param = target.array(normal(1, 9, dtype=FLOAT))
    with Recording(arena, [x]), pytest.raises(KernelError, match="(param|grad): an array that"):
        kernels.sgd_step(param, param.copy(), lr=0.1)


def test_an_array_of_the_arena_that_no_kernel_wrote(target, arena):
    x = target.array(normal(0, 4, 6, dtype=FLOAT))
    with Recording(arena, [x]):
        for _ in range(2):  # also where a kernel wrote the memory before, for another array
            filled = target.empty(x.shape, FLOAT)
            filled[...] = x
            with pytest.raises(KernelError, match="x: .* that no kernel of the recording has"):
                kernels.relu(filled)
            del filled
            kernels.relu(x)


def test_views_and_arrays_without_elements_are_what_they_were_taken_of(target, arena):
    x = target.array(normal(0, 4, 6, dtype=FLOAT))
    with Recording(arena, [x]) as recording:
        y = kernels.relu(kernels.relu(x[1:3]).reshape(3, 4)[1:])
        assert kernels.relu(target.empty((0, 3), FLOAT)).shape == (0, 3)
    x *= -1
    expected = host(kernels.relu(x[1:3])).reshape(3, 4)[1:]
    recording.replay()
    assert np.array_equal(host(y), expected)


# --- what a replay would not do, found by replaying


def proved(arena, x, code):
    proof = Proof(arena.target, [x])
    with Recording(arena, [x]) as recording:
        result = code(x)
    proof.check([recording], [result])
    return result


def changed_in_place(x):
    y = kernels.relu(x)
    y *= 2
    return y


def changed_input(x):
    y = kernels.relu(x)
    x[0] += 1
    return y


def test_the_same_bits_are_a_proof(target, arena):
    x = target.array(normal(0, 4, 6, dtype=FLOAT))
    x[0, 0] = np.nan
    result = proved(arena, x, kernels.softmax)
    assert same([result], [kernels.softmax(x)])


@pytest.mark.parametrize("code", [changed_in_place, changed_input])
def test_a_change_that_is_no_launch(target, arena, code):
    x = target.array(normal(0, 4, 6, dtype=FLOAT))
    before = host(x).copy()
    with pytest.raises(KernelError, match="a replay of what was recorded gives other results"):
        proved(arena, x, code)
    assert np.array_equal(host(x), before)


# What is whole holds its views' elements; columns are no whole piece of memory.
@pytest.mark.parametrize("changed", ["whole", "view", "rows", "columns", "same again"])
def test_a_change_of_any_part_of_the_state_is_found_and_undone(target, arena, changed):
    x, other = (target.array(normal(i, 4, 6, dtype=FLOAT)) for i in (0, 1))
    state = {"view": x[1:3], "whole": x, "rows": other[1:3], "columns": other[:, 1:2]}
    state["same again"] = other[1:3]
    before = [host(array).copy() for array in (x, other)]
    proof = Proof(target, list(state.values()))
    with Recording(arena, [x]) as recording:
        kernels.relu(x)
    state[changed] += 1
    with pytest.raises(KernelError, match="a replay of what was recorded gives other results"):
        proof.check([recording])
    assert same([x, other], before)


def test_a_result_that_is_no_launch(target, arena):
    x = target.array(normal(0, 4, 6, dtype=FLOAT))
    with pytest.raises(KernelError, match="the result: an array that is no input"):
        proved(arena, x, lambda x: halves(kernels.relu(x)))
