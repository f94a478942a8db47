// lanes_t: the SIMD register of sums, LANES elements of acc_t; on `cuda` one element. index_t: as
// many whole numbers.
#pragma once

#include "dialect/dialect.cuh"

using lanes_t = Simd<acc_t>::type;
using index_t = Simd<acc_t>::index;
constexpr int LANES = Simd<acc_t>::LANES;
