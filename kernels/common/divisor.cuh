// Division of many numbers by the same one.
#pragma once

#include "dialect/dialect.cuh"

// A number from 1 on; dividends are below 2^31.
#ifdef __CUDACC__
// A division takes twenty instructions, which the compiler repeats each time; here it is the
// multiplication by an inverse, which gives the quotient or one less.
struct Divisor {
    uint32 number, inverse;

    __device__ explicit Divisor(int number) : number(number), inverse(0xffffffff / number) {}
    // Returns the quotient, and sets the remainder.
    __device__ int divide(int n, int &remainder) const {
        const uint32 quotient = __umulhi(n, inverse), rest = n - quotient * number;
        const bool more = rest >= number;
        remainder = int(more ? rest - number : rest);
        return int(quotient + more);
    }
};
#else
struct Divisor {
    int number;

    explicit Divisor(int number) : number(number) {}
    int divide(int n, int &remainder) const {
        const int quotient = n / number;
        remainder = n - quotient * number;
        return quotient;
    }
};
#endif
