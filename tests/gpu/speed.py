"""Measure how fast the emulated GPU is: instructions, accesses, launches, a training step, a build.

    python -m tests.gpu.speed

Each figure is a median. Seconds are CPU time of all threads, unless they are called wall.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import processor

from . import build, device
from .machine_api import Machine
from .profile import REPOSITORY, RESULTS, planned_steps

ROUNDS = 7
BLOCKS, WARPS, UNROLLED, TURNS = 2, 4, 32, 500

#: Repeats one instruction. A lane's addresses are %rd1 in global and %r1 in shared memory, `stride`
#: bytes from the next lane's; all of shared memory is written before.
KERNEL = """
.version 8.0
.target sm_90
.address_size 64
.visible .entry repeat(.param .u64 memory, .param .u32 turns) {{
    .reg .b64 %rd<3>;
    .reg .b32 %r<9>;
    .reg .f32 %f<9>;
    .reg .pred %p;
    .shared .align 16 .b8 shared[2048];
    mov.u32 %r2, %tid.x;
    cvt.rn.f32.u32 %f1, %r2;
    mov.f32 %f2, %f1; mov.f32 %f3, %f1; mov.f32 %f4, %f1;
    mov.u32 %r3, shared;
    mad.lo.s32 %r1, %r2, 16, %r3;
    st.shared.v4.f32 [%r1], {{%f1, %f2, %f3, %f4}};
    bar.sync 0;
    mad.lo.s32 %r1, %r2, {stride}, %r3;
    mov.u32 %r4, %ctaid.x;
    mad.lo.s32 %r4, %r4, 128, %r2;
    mul.wide.u32 %rd2, %r4, {stride};
    ld.param.u64 %rd1, [memory];
    add.s64 %rd1, %rd1, %rd2;
    ld.param.u32 %r5, [turns];
again:
    {body}
    sub.s32 %r5, %r5, 1;
    setp.ne.s32 %p, %r5, 0;
    @%p bra again;
    ret;
}}
"""
FOUR = "{%f5, %f6, %f7, %f8}"
#: The instruction and the stride.
INSTRUCTIONS = {
    "fma.rn.f32": ("fma.rn.f32 %f5, %f1, %f2, %f3;", 4),
    "fma.rn.ftz.f32": ("fma.rn.ftz.f32 %f5, %f1, %f2, %f3;", 4),
    "add.s32": ("add.s32 %r7, %r2, %r3;", 4),
    "ld.shared, a row": ("ld.shared.f32 %f5, [%r1];", 4),
    "ld.shared.v4, a row": (f"ld.shared.v4.f32 {FOUR}, [%r1];", 16),
    "ld.shared, 4 lanes a bank": ("ld.shared.f32 %f5, [%r1];", 16),
    "ld.shared, a broadcast": ("ld.shared.f32 %f5, [shared];", 4),
    "st.shared, a row": ("st.shared.f32 [%r1], %f1;", 4),
    "st.shared.v4, a row": ("st.shared.v4.f32 [%r1], {%f1, %f2, %f3, %f4};", 16),
    "ld.global, a row": ("ld.global.f32 %f5, [%rd1];", 4),
    "ld.global.u8, a row": ("ld.global.u8 %r7, [%rd1];", 1),
    "ld.global.v4, a row": (f"ld.global.v4.f32 {FOUR}, [%rd1];", 16),
    "ld.global, a broadcast": ("ld.global.f32 %f5, [%rd1];", 0),
    "ld.global, scattered": ("ld.global.f32 %f5, [%rd1];", 36),
    "st.global, a row": ("st.global.f32 [%rd1], %f1;", 4),
    "st.global.v4, a row": ("st.global.v4.f32 [%rd1], {%f1, %f2, %f3, %f4};", 16),
    "st.global, scattered": ("st.global.f32 [%rd1], %f1;", 36),
}

NOTHING = 'extern "C" __global__ void nothing() {}'


def main() -> None:
    """Measure, print and write bench/results/emulated-gpu.json."""
    device.turn_on()
    if device.real_gpu():
        sys.exit("the GPU is a real one")
    results: dict[str, Any] = {
        "made by": "python -m tests.gpu.speed",
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load of the minute before": round(os.getloadavg()[0], 1),
    }
    for name, measure in (
        ("nanoseconds of a warp instruction, one core", instructions),
        ("microseconds of a launch", launches),
        ("seconds of a training step", steps),
        ("the build", builds),
    ):
        results[name] = measure()
        print(name, json.dumps(results[name], indent=2), flush=True)
    path = RESULTS / "emulated-gpu.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"wrote {path}")


def instructions() -> dict[str, float]:
    """Return what an instruction takes with every check on, while two blocks run in turn."""
    machine = Machine(str(build.build().library), host_threads=1)
    times = {}
    for name in INSTRUCTIONS:
        run = repeated(machine, name)
        more = lasting(partial(run, TURNS + 1)) - lasting(partial(run, 1))
        times[name] = round(more * 1e9 / (TURNS * UNROLLED * WARPS * BLOCKS), 1)
    return times


def repeated(machine: Machine, name: str) -> Callable[[int], None]:
    """Return what runs an instruction a number of times UNROLLED, in each warp of two blocks."""
    instruction, stride = INSTRUCTIONS[name]
    module = machine.module(KERNEL.format(body=instruction * UNROLLED, stride=stride))
    memory = machine.array(np.zeros(BLOCKS * WARPS * 32 * 9, np.float32))

    def run(turns: int) -> None:
        module.run("repeat", BLOCKS, 32 * WARPS, memory, np.uint32(turns))

    return run


def launches() -> dict[str, float]:
    """Return what a launch of an empty kernel takes, by itself and in a graph."""
    import cupy

    count = 100
    nothing = cupy.RawKernel(NOTHING, "nothing")
    stream = cupy.cuda.Stream(non_blocking=True)

    def launch(blocks: int) -> None:
        with stream:
            for _ in range(count):
                nothing((blocks,), (256,), ())

    with stream:
        nothing((1,), (256,), ())
        stream.begin_capture()
        launch(1)
        graph = stream.end_capture()
    times = {
        "of 1 block": lasting(lambda: launch(1)),
        "of 256 blocks": lasting(lambda: launch(256)),
        "of 1 block, in a graph": lasting(lambda: graph.launch(stream)),
    }
    return {name: round(seconds * 1e6 / count, 1) for name, seconds in times.items()}


def steps() -> dict[str, dict[str, float]]:
    """Return what a planned step of the speedrun takes, replayed from a CUDA graph."""
    found = {}
    for name, around in (("all checks", nullcontext), ("all checks and counters", device.counting)):
        taken: list[tuple[float, float]] = []

        def timed(step: Callable[[], None], around: Any = around, taken: Any = taken) -> None:
            wall, cpu = time.perf_counter(), time.process_time()
            with around():
                step()
            taken.append((time.perf_counter() - wall, time.process_time() - cpu))

        planned_steps("speedrun", 128, 6, timed)
        walls, cpus = zip(*taken[1:], strict=True)
        found[name] = {"wall": round(statistics.median(walls), 2)}
        found[name] |= {"cpu": round(statistics.median(cpus), 2)}
    return found


def builds() -> dict[str, float]:
    """Return what a build into an empty cache takes, and the size of what it makes."""
    with tempfile.TemporaryDirectory() as name:
        made = Path(name) / build.cache().relative_to(build.cache().parents[1])
        made.mkdir(parents=True)
        archive = f"cupy-{build.CUPY}.tar.gz"  # no download is timed
        shutil.copy(build.cache() / archive, made / archive)
        wall, cpu = time.perf_counter(), children()
        command = [sys.executable, "-m", "tests.gpu.build"]
        environment = {**os.environ, "XDG_CACHE_HOME": name}
        subprocess.run(command, check=True, cwd=REPOSITORY, env=environment, capture_output=True)
        wall, cpu = time.perf_counter() - wall, children() - cpu
        folders = list(made.glob("device-*"))
        size = sum(file.stat().st_size for file in folders[0].iterdir())
    return {"wall": round(wall, 1), "cpu": round(cpu, 1), "megabytes": round(size / 1e6, 1)}


def lasting(run: Callable[[], Any]) -> float:
    """Return the CPU time of a run."""
    run()
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def children() -> float:
    """Return the CPU time of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
