"""Every load and store of every shipped kernel is executed by the tests, on the emulated GPU.

So every loader, epilogue and fast path is taken: what a path reads or writes is an instruction, and
each that NVRTC made is looked for among those that ran. Copies of one place in the source, as of an
unrolled loop, are one; a function that is inlined in two places has two.
"""

import re

import numpy as np
import pytest

from kernels import dropout, runtime
from kernels.runtime.source import Source
from tests.lib.paths import CALLS, FLOAT
from tests.lib.support import CPU_ONLY

from . import loaded

#: But for what a CPU alone runs.
SHIPPED = {
    entry for source in Source.all if source.name not in CPU_ONLY for entry in source.entries
}

_ENTRY = re.compile(r"(?:\.visible |\.weak )?\.(?:entry|func) .*?(\w+)\($")
_ACCESS = re.compile(
    r"\s*(@!?%p\d+\s+)?(?:(?:ld|st)\.(?!param)|(?:atom|red|ldmatrix|stmatrix)\.|cp\.async\.c[ag]\.)"
)
_END_OF_BASIC_BLOCK = re.compile(r"\S+:$|\s*(?:@!?%p\d+\s+)?(?:bra|brx|ret|exit|call)\b")


class Taken:
    """Marks loads and stores in PTX, and tells which have run.

    Those of a basic block run together, so that one mark stands for all of them.
    """

    def __init__(self):
        self.texts = []
        self._marks = []  # of each text, and mark in it: the (function, place) pairs it stands for

    def mark(self, ptx):
        """Return a text in which a mark that is passed sets a word of `taken`; None of CuPy's."""
        if not SHIPPED & set(re.findall(r"\.entry (\w+)", ptx)):
            return None
        lines, marks, function, marked = [], [], "", False
        for line, place in loaded.placed(ptx):
            entry, access = _ENTRY.match(line), _ACCESS.match(line)
            function = entry[1] if entry else function
            if access:
                guard = access[1] or ""
                if guard or not marked:
                    lines.append(f"{guard}red.global.or.b32 [taken + {4 * len(marks)}], 1;")
                    marks.append(set())
                    marked = marked or not guard
                marks[-1].add((function, place))
            elif _END_OF_BASIC_BLOCK.match(line):
                marked = False
            lines.append(line)
        self.texts.append(ptx)
        self._marks.append(marks)
        variable = f".global .align 4 .b32 taken[{len(marks)}];"
        return "\n".join(lines).replace(".address_size 64", f".address_size 64\n{variable}")

    def missed(self, cupy, modules):
        """Return what never ran in any of the modules that were made of the texts.

        A kernel is compiled for several tiles, types and widths of its copies. A path that all of
        them have need only be taken in one.
        """
        every, ran = set(), set()
        for module, marks in zip(modules, self._marks, strict=True):
            words = np.empty(len(marks), np.uint32)
            runtime = cupy.cuda.runtime
            address = module.get_global_var("taken")
            runtime.memcpy(words.ctypes.data, address, words.nbytes, runtime.memcpyDeviceToHost)
            every = every.union(*marks)
            ran = ran.union(*(pairs for word, pairs in zip(words, marks, strict=True) if word))
        return every - ran


@pytest.fixture(scope="module")
def called(emulated):
    """What was taken by all calls, and the modules that they loaded."""
    taken = Taken()
    with loaded.editing(taken.mark) as modules:
        target = runtime.cuda_target()
        assert CALLS.keys() >= {f"products in {precision}" for precision in target.precisions}
        for call in CALLS.values():
            call(target)
    return taken, modules


@pytest.mark.slow
def test_every_load_and_store_is_executed(emulated, called):
    taken, modules = called
    names = {name for text in taken.texts for name in re.findall(r"\.entry (\w+)", text)}
    assert names >= SHIPPED
    missed = taken.missed(emulated, modules)
    assert not missed, "\n".join(f"{entry}: {place}" for entry, place in sorted(missed))


def test_elementwise_kernels_run_in_a_recording(emulated):
    """Without a table of scalars, too, which planned steps have; the emulated GPU checks them."""
    CALLS["elementwise"](runtime.cuda_target())
    emulated.cuda.Device().synchronize()


def test_a_path_not_taken_is_noticed(emulated):
    taken = Taken()
    with loaded.editing(taken.mark) as modules:
        dropout(runtime.cuda_target().array(np.zeros(129, FLOAT))[1:], 0.5, seed=1)
        missed = taken.missed(emulated, modules)
    # What elements that begin at a multiple of 16 bytes take: a load of these.
    assert {entry for entry, _ in missed} == {"dropout_forward"}
    assert "kernels/dialect/dialect_cuda.cuh" in {place[0][0] for _, place in missed}
