"""The counters' figures, against hand calculations; NVRTC's own choices do not enter them."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.gpu import device
from tests.gpu.bound import instructions, issued


@pytest.fixture(scope="module")
def count(emulated):
    """A function that launches a kernel of a text and returns its counters.

    Figures of the launch are attributes, those of its least block in `least`.
    """
    cupy = emulated

    def run(text, grid, block, *arguments, shared=0):
        kernel = cupy.RawKernel(f'extern "C" __global__ void kernel({text}', "kernel")
        with device.counting() as counted:
            kernel((grid,), (block,), arguments, shared_mem=shared)
        (launch,) = counted["launches"]
        return SimpleNamespace(**{**launch, **launch["all"], "launch_tensor": launch["tensor"]})

    return run


@pytest.fixture(scope="module")
def arrays(emulated):
    """A function that returns an array of so many floats."""
    return lambda n: emulated.asarray(np.ones(n, np.float32))


ADD = """const float *a, const float *b, float *c, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) c[i] = a[i] + b[i];
}"""


@pytest.mark.parametrize("n", [8192, 10_000])
def test_an_addition_moves_each_byte_once(count, arrays, n):
    a, b, c = (arrays(n) for _ in range(3))
    got = count(ADD, -(-n // 256), 256, a, b, c, np.int32(n))
    warps = -(-n // 32)
    assert (got.add32, got.float_operations) == (warps, n)
    assert (got.load_global, got.store_global) == (2 * warps, warps)
    assert (got.global_load_requests, got.global_store_requests) == (2 * warps, warps)
    assert (got.global_load_sectors, got.global_store_sectors) == (2 * n // 8, n // 8)
    assert (got.global_load_bytes, got.global_store_bytes) == (8 * n, 4 * n)
    assert got.bytes == {"read": 8 * n, "written": 4 * n, "touched": 12 * n}
    assert got.shared_requests == got.barrier == got.fma32 == 0
    # The last block of 10,000 has 16 elements: one warp adds, with half of its lanes.
    assert got.least["add32"] == (8 if n % 256 == 0 else 1)
    assert got.least["float_operations"] == (n % 256 or 256)


@pytest.mark.parametrize(("stride", "sectors"), [(1, 4), (2, 8), (3, 12), (8, 32), (64, 32)])
def test_a_strided_load_moves_more_than_it_uses(count, arrays, stride, sectors):
    text = """const float *x, float *y, int stride) { y[threadIdx.x] = x[threadIdx.x * stride]; }"""
    got = count(text, 1, 32, arrays(32 * stride), arrays(32), np.int32(stride))
    assert (got.global_load_sectors, got.global_load_bytes) == (sectors, 128)
    assert got.global_store_sectors == 4
    assert got.bytes["read"] == 32 * sectors


def test_vectors_and_broadcasts(count, arrays):
    text = """const float4 *x, float4 *y) { y[threadIdx.x] = x[threadIdx.x]; }"""
    got = count(text, 1, 32, arrays(128), arrays(128))
    assert (got.global_load_requests, got.global_load_sectors) == (1, 16)
    text = """const float *x, float *y) { y[threadIdx.x] = x[blockIdx.x]; }"""
    got = count(text, 1, 32, arrays(1), arrays(32))
    assert (got.global_load_sectors, got.global_load_bytes) == (1, 4)


def test_lanes_that_do_nothing(count, arrays):
    text = """float *x, int n) {
        float sum = x[threadIdx.x];
        if (threadIdx.x % 4 == 0)
            for (int i = 0; i < n; ++i) sum = fmaf(sum, sum, 1.0f);
        x[threadIdx.x] = sum;
    }"""
    got = count(text, 1, 32, arrays(32), np.int32(10_000))
    assert (got.fma32, got.float_operations) == (10_000, 10_000 * 8 * 2)
    instructions = sum(list(got.all.values())[: list(got.all).index("lasting")])
    assert got.active_lanes == pytest.approx(8 * instructions, rel=0.01)


@pytest.mark.parametrize("least, figures", [(1, (2, 0)), (2**32, (1, 1))])
def test_divisions_are_counted_by_their_width(count, emulated, least, figures):
    # NVRTC divides by a constant without one, and 64 bits as 32 where both operands are that small.
    text = """const long long *x, long long *y) {
        const long long n = x[0];
        y[0] = x[1] / n, y[1] = x[1] / 10;
        y[2] = int(x[2]) % int(x[3]);
    }"""
    x = emulated.asarray(np.array([least, 7 * least, 9, 4]))
    y = emulated.zeros(3, "int64")
    got = count(text, 1, 32, x, y)
    assert y.tolist() == [7, 7 * least // 10, 1]
    assert (got.division32, got.division64) == figures
    assert issued(got.all) == instructions(got.all) + 19 * figures[0] + 74 * figures[1]


SHARED = """float *y, int stride) {{
    __shared__ {type} tile[1024];
    for (int i = threadIdx.x; i < 1024; i += 32) tile[i] = {{}};
    __syncwarp();
    const {type} value = tile[({index}) % 1024];
    y[threadIdx.x] = {sum};
}}"""
SUMS = {"float": "value", "float2": "value.x + value.y", "float4": "value.x + value.y + value.w"}


@pytest.mark.parametrize(
    ("type_", "index", "stride", "taken", "conflicts"),
    [
        ("float", "threadIdx.x * stride", 1, 1, 0),
        ("float", "threadIdx.x * stride", 2, 2, 1),
        ("float", "threadIdx.x * stride", 3, 1, 0),
        ("float", "threadIdx.x * stride", 8, 8, 7),
        ("float", "threadIdx.x * stride", 32, 32, 31),
        ("float", "threadIdx.x * stride", 33, 1, 0),
        ("float", "stride", 5, 1, 0),  # one word for all
        ("float", "threadIdx.x / 2 * stride", 2, 1, 0),
        # By halves of a warp, unless neighbours have one address.
        ("float2", "threadIdx.x * stride", 1, 2, 0),
        ("float2", "threadIdx.x * stride", 2, 4, 2),
        ("float2", "threadIdx.x / 2 * stride", 1, 1, 0),
        # By quarters; pairs of quarters in one.
        ("float4", "threadIdx.x * stride", 1, 4, 0),
        ("float4", "threadIdx.x * stride", 2, 8, 4),
        ("float4", "threadIdx.x / 2 * stride", 1, 2, 0),
        ("float4", "threadIdx.x % 4 * stride", 1, 4, 0),
    ],
)
def test_bank_conflicts_are_counted(count, arrays, type_, index, stride, taken, conflicts):
    text = SHARED.format(type=type_, index=index, sum=SUMS[type_])
    got = count(text, 1, 32, arrays(32), np.int32(stride))
    # What filling the tile takes: no conflicts.
    words = {"float": 1, "float2": 2, "float4": 4}[type_]
    assert got.load_shared == 1
    filling = 32 * words
    assert (got.shared_wavefronts - filling, got.shared_conflicts) == (taken, conflicts)


def test_accesses_that_the_assembler_may_merge(count, arrays):
    """To neighbouring words, at the same place in all lanes: four of them are one of 16 bytes."""
    text = """float *y, int stride) {{
        __shared__ __align__(16) float tile[32 * 40];
        for (int i = threadIdx.x; i < 32 * 40; i += 32) tile[i] = i;
        __syncwarp();
        float sum = 0;
        #pragma unroll
        for (int i = 0; i < 32; ++i) {{
            float value;  // by PTX of our own: NVRTC merges some, too
            asm("ld.shared.f32 %0, [%1];"
                : "=f"(value) : "r"((int)__cvta_generic_to_shared(tile + {index})));
            sum += value;
        }}
        y[threadIdx.x] = sum;
    }}"""

    def loads(index, stride):
        got = count(text.format(index=index), 1, 32, arrays(32), np.int32(stride))
        # What fills the tile has another place in every lane.
        return got.shared_wavefronts - 40, got.shared_least - 40, got.lasting

    # One word for all lanes, 32 times: 8 accesses of 16 bytes, of two wavefronts each.
    # Of an instruction, 4 bytes are a quarter everywhere; a store to y is the last.
    assert loads("i", 0) == (32, 16, 32 / 4 + 40 / 4 + 1)
    # A row each, 4 words apart from the next in the banks: 4 wavefronts a load. By 16 bytes, the
    # eight lanes of a quarter have all banks.
    assert loads("threadIdx.x * 36 + i", 0)[:2] == (32 * 4, 32)
    # Neighbouring words in neighbouring lanes: nothing merges.
    assert loads("i * 32 + threadIdx.x", 0)[:2] == (32, 32)


def test_a_chain_of_multiply_adds(count, arrays):
    text = """const float *x, float *y, int n) {
        float sum = x[threadIdx.x];
        #pragma unroll 16
        for (int i = 0; i < n; ++i) sum = fmaf(sum, sum, 1.0f);
        y[blockIdx.x * blockDim.x + threadIdx.x] = sum;
    }"""
    got = count(text, 3, 64, arrays(64), arrays(192), np.int32(1000))
    assert (got.fma32, got.float_operations) == (3 * 2 * 1000, 3 * 64 * 1000 * 2)
    assert got.least["fma32"] == 2 * 1000
    assert got.longest_warp == 1000 + 2  # a load and a store
    assert got.bytes == {"read": 256, "written": 768, "touched": 1024}
    assert (got.spilled, got.static_shared) == (0, 0)
    assert 4 <= got.registers <= 40


def test_atomics_and_barriers(count, arrays):
    text = """int *x) {
        __shared__ int sum;
        if (threadIdx.x == 0) sum = 0;
        __syncthreads();
        if (threadIdx.x % 4 == 0) atomicAdd(&x[threadIdx.x / 4], 1 + (int)threadIdx.x);
        atomicAdd(&sum, (int)threadIdx.x);
        __syncthreads();
        if (threadIdx.x == 0) x[40] = sum;
    }"""
    got = count(text, 2, 128, arrays(64).view(np.int32))
    assert got.barrier == 2 * 2 * 4
    # 128 / 4 words in a row: 8 lanes of each warp share a sector.
    assert (got.atomic_requests, got.atomic_sectors) == (2 * 4, 2 * 4)
    # All lanes add to one word, one after the other; a thread writes it before, and reads it.
    assert got.atomic_shared == 2 * 4
    assert got.shared_wavefronts == 2 * (4 * 32 + 2)
    assert got.shared_conflicts == 2 * 4 * 31


GEMM = """const float *A, const float *B, float *C) {
    __shared__ float a[32][32], b[32][32];
    const int row = threadIdx.x / 32, column = threadIdx.x % 32;
    float sum[4] = {};
    for (int k = 0; k < 64; k += 32) {
        for (int r = row; r < 32; r += 8) {
            a[r][column] = A[r * 64 + k + column];
            b[r][column] = B[(k + r) * 32 + column];
        }
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < 32; ++i)
            for (int r = 0; r < 4; ++r) sum[r] = fmaf(a[row + 8 * r][i], b[i][column], sum[r]);
        __syncthreads();
    }
    for (int r = 0; r < 4; ++r) C[(row + 8 * r) * 32 + column] = sum[r];
}"""


def test_a_tile_of_a_matrix_product(count, arrays):
    """C (32, 32) = A (32, 64) B (64, 32), by 8 warps, a row of C four times each."""
    A, B, C = arrays(32 * 64), arrays(64 * 32), arrays(32 * 32)
    got = count(GEMM, 1, 256, A, B, C)
    assert float(C[5]) == 64
    assert (got.fma32, got.float_operations) == (32 * 64, 2 * 32 * 32 * 64)
    assert (got.global_load_requests, got.global_load_sectors) == (128, 512)
    assert got.global_store_sectors == 128
    assert got.bytes == {"read": 4 * 4096, "written": 4096, "touched": 5 * 4096}
    assert got.barrier == 8 * 2 * 2
    assert got.store_shared == 128
    assert (got.shared_wavefronts, got.shared_conflicts) == (got.shared_requests, 0)
    assert got.static_shared == 8192


def test_the_figures_are_the_same_on_every_run(count, arrays):
    a, b, c = (arrays(10_000) for _ in range(3))
    first, second = (vars(count(ADD, 40, 256, a, b, c, np.int32(10_000))) for _ in range(2))
    assert first == second


def test_nothing_is_counted_unless_asked_for(emulated, arrays):
    with device.counting() as counted:
        pass
    assert counted == {"launches": [], "bytes": {"read": 0, "written": 0, "touched": 0}}


def test_bytes_that_an_earlier_launch_wrote_are_not_read(emulated):
    x = emulated.zeros(1024, np.float32)
    kernel = emulated.RawKernel(
        'extern "C" __global__ void twice(const float *x, float *y) '
        "{ y[threadIdx.x] = 2 * x[threadIdx.x]; }",
        "twice",
    )
    y, z = emulated.empty_like(x), emulated.empty_like(x)
    with device.counting() as counted:
        kernel((1,), (1024,), (x, y))
        kernel((1,), (1024,), (y, z))
    assert [launch["bytes"]["read"] for launch in counted["launches"]] == [4096, 4096]
    assert counted["bytes"] == {"read": 4096, "written": 8192, "touched": 12288}


def test_tensor_cores(count, emulated):
    """One mma of 16 x 8 x 16 a warp; the fragments' layout does not matter here."""
    text = """const unsigned *a, float *d) {
        unsigned f[6];
        for (int i = 0; i < 6; ++i) f[i] = a[threadIdx.x];
        float c[4] = {};
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3]), "r"(f[4]), "r"(f[5]));
        d[threadIdx.x] = c[0] + c[1] + c[2] + c[3];
    }"""
    a = emulated.asarray(np.zeros(64, np.uint32))
    got = count(text, 1, 64, a, emulated.empty(64, np.float32))
    assert got.tensor_operations == 2 * (2 * 16 * 8 * 16)
    # Two warps, of one each; the class of the same name holds their number.
    assert got.launch_tensor == {"m16n8k16.f32.f16.f16.f32": 2}
