// lanes_t: the SIMD register of sums, LANES elements of acc_t; on `cuda` one element.
#pragma once

#include "dialect/dialect.cuh"

using lanes_t = Simd<acc_t>::type;
constexpr int LANES = Simd<acc_t>::LANES;
