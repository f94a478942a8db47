"""The error of everything that is not an argument's fault: compiler, cache, device."""


class KernelError(RuntimeError):
    """A kernel could not be compiled, cached, loaded or launched; the message is one sentence."""
