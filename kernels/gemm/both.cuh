// A launch of two products, of which neither needs the other's result: both.py.
//
// Its blocks are those of the first product, then those of the second. They have as many threads
// and the same shared memory, but each product has a tile of its own.
#pragma once

#include "gemm/gemm.cuh"

// Which products the launch has: 1 for the first, 2 for the second, 3 for both. The other one is
// not compiled.
#ifndef LAUNCHED
#define LAUNCHED 3
#endif

// Calls first(block) or second(block), whichever product this block is of.
template <class First, class Second>
__device__ __forceinline__ void either(const Blocks &of_first, const First &first,
                                       const Blocks &of_second, const Second &second) {
    const int before = of_first.count(), number = blockIdx.x;
    if constexpr (LAUNCHED != 2)
        if (LAUNCHED == 1 || number < before) return first(of_first.at<FirstTile>(number, 0));
    if constexpr (LAUNCHED != 1) second(of_second.at<SecondTile>(number - before, before));
}
