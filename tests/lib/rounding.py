"""How tensor cores round their operands: the oracle of mma.cuh, with NumPy's own types."""

import numpy as np

#: Half the distance between 1 and the next number: the largest relative error of a rounding.
EPSILON = {"fp32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-8, "fp16": 2.0**-11}


def rounded(values, precision):
    """Return float32 values rounded to the numbers that a precision multiplies, as float32."""
    values = np.asarray(values, np.float32)
    if precision == "fp32":
        return values
    if precision == "fp16":
        with np.errstate(over="ignore"):  # infinity is what is asked for
            return values.astype(np.float16).astype(np.float32)
    # A fraction of 7 or 10 bits: the number of its last place is whole.
    fraction, exponent = np.frexp(values.astype(np.float64))
    places = 2.0 ** {"bf16": 8, "tf32": 11}[precision]
    scaled = fraction * places
    # rint takes ties to even; tf32 takes them away from zero.
    whole = np.rint(scaled) if precision == "bf16" else np.trunc(scaled + np.copysign(0.5, scaled))
    return np.ldexp(whole / places, exponent).astype(np.float32)
