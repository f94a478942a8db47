// What the machine can do: multiply-adds on registers alone, and copying memory.
//
//   fma_peak    every thread turns `turns` times over CHAINS independent multiply-adds of LANES
//               elements: more chains than a core needs to hide the latency of one (4 cycles of 2
//               a cycle), and few enough for the 16 registers of AVX2. It reports how many
//               operations it did, two for a multiply-add.
//   copy        y = x, by streaming stores: 2 * n * sizeof(T) bytes
#include "common/elements.cuh"

using lanes_t = Simd<T>::type;
constexpr int LANES = Simd<T>::LANES, CHAINS = 12;

KERNEL fma_peak(T *__restrict__ y, int64 *__restrict__ operations, int turns, T factor) {
    const int thread = blockIdx.x * blockDim.x + threadIdx.x;
    T *own = y + (int64)thread * CHAINS * LANES;
    lanes_t sum[CHAINS];  // of values that only memory knows: equal chains would become one
    for (int i = 0; i < CHAINS; ++i) sum[i] = load_lanes(own + i * LANES);
    for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
        for (int i = 0; i < CHAINS; ++i) sum[i] = sum[i] * factor + factor;
    }
    // Stored, or the compiler would leave it all out.
    for (int i = 0; i < CHAINS; ++i) store_lanes(own + i * LANES, sum[i]);
    operations[thread] = 2LL * CHAINS * LANES * turns;
}

KERNEL copy(const T *__restrict__ x, T *__restrict__ y, int64 n) {
    write_elements(n, [=](T value) { return value; }, y, x);
}
