// The SIMD register that sums are taken in, LANES elements: on `cuda` one.
#pragma once

#include "dialect/dialect.cuh"

using lanes_t = Simd<acc_t>::type;
constexpr int LANES = Simd<acc_t>::LANES;
