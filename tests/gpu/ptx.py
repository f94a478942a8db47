"""PTX made of CUDA text by NVRTC, without a GPU, as CuPy has it made."""

from __future__ import annotations

import functools

from cuda.bindings import nvrtc
from cuda.pathfinder import find_nvidia_header_directory


@functools.cache
def compiled(text: str, name: str, arch: str = "sm_90") -> str:
    """Return the PTX of a CUDA text, with the lines of its source.

    Parameters
    ----------
    text : str
        The CUDA C++ text.
    name : str
        What messages call it.
    arch : str
        The architecture, such as "sm_90".

    Raises
    ------
    RuntimeError
        With what the compiler said, where it does not take the text.
    """
    options = [
        f"--gpu-architecture=compute_{arch[3:]}",
        "--std=c++17",
        "--ftz=true",  # CuPy always adds it
        "--device-as-default-execution-space",
        "--generate-line-info",
        f"--include-path={find_nvidia_header_directory('cudart')}",
    ]
    program = _call(nvrtc.nvrtcCreateProgram, text.encode(), name.encode(), 0, [], [])
    try:
        bytes_of_options = [option.encode() for option in options]
        (error,) = nvrtc.nvrtcCompileProgram(program, len(options), bytes_of_options)
        if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            size = _call(nvrtc.nvrtcGetProgramLogSize, program)
            log = bytearray(size)
            _call(nvrtc.nvrtcGetProgramLog, program, log)
            raise RuntimeError(f"NVRTC failed on {name}:\n{log.decode()}")
        code = bytearray(_call(nvrtc.nvrtcGetPTXSize, program))
        _call(nvrtc.nvrtcGetPTX, program, code)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return code.rstrip(b"\0").decode()


def _call(function, *arguments):
    error, *results = function(*arguments)
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"{function.__name__} failed: {error.name}")
    return results[0] if results else None
