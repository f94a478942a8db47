"""Have Triton compile the kernels of `test_triton_ptx.py`, on a machine with or without a GPU.

    pip install triton==3.9.0; python tests/gpu/triton_made/make.py

Writes NAME_80.ptx and NAME_90.ptx beside this file. The tests read those and need no Triton.
"""

import os
from pathlib import Path

# No lines of this file in the PTX; products and sums as one fma, Triton's default until 3.9.
os.environ["TRITON_DISABLE_LINE_INFO"] = "1"
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HERE = Path(__file__).parent


@triton.jit
def matmul(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """c[M, N] = a[M, K] b[K, N], summed in float32; a tile of c per block."""
    m = tl.program_id(0) * BM + tl.arange(0, BM)[:, None]
    n = tl.program_id(1) * BN + tl.arange(0, BN)[None, :]
    total = tl.zeros((BM, BN), tl.float32)
    for first in range(0, K, BK):
        k = first + tl.arange(0, BK)
        ka, kb = k[None, :], k[:, None]
        tile_a = tl.load(a + m * K + ka, mask=(m < M) & (ka < K), other=0.0)
        tile_b = tl.load(b + kb * N + n, mask=(kb < K) & (n < N), other=0.0)
        total = tl.dot(tile_a, tile_b, total, input_precision="tf32")
    tl.store(c + m * N + n, total, mask=(m < M) & (n < N))


@triton.jit
def softmax(x, y, N, B: tl.constexpr):
    """y = softmax(x) along the rows of x[M, N], N <= B; a row per block."""
    i = tl.arange(0, B)
    row = tl.program_id(0) * N + i
    v = tl.load(x + row, mask=i < N, other=-float("inf"))
    e = tl.exp(v - tl.max(v, axis=0))
    tl.store(y + row, e / tl.sum(e, axis=0), mask=i < N)


@triton.jit
def layer_norm(x, gamma, beta, y, N, eps, B: tl.constexpr):
    """y = gamma (x - mean) / sqrt(variance + eps) + beta along the rows of x[M, N], N <= B."""
    i = tl.arange(0, B)
    row = tl.program_id(0) * N + i
    v = tl.load(x + row, mask=i < N, other=0.0).to(tl.float32)
    d = tl.where(i < N, v - tl.sum(v, axis=0) / N, 0.0)
    rstd = 1 / tl.sqrt(tl.sum(d * d, axis=0) / N + eps)
    g, b = tl.load(gamma + i, mask=i < N), tl.load(beta + i, mask=i < N)
    tl.store(y + row, d * rstd * g + b, mask=i < N)


def make(kernel, name, signature, constants, aligned, capability):
    """Write the PTX of a kernel with two warps; the arguments `aligned` are multiples of 16."""
    arguments = list(signature)
    source = ASTSource(
        kernel,
        signature={**signature, **dict.fromkeys(constants, "constexpr")},
        constexprs=constants,
        attrs={(arguments.index(one),): [["tt.divisibility", 16]] for one in aligned},
    )
    options = {"num_warps": 2, "num_stages": 2}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    lines = [
        f"// Made by Triton {triton.__version__} from {kernel.__name__} of {Path(__file__).name}.",
        f"// dynamic shared memory: {made.metadata.shared} bytes",
        *(line.rstrip() for line in made.asm["ptx"].strip().splitlines()),
    ]
    (HERE / f"{name}_{capability}.ptx").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    for capability in (80, 90):
        for element in ("fp32", "bf16", "fp16"):
            pointers = {"a": f"*{element}", "b": f"*{element}", "c": "*fp32"}
            sizes = {"M": "i32", "N": "i32", "K": "i32"}
            tile = {"BM": 16, "BN": 32, "BK": 32}
            aligned = "a b c N K".split()
            make(matmul, f"matmul_{element}", {**pointers, **sizes}, tile, aligned, capability)
        signature = {"x": "*fp32", "y": "*fp32", "N": "i32"}
        make(softmax, "softmax", signature, {"B": 256}, ["x", "y"], capability)
        arrays = {"x": "*bf16", "gamma": "*fp32", "beta": "*fp32", "y": "*bf16"}
        signature = {**arrays, "N": "i32", "eps": "fp32"}
        make(layer_norm, "layer_norm", signature, {"B": 256}, list(arrays), capability)
