// Loops over the elements of arrays of one shape, for runtime/elementwise.py:
//
//   for_elements(count, body, arrays...)           calls body(elements...) for each index; elements
//                                                  of arrays that are not const may be written
//   write_elements(count, of, result, arrays...)   writes of(elements...) to the result, which is
//                                                  not read
//
// bytes    every array once; what may be written is read, too
// geometry any grid. On cuda a thread takes 16 bytes of the largest type at a time, if all arrays
//          are aligned to their share
#pragma once

#include "dialect/dialect.cuh"

#ifdef __CUDACC__

// The elements of types E in 16 bytes of the largest one.
template <typename... E> constexpr int in_vector() {
    int largest = 1;
    ((largest = sizeof(E) > largest ? sizeof(E) : largest), ...);
    return 16 / largest;
}
template <typename E, int N>
__device__ inline void store_if_written(E *to, const Vector<E, N> &row) {
    *reinterpret_cast<Vector<E, N> *>(to) = row;
}
template <typename E, int N>
__device__ inline void store_if_written(const E *, const Vector<const E, N> &) {}

template <class Body, typename... E>
__device__ __forceinline__ void for_elements(int64 count, const Body &body, E *...arrays) {
    constexpr int V = in_vector<E...>();
    int64 done = 0;
    if ((Vector<E, V>::fits(arrays, V) && ...)) {
        done = count / V * V;
        GRID_STRIDE(i, count / V) {
            [&](Vector<E, V>... rows) {
                LANE_LOOP(v, V) body(rows.value[v]...);
                (store_if_written(arrays + i * V, rows), ...);
            }(reinterpret_cast<const Vector<E, V> *>(arrays)[i]...);
        }
    }
#pragma unroll 1
    GRID_STRIDE(i, count - done) body(arrays[done + i]...);
}
template <class Of, typename E, typename... In>
__device__ __forceinline__ void write_elements(int64 count, const Of &of, E *to,
                                               const In *...from) {
    constexpr int V = in_vector<E, In...>();
    int64 done = 0;
    if (Vector<E, V>::fits(to, V) && (Vector<const In, V>::fits(from, V) && ...)) {
        done = count / V * V;
        GRID_STRIDE(i, count / V) {
            [&](Vector<const In, V>... rows) {
                E row[V];
                LANE_LOOP(v, V) row[v] = of(rows.value[v]...);
                store_vector(to + i * V, row);
            }(reinterpret_cast<const Vector<const In, V> *>(from)[i]...);
        }
    }
#pragma unroll 1
    GRID_STRIDE(i, count - done) to[done + i] = of(from[done + i]...);
}

#else

template <class Body, typename... E>
static __forceinline__ void for_elements(int64 count, const Body &body, E *...arrays) {
    GRID_STRIDE(i, count) body(arrays[i]...);
}
// How many registers of E the elements of a register make, of that of Ins which has most.
template <typename E, typename... In> constexpr int registers_made() {
    int most = 1;
    ((most = sizeof(E) / sizeof(In) > unsigned(most) ? sizeof(E) / sizeof(In) : most), ...);
    return most;
}
template <class Of, typename E, typename... In>
static __forceinline__ void write_elements(int64 count, const Of &of, E *to, const In *...from) {
    constexpr int LANES = Simd<E>::LANES, STEP = registers_made<E, In...>() * LANES;
    const bool past = past_caches<E>(count / LANES, LANES);
    int64 i = count * blockIdx.x / gridDim.x;
    const int64 end = count * (blockIdx.x + int64(1)) / gridDim.x;
    for (; i < end && reinterpret_cast<uintptr_t>(to + i) % REGISTER_BYTES > 0; ++i)
        to[i] = of(from[i]...);
    for (; i + STEP <= end; i += STEP) {
        E values[STEP];
        _Pragma("omp simd") for (int l = 0; l < STEP; ++l) values[l] = of(from[i + l]...);
        UNROLL(int l = 0; l < STEP; l += LANES)
            write_first(to + i + l, load_lanes(values + l), LANES, past);
    }
    for (; i < end; ++i) to[i] = of(from[i]...);
}

#endif
