"""Whole kernels that NVRTC compiles: control flow, memory, warps, blocks, tensor cores."""

import ml_dtypes
import numpy as np
import pytest

from . import build, ptx
from .machine_api import Machine


@pytest.fixture(scope="module", params=[1, 3], ids=["1 host thread", "3 host threads"])
def machine(request):
    return Machine(str(build.build().library), request.param)


def launch(
    machine, body, grid, block, *arguments, parameters="int *y", before="", shared=0, arch="sm_90"
):
    text = f'{before}\nextern "C" __global__ void f({parameters}) {{\n{body}\n}}'
    machine.module(ptx.compiled(text, "f.cu", arch)).run(
        "f", grid, block, *arguments, shared=shared
    )


def results(machine, body, threads=64, before="", dtype=np.int32, arch="sm_90"):
    """Return y after a launch of one block, y[i] of thread i."""
    y = machine.empty(threads, dtype)
    launch(
        machine, body, 1, threads, y, before=before, parameters=f"{C_TYPES[dtype]} *y", arch=arch
    )
    return y.values.copy()


C_TYPES = {
    np.int32: "int",
    np.uint32: "unsigned",
    np.float32: "float",
    np.uint64: "unsigned long long",
}
I = np.arange(64)  # noqa: E741


# ---- control flow -------------------------------------------------------------------------------


def test_nested_branches_and_loops(machine):
    body = """
    int n = 0;
    for (int k = 0; k < threadIdx.x % 7; ++k) {
        if (k % 2) { n += k; if (threadIdx.x % 3 == 0) continue; n *= 2; }
        else n -= 1;
        if (n > 20) break;
    }
    y[threadIdx.x] = n;
    """
    expected = []
    for i in I:
        n = 0
        for k in range(i % 7):
            if k % 2:
                n += k
                if i % 3 == 0:
                    continue
                n *= 2
            else:
                n -= 1
            if n > 20:
                break
        expected.append(n)
    np.testing.assert_array_equal(results(machine, body), expected)


def test_a_branch_by_table(machine):
    cases = "".join(f"case {k}: n = y0({k * k + 3}, n) ^ {k * 77}; break;" for k in range(12))
    before = "__device__ __noinline__ int y0(int a, int b) { return a * 31 + b; }"
    body = f"""
    int n = threadIdx.x;
    switch (threadIdx.x % 13) {{ {cases} default: n = -1; }}
    y[threadIdx.x] = n;
    """
    expected = [
        ((k * k + 3) * 31 + i) ^ (k * 77) if (k := i % 13) < 12 else -1 for i in map(int, I)
    ]
    np.testing.assert_array_equal(results(machine, body, before=before), expected)


def test_calls_of_functions(machine):
    before = """
    struct Pair { int a; long long b; };
    __device__ __noinline__ Pair swap(Pair p) { return {int(p.b), p.a}; }
    __device__ __noinline__ int twice(int a) {
        Pair p = swap(swap({a, a + 1ll}));
        return p.a + int(p.b);
    }
    """
    body = "y[threadIdx.x] = threadIdx.x % 2 ? twice(threadIdx.x) : -1;"
    np.testing.assert_array_equal(
        results(machine, body, before=before), np.where(I % 2, 2 * I + 1, -1)
    )


def test_an_early_return_of_some_lanes(machine):
    body = "y[threadIdx.x] = 1; if (threadIdx.x % 3) return; y[threadIdx.x] = 2;"
    np.testing.assert_array_equal(results(machine, body), np.where(I % 3, 1, 2))


def test_recursion_is_refused(machine):
    before = "__device__ __noinline__ int f1(int n) { return n < 2 ? n : f1(n - 1) * f1(n - 2); }"
    with pytest.raises(Exception, match="calls itself: recursion is not supported"):
        results(machine, "y[threadIdx.x] = f1(threadIdx.x);", before=before)


# ---- memory -------------------------------------------------------------------------------------


def test_an_array_of_the_threads_own(machine):
    body = """
    int held[16];
    for (int k = 0; k < 16; ++k) held[k] = k * threadIdx.x;
    y[threadIdx.x] = held[threadIdx.x % 16] + held[(threadIdx.x + 1) % 16];
    """
    np.testing.assert_array_equal(results(machine, body), I * (I % 16 + (I + 1) % 16))


def test_constants_and_variables(machine):
    before = """
    __constant__ int table[4] = {2, 3, 5, 7};
    __device__ int counter = 40;
    __device__ int *pointer = &counter;
    """
    body = "y[threadIdx.x] = table[threadIdx.x % 4] + *pointer;"
    expected = np.array([2, 3, 5, 7])[I % 4] + 40
    np.testing.assert_array_equal(results(machine, body, before=before), expected)


@pytest.mark.parametrize("kind", ["char4", "short2", "int2", "float4", "double2", "long long"])
def test_vector_loads_and_stores(machine, kind):
    n = np.dtype({"char4": "V4", "short2": "V4", "int2": "V8", "long long": "V8"}.get(kind, "V16"))
    raw = np.random.default_rng(0).integers(0, 256, 64 * n.itemsize, np.uint8)
    x, y = machine.array(raw), machine.empty(raw.size, np.uint8)
    body = f"""
    __shared__ {kind} t[64];
    t[63 - threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = t[threadIdx.x];
    """
    launch(machine, body, 1, 64, x, y, parameters=f"const {kind} *x, {kind} *y")
    np.testing.assert_array_equal(y.values.reshape(64, -1), raw.reshape(64, -1)[::-1])


def test_a_structure_as_parameter(machine):
    before = "struct Window { int H[3]; double scale; long long last; };"
    body = "y[threadIdx.x] = w.H[threadIdx.x % 3] * w.scale + w.last;"
    window = np.array([([1, 2, 3], 10.0, 5)], np.dtype("(3,)i4,f8,i8", align=True))[0]
    y = machine.empty(64, np.int32)
    launch(machine, body, 1, 64, window, y, parameters="Window w, int *y", before=before)
    np.testing.assert_array_equal(y.values, (I % 3 + 1) * 10 + 5)


def test_a_dynamic_shared_array_after_static_ones(machine):
    body = """
    __shared__ int small[3]; extern __shared__ int large[];
    if (threadIdx.x < 3) small[threadIdx.x] = threadIdx.x;
    large[threadIdx.x] = threadIdx.x * 10;
    __syncthreads();
    y[threadIdx.x] = large[63 - threadIdx.x] + small[threadIdx.x % 3];
    """
    y = machine.empty(64, np.int32)
    launch(machine, body, 1, 64, y, shared=256)
    np.testing.assert_array_equal(y.values, (63 - I) * 10 + I % 3)


ATOMICS = {
    "atomicAdd(&y[0], int(threadIdx.x))": I.sum(),
    "atomicMax(&y[0], int(threadIdx.x * 7 % 61))": max(I * 7 % 61),
    "atomicMin(&y[0], -int(threadIdx.x))": -63,
    "atomicOr(&y[0], 1 << threadIdx.x % 20)": (1 << 20) - 1,
    "atomicXor(&y[0], 1 << threadIdx.x % 31)": 0b11,  # all others twice
    "atomicInc((unsigned *)y, 9u)": 64 % 10,
    "atomicCAS(&y[0], 0, int(threadIdx.x) + 1)": 1,
}


@pytest.mark.parametrize("expression", ATOMICS)
def test_atomics(machine, expression):
    y = machine.array(np.zeros(1, np.int32))
    launch(machine, f"{expression};", 1, 64, y)
    assert y.values[0] == ATOMICS[expression]
    expression_of_shared = expression.replace("&y[0]", "&s").replace(")y", ")&s")
    shared = f"""
    __shared__ int s;
    if (threadIdx.x == 0) s = 0;
    __syncthreads();
    {expression_of_shared};
    __syncthreads();
    if (threadIdx.x == 0) y[0] = s;
    """
    y = machine.array(np.zeros(1, np.int32))
    launch(machine, shared, 1, 64, y)
    assert y.values[0] == ATOMICS[expression]


def test_atomics_of_many_blocks(machine):
    y = machine.array(np.zeros(7, np.int32))
    launch(machine, "atomicAdd(y + (blockIdx.x * blockDim.x + threadIdx.x) % 7, 1);", 33, 96, y)
    np.testing.assert_array_equal(y.values, np.bincount(np.arange(33 * 96) % 7))


# ---- warps --------------------------------------------------------------------------------------

LANE, WARP = I % 32, I // 32 * 32
WARP_OPERATIONS = {
    "__shfl_sync(~0u, int(threadIdx.x), threadIdx.x + 5)": WARP + (LANE + 5) % 32,
    "__shfl_xor_sync(~0u, int(threadIdx.x), 9)": I ^ 9,
    "__shfl_up_sync(~0u, int(threadIdx.x), 3)": np.where(LANE < 3, I, I - 3),
    "__shfl_down_sync(~0u, int(threadIdx.x), 3)": np.where(LANE > 28, I, I + 3),
    "__shfl_sync(~0u, int(threadIdx.x), 2, 8)": I // 8 * 8 + 2,
    "__shfl_up_sync(~0u, int(threadIdx.x), 3, 8)": np.where(I % 8 < 3, I, I - 3),
    "__shfl_down_sync(~0u, int(threadIdx.x), 3, 8)": np.where(I % 8 > 4, I, I + 3),
    "int(__ballot_sync(~0u, threadIdx.x % 32 % 3 == 0))": 0b1001001001001001001001001001001,
    "__any_sync(~0u, threadIdx.x == 40)": I // 32,
    "__all_sync(~0u, threadIdx.x < 32)": 1 - I // 32,
    "int(__match_any_sync(~0u, threadIdx.x % 31))": [
        sum(1 << k for k in range(32) if (first + k) % 31 == i % 31)
        for i, first in zip(map(int, I), map(int, WARP), strict=True)
    ],
    "int(__reduce_add_sync(~0u, threadIdx.x))": np.where(I < 32, 496, 496 + 1024),
    "int(__reduce_max_sync(~0u, int(threadIdx.x) - 40))": np.where(I < 32, -9, 23),
    "int(__activemask())": -1,
}


@pytest.mark.parametrize("expression", WARP_OPERATIONS)
def test_warp_operations(machine, expression):
    expected = np.broadcast_to(WARP_OPERATIONS[expression], 64)
    actual = results(machine, f"y[threadIdx.x] = {expression};")
    np.testing.assert_array_equal(
        actual.view(np.uint32), expected.astype(np.int64).astype(np.uint32)
    )


def test_halves_of_a_warp_with_masks_of_their_own(machine):
    body = """
    int v = threadIdx.x;
    if (threadIdx.x % 32 < 16) v = __shfl_xor_sync(0x0000ffffu, v, 1);
    else v = __shfl_xor_sync(0xffff0000u, v, 2);
    y[threadIdx.x] = v;
    """
    np.testing.assert_array_equal(results(machine, body), np.where(LANE < 16, I ^ 1, I ^ 2))


def test_syncwarp_orders_shared_memory(machine):
    body = """
    __shared__ int tile[64];
    const int first = threadIdx.x / 32 * 32;
    tile[threadIdx.x] = threadIdx.x;
    __syncwarp();
    y[threadIdx.x] = tile[first + 31 - threadIdx.x % 32];
    __syncwarp();
    tile[threadIdx.x] = 0;
    """
    np.testing.assert_array_equal(results(machine, body), WARP + 31 - LANE)


def test_a_syncwarp_in_both_branches(machine):
    body = """
    if (threadIdx.x % 2) { __syncwarp(); y[threadIdx.x] = 1; }
    else { y[threadIdx.x] = 0; __syncwarp(); }
    """
    np.testing.assert_array_equal(results(machine, body), I % 2)


# ---- blocks -------------------------------------------------------------------------------------


def test_votes_at_a_barrier(machine):
    body = """
    const int count = __syncthreads_count(threadIdx.x % 3 == 0);
    const int any = __syncthreads_or(threadIdx.x == 63), all = __syncthreads_and(threadIdx.x < 63);
    y[threadIdx.x] = count * 100 + any * 10 + all;
    """
    np.testing.assert_array_equal(results(machine, body), 22 * 100 + 10)


def test_barriers_with_numbers_and_counts(machine):
    """Two pairs of warps, each with a barrier of its own, and loops of different length."""
    body = """
    __shared__ int tile[128];
    const int pair = threadIdx.x / 64;
    int sum = 0;
    for (int k = 0; k < 3 + pair; ++k) {
        tile[threadIdx.x] = threadIdx.x * (k + 1);
        asm volatile("bar.sync %0, 64;" :: "r"(pair + 1) : "memory");
        sum += tile[pair * 64 + 63 - threadIdx.x % 64];
        asm volatile("bar.sync %0, 64;" :: "r"(pair + 1) : "memory");
    }
    y[threadIdx.x] = sum;
    """
    i = np.arange(128)
    partner = i // 64 * 64 + 63 - i % 64
    expected = partner * np.where(i < 64, 6, 10)
    np.testing.assert_array_equal(results(machine, body, 128), expected)


def test_a_warp_that_waits_for_another_by_polling(machine):
    body = """
    __shared__ volatile int flag; __shared__ int value;
    if (threadIdx.x == 0) flag = 0;
    __syncthreads();
    if (threadIdx.x == 0) { while (atomicAdd((int *)&flag, 0) == 0) {} y[0] = 7; }
    if (threadIdx.x == 32) atomicExch((int *)&flag, 1);
    """
    y = machine.empty(1, np.int32)
    launch(machine, body, 1, 64, y)
    assert y.values[0] == 7


def test_grids_and_blocks_of_three_dimensions(machine):
    body = """
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    y[block * 30 + thread] = block * 100 + thread;
    """
    y = machine.empty((24, 30), np.int32)
    launch(machine, body, (2, 3, 4), (5, 3, 2), y)
    np.testing.assert_array_equal(y.values, np.arange(24)[:, None] * 100 + np.arange(30))


# ---- asynchronous copies ------------------------------------------------------------------------


def test_copies_in_two_groups(machine):
    body = """
    __shared__ __align__(16) float tile[128];
    const unsigned to = __cvta_generic_to_shared(tile + threadIdx.x * 2);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" :: "r"(to), "l"(x + threadIdx.x * 2));
    asm volatile("cp.async.commit_group;");
    __shared__ __align__(16) float partly[4];
    if (threadIdx.x == 0) {
        const unsigned there = __cvta_generic_to_shared(partly);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(there), "l"(x), "r"(8));
    }
    asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group 1;" ::: "memory");
    __syncthreads();
    y[threadIdx.x] = tile[127 - threadIdx.x];
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    if (threadIdx.x < 4) y[64 + threadIdx.x] = partly[threadIdx.x];
    """
    values = np.arange(1, 129, dtype=np.float32)
    x, y = machine.array(values), machine.empty(68, np.float32)
    launch(machine, body, 1, 64, x, y, parameters="const float *x, float *y")
    np.testing.assert_array_equal(y.values, [*values[::-1][:64], 1, 2, 0, 0])


def test_groups_without_copies(machine):
    """Which a kernel counts that copies elements of two bytes by itself."""
    body = """
    asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    y[threadIdx.x] = threadIdx.x;
    """
    y = machine.empty(40, np.int32)
    launch(machine, body, 1, 40, y)
    np.testing.assert_array_equal(y.values, np.arange(40))


# ---- tensor cores -------------------------------------------------------------------------------

#: shape -> rows, k; PTX type -> NumPy type, neighbours in a register
PRODUCTS = [
    ("m16n8k16", "f16", "f32"),
    ("m16n8k16", "bf16", "f32"),
    ("m16n8k8", "f16", "f32"),
    ("m16n8k8", "bf16", "f32"),
    ("m16n8k8", "tf32", "f32"),
    ("m16n8k4", "tf32", "f32"),
    ("m16n8k16", "f16", "f16"),
    ("m8n8k4", "f64", "f64"),
    ("m16n8k8", "f64", "f64"),
    ("m16n8k32", "s8", "s32"),
]
ELEMENT = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "tf32": np.float32,
    "f64": np.float64,
    "s8": np.int8,
    "f32": np.float32,
    "s32": np.int32,
}


@pytest.mark.parametrize("shape, kind, sums", PRODUCTS)
def test_products_of_fragments(machine, shape, kind, sums):
    """Small whole numbers, so that every order of the sums gives the same."""
    rows, k = int(shape[1 : shape.index("n")]), int(shape[shape.index("k") + 1 :])
    random = np.random.default_rng(0)
    a = random.integers(-4, 5, (rows, k)).astype(ELEMENT[kind])
    b = random.integers(-4, 5, (k, 8)).astype(ELEMENT[kind])
    c = random.integers(-9, 9, (rows, 8)).astype(ELEMENT[sums])
    register = np.float64 if kind == "f64" else np.uint32
    per = np.dtype(register).itemsize // np.dtype(ELEMENT[kind]).itemsize
    lane = np.arange(32)
    g, t = lane // 4, lane % 4

    def fragment(matrix, count, place):
        """Pack a matrix: place(r, p) gives the rows and columns of a register's p-th element."""
        parts = [np.stack([matrix[place(r, p)] for p in range(per)], axis=-1) for r in range(count)]
        return np.stack(parts).reshape(count, -1).view(register)

    below = rows == 16
    left = fragment(
        a,
        rows * k // (32 * per),
        lambda r, p: (
            g + (r % 2 * 8 if below else 0),
            (t + (r // 2 if below else r) * 4) * per + p,
        ),
    )
    right = fragment(b, 8 * k // (32 * per), lambda r, p: ((t + r * 4) * per + p, g))
    places = [(g + r // 2 * 8, t * 2 + r % 2) for r in range(rows // 4)]
    held = np.stack([c[place] for place in places])
    if sums == "f16":
        held = np.stack([held[0::2], held[1::2]], axis=-1).reshape(rows // 8, -1).view(np.uint32)
    letter = {"f64": "d"}.get(kind, "r")
    sum_letter = {"f32": "f", "f64": "d"}.get(sums, "r")
    counts = [len(held), len(left), len(right)]
    names, at = [], 0
    for count in counts:
        names.append("{" + ", ".join(f"%{at + i}" for i in range(count)) + "}")
        at += count
    c_type = {"r": "unsigned", "f": "float", "d": "double"}
    body = f"""
    {c_type[sum_letter]} d[{counts[0]}];
    for (int i = 0; i < {counts[0]}; ++i) d[i] = c[i * 32 + threadIdx.x];
    """
    outputs = ", ".join(f'"+{sum_letter}"(d[{i}])' for i in range(counts[0]))
    inputs = ", ".join(
        f'"{letter}"({name}[{i} * 32 + threadIdx.x])'
        for name, count in (("a", counts[1]), ("b", counts[2]))
        for i in range(count)
    )
    text = f"mma.sync.aligned.{shape}.row.col.{sums}.{kind}.{kind}.{sums} "
    text += f"{names[0]}, {names[1]}, {names[2]}, {names[0]};"
    body += f'asm volatile("{text}" : {outputs} : {inputs});'
    body += f"for (int i = 0; i < {counts[0]}; ++i) y[i * 32 + threadIdx.x] = d[i];"
    operand, sum_type = c_type[letter], c_type[sum_letter]
    parameters = f"const {operand} *a, const {operand} *b, const {sum_type} *c, {sum_type} *y"
    y = machine.empty(held.shape, held.dtype)
    launch(machine, body, 1, 32, *map(machine.array, (left, right, held)), y, parameters=parameters)
    actual = y.values
    if sums == "f16":
        pairs = actual.view(np.float16).reshape(-1, 32, 2)
        actual = pairs.transpose(0, 2, 1).reshape(-1, 32)
    expected = a.astype("f8") @ b.astype("f8") + c.astype("f8")
    np.testing.assert_array_equal(actual, np.stack([expected[place] for place in places]))


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_of_shared_memory(machine, number, transposed):
    names = ", ".join(f"%{i}" for i in range(number))
    outputs = ", ".join(f'"=r"(r[{i}])' for i in range(number))
    trans = ".trans" if transposed else ""
    body = f"""
    __shared__ __align__(16) unsigned tile[128];
    for (int i = threadIdx.x; i < 128; i += 32) tile[i] = x[i];
    __syncthreads();
    unsigned r[{number}];
    const unsigned from = __cvta_generic_to_shared(tile + threadIdx.x % {8 * number} * 4);
    asm volatile("ldmatrix.sync.aligned.m8n8.x{number}{trans}.shared.b16 {{{names}}}, [%{number}];"
                 : {outputs} : "r"(from));
    for (int i = 0; i < {number}; ++i) y[i * 32 + threadIdx.x] = r[i];
    """
    matrices = np.arange(4 * 64, dtype=np.uint16).reshape(4, 8, 8)
    x, y = machine.array(matrices.view(np.uint32)), machine.empty((number, 32), np.uint32)
    launch(machine, body, 1, 32, x, y, parameters="const unsigned *x, unsigned *y")
    expected = matrices[:number].transpose(0, 2, 1) if transposed else matrices[:number]
    np.testing.assert_array_equal(
        y.values, np.ascontiguousarray(expected).view(np.uint32).reshape(number, 32)
    )
