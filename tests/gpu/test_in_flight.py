"""What is said of loads in flight, on machine code that can be read, and on that of kernels."""

import pytest

from tests.gpu.in_flight import ARCH, InFlight, of_kernel
from tests.lib import nvrtc, sass
from tests.lib.kernel_resources import SOURCES

ONE = """
        /*0000*/                   LDG.E.128 R8, desc[UR4][R2.64] ;
        /*0010*/                   FADD R0, R0, R9 ;
"""
TWO = """
        /*0000*/                   LDG.E.64.CONSTANT R8, desc[UR4][R2.64] ;
        /*0010*/                   LDG.E.U8 R10, desc[UR4][R4.64] ;
        /*0020*/                   FADD R0, R8, R8 ;
        /*0030*/                   LDG.E R12, desc[UR4][R4.64] ;
        /*0040*/                   FADD R0, R12, R10 ;
"""
EITHER = """
        /*0000*/               @P0 BRA `(.L_x_1) ;
        /*0010*/                   LDG.E.128 R8, desc[UR4][R2.64] ;
        /*0020*/                   BRA `(.L_x_2) ;
.L_x_1:
        /*0030*/                   LDG.E R8, desc[UR4][R2.64] ;
        /*0040*/                   LDG.E R9, desc[UR4][R2.64+0x4] ;
.L_x_2:
        /*0050*/                   FADD R0, R8, R9 ;
"""
LOOP = """
        /*0000*/                   LDG.E.128 R8, desc[UR4][R2.64] ;
        /*0010*/                   LDG.E.128 R12, desc[UR4][R2.64] ;
        /*0020*/                   FADD R8, R8, R12 ;
.L_x_1:
        /*0030*/                   FADD R0, R20, R0 ;
        /*0040*/                   LDG.E R20, desc[UR4][R4.64] ;
        /*0050*/                   LDG.E R21, desc[UR4][R4.64] ;
        /*0060*/               @P0 BRA `(.L_x_1) ;
        /*0070*/                   EXIT ;
"""
DIVERGENT = """
        /*0000*/                   LDG.E.64 R4, desc[UR4][R2.64] ;
        /*0010*/                   BRA.DIV UR6, `(.L_x_1) ;
        /*0020*/                   LDG.E.64 R6, desc[UR4][R2.64] ;
.L_x_1:
        /*0030*/                   FADD R0, R4, R6 ;
"""
ADDRESS = """
        /*0000*/                   LDG.E.64 R4, desc[UR4][R2.64] ;
        /*0010*/                   LDG.E.64 R6, desc[UR4][R4.64] ;
        /*0020*/                   EXIT ;
"""


@pytest.mark.parametrize(
    ("code", "loads", "size"),
    [
        pytest.param(ONE, 1, 16, id="one load"),
        pytest.param(TWO, 2, 9, id="the use of the first leaves the second"),
        pytest.param(EITHER, 1, 16, id="of two branches, the larger"),
        pytest.param(LOOP, 2, 8, id="a loop, not what is before it"),
        pytest.param(DIVERGENT, 2, 16, id="a branch that threads take only if they diverge"),
        pytest.param(ADDRESS, 1, 8, id="an address that is loaded"),
    ],
)
def test_loads_are_in_flight_until_they_are_used(code, loads, size):
    assert of_kernel(code) == InFlight(loads, size)


@pytest.mark.parametrize("arch", ARCH.values())
@pytest.mark.parametrize(
    ("source", "prefix", "entries"),
    [
        ("norm/batchnorm.cu", "batch_norm", "merge apply chunks gradient_chunks gradient_sums"),
        ("norm/layer_norm.cu", "layer_norm", "gradient_chunks"),
        ("pooling/pool.cu", "global_avg_pool2d", "forward"),
    ],
)
def test_loads_of_four_rows_wait_together(source, prefix, entries, arch):
    text = nvrtc.specialised(SOURCES[source], "float32", VECTOR=4)
    code = sass.text(nvrtc.compiled(text, source, arch).cubin)
    for entry in entries.split():
        name = f"{prefix}_{entry}"
        assert of_kernel(code[name]).bytes >= 4 * 16, name
