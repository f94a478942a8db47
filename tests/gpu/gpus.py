"""The highest rates of GPUs, per clock or second, for the lower bounds on times.

If no source gives a rate, the one here is higher than any measured one, so that the bound holds.

Sources: [G] CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions" and "Compute
Capabilities"; [A] NVIDIA A100 Tensor Core GPU Architecture; [H] NVIDIA H100 Tensor Core GPU
Architecture; [H2] NVIDIA H200 Tensor Core GPU, data sheet; [R] NVIDIA Ada GPU Architecture; [T]
NVIDIA Turing GPU Architecture, T4 data sheet; [M] NVIDIA Ampere GA102 GPU Architecture, RTX A6000
data sheet. Rates of tensor cores follow from the TFLOP/s of these, at their clocks, without
sparsity.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Gpu:
    """One model; rates are per multiprocessor and clock unless noted."""

    name: str
    device: str  # what cudaGetDeviceProperties calls it
    multiprocessors: int
    clock: float  # Hz, the highest that the model boosts to by its specification
    warps: int  # resident on a multiprocessor
    dram: float  # bytes a second
    l2_bytes: int
    l2: float  # bytes a clock, of the GPU
    float32: int  # lanes of fma, add, mul
    half: int
    float64: int
    #: Multiply-adds of mma, by the type of its factors; float16 with float16 sums is "f16.f16".
    tensor: dict[str, int] = field(default_factory=dict)
    mma_sync: float = 1.0  # the share of it that was measured with mma.sync
    issue: int = 4  # warp instructions: four schedulers, of one each [G]
    special: int = 16  # lanes of rcp, rsqrt, ex2, lg2, sin, cos [G]
    l1: int = 128  # bytes from L1 or shared memory: 32 banks of 4 [G]
    port: int = 64  # bytes from or to L2 [A]


MiB = 2**20

#: The emulated models, by their names in $EMULATED_GPU.
GPUS = {
    "h100": Gpu(
        name="H100 SXM",
        device="NVIDIA H100 80GB HBM3",
        multiprocessors=132,  # [H]
        clock=1.98e9,
        warps=64,
        dram=3.352e12,  # [H]: 5 stacks of HBM3
        l2_bytes=50 * MiB,
        l2=5120,  # as the A100's [A]; 4100 were measured
        float32=128,
        half=256,
        float64=64,
        # With wgmma; the kernels here use mma.sync.
        tensor={"f16": 2048, "f16.f16": 2048, "bf16": 2048, "tf32": 1024, "f64": 128, "s8": 4096},
        # "Benchmarking and Dissecting the Nvidia Hopper GPU Architecture", arXiv 2402.13499.
        mma_sync=0.63,
    ),
    "a100": Gpu(
        name="A100 SXM 40 GB",
        device="NVIDIA A100-SXM4-40GB",
        multiprocessors=108,  # [A]
        clock=1.41e9,
        warps=64,
        dram=1.555e12,
        l2_bytes=40 * MiB,
        l2=5120,
        float32=64,
        half=256,
        float64=32,
        tensor={"f16": 1024, "f16.f16": 1024, "bf16": 1024, "tf32": 512, "f64": 64, "s8": 2048},
    ),
    "rtx4090": Gpu(
        name="RTX 4090",
        device="NVIDIA GeForce RTX 4090",
        multiprocessors=128,  # [R]
        clock=2.52e9,
        warps=48,
        dram=1.008e12,
        l2_bytes=72 * MiB,
        l2=64 * 128,  # no source: what the ports of its multiprocessors take
        float32=128,
        half=128,
        float64=2,
        tensor={"f16": 256, "f16.f16": 512, "bf16": 256, "tf32": 128, "s8": 1024},
    ),
    "t4": Gpu(
        name="T4",
        device="Tesla T4",
        multiprocessors=40,  # [T]
        clock=1.59e9,
        warps=32,
        dram=320e9,
        l2_bytes=4 * MiB,
        l2=64 * 40,  # no source: what the ports of its multiprocessors take
        float32=64,
        half=128,
        float64=2,
        tensor={"f16": 512, "f16.f16": 512, "s8": 1024},
    ),
}

#: An H100 with other memory [H2], so what is counted on the one holds for the other.
H200 = replace(GPUS["h100"], name="H200 SXM", device="NVIDIA H200", dram=4.8e12)

#: What the SGEMM worklog measured on.
A6000 = Gpu(
    name="RTX A6000",
    device="NVIDIA RTX A6000",
    multiprocessors=84,  # [M]
    clock=1.8e9,
    warps=48,
    dram=768e9,
    l2_bytes=6 * MiB,
    l2=64 * 84,  # no source: what the ports of its multiprocessors take
    float32=128,
    half=128,
    float64=2,
    tensor={"f16": 256, "f16.f16": 512, "bf16": 256, "tf32": 128, "s8": 1024},
)


def of_device(name: str) -> tuple[Gpu, str] | None:
    """Return a GPU by its device's name, and the name of the emulated one whose counts are its own.

    None where no rates are known of it: other boards of the same name have other clocks and memory.
    """
    known = [*((gpu, counted) for counted, gpu in GPUS.items()), (H200, "h100")]
    return next(((gpu, counted) for gpu, counted in known if gpu.device == name), None)
