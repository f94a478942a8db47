// An operand with one more output, all ones. Its products are sums over k of the other operand: so
// the product for the gradients of weights also gives those of biases.
#pragma once

// The bits of T(1): the runtime defines them, editors see float's.
#ifndef ONE
#define ONE 0x3f800000
#endif
alignas(16) __device__ const uint64 one_and_zeros[2] = {ONE, 0};

template <class Loader> struct WithOnes {
    Loader loader;
    int outputs;  // without the ones; a multiple of the elements of a copy

    struct Segment {
        decltype(((Loader *)nullptr)->segment(0)) segment;
        bool ones;
    };
    __device__ auto row(int r) const { return loader.row(r); }
    __device__ Segment segment(int c) const { return {loader.segment(c), c >= outputs}; }
    template <class Row> __device__ void advance(Row &row, int n) const { loader.advance(row, n); }
    template <class Row>
    __device__ bool at(const Row &row, const Segment &segment, const T *&from) const {
        const bool inside = loader.at(row, segment.segment, from);
        if (segment.ones) from = reinterpret_cast<const T *>(one_and_zeros);
        return inside || segment.ones;
    }
};
template <class Loader> __device__ WithOnes<Loader> with_ones(const Loader &loader, int outputs) {
    return {loader, outputs};
}
