// What a lane multiplies on tensor cores, from shared memory to the registers of mma().
//
// mma() takes A from four neighbouring registers, of two rows at two places along k, and B from
// two. The order of k does not matter if it is the same for both. How a tile is read
// (gemm_stages.cuh):
//
//   16 bits, k-major            ldmatrix, whose rows may be any outputs: here they are four apart
//   16 bits, lines of outputs   two lines' neighbours, put together in pairs along k; MATRICES by a
//                               ldmatrix that transposes
//   float                       four outputs by four k, rounded
//
// With g = lane / 4, t = lane % 4: of each 32 outputs a lane has four from 4g on (of MATRICES every
// eighth from g on); of each step of k, in 16 bits, the pairs from 2t, 8 + 2t and so on, of floats
// the t-th quarter.
#pragma once

#include "dialect/mma.cuh"

using precision_t = TYPE_PRECISION;

// A lane's registers for four outputs and the products of a step: of A for two of 16 rows, of B for
// four of 8 columns. at(i, p, r) is that of output i, product p along k, and half r of its k.
template <Operand OF, int PRODUCTS> struct Registers {
    uint32 words[2][PRODUCTS][4];

    __device__ uint32 &at(int i, int p, int r) { return words[i / 2][p][r * 2 + i % 2]; }
};
template <int PRODUCTS> struct Registers<Operand::B, PRODUCTS> {
    uint32 words[4][PRODUCTS][2];

    __device__ uint32 &at(int i, int p, int r) { return words[i][p][r]; }
};

// Where a lane reads COUNT times 32 outputs of a warp, and of each stage the SLICE of k from `k`
// on: in the first stage. Outputs of a k-major tile lie a constant apart; in lines of outputs an
// XOR permutes them, so each has a place of its own.
template <Operand OF, class Tile, int COUNT, int SLICE> struct Reader {
    static constexpr bool NARROW = sizeof(T) == 2;
    static constexpr int TIMES = COUNT, PLACES = Tile::K_MAJOR ? 1 : COUNT;
    // The k of a step: 16 bytes for each of four lanes, or all of a smaller slice.
    static constexpr int DEPTH = SLICE, STEP = SLICE < 4 * UNIT ? SLICE : 4 * UNIT;
    static constexpr int PRODUCTS = STEP / precision_t::K, ACROSS = STEP / 8;  // 8 x 8 along k
    static_assert(BK % SLICE == 0 && SLICE % STEP == 0, "whole steps");
    static_assert(STEP == 4 * UNIT || (NARROW && PRODUCTS == 1), "small slices are of 16 bits");
    int start[PLACES];

    __device__ Reader(int first, int k, int lane) {
        const int g = lane / 4, t = lane % 4;
        UNROLL(int i = 0; i < PLACES; ++i) {
            const int output = first + i * 32;
            if constexpr (NARROW && Tile::K_MAJOR) {
                const int row = lane % 8, matrix = lane / 8;
                const int line = Tile::line(output) + row;
                start[i] = OF == Operand::A
                               ? Tile::at(line + matrix % 2 * 8, k + matrix / 2 * UNIT)
                               : Tile::at(line + matrix / ACROSS * 8, k + matrix % ACROSS * UNIT);
            } else if constexpr (Tile::MATRICES) {
                const int line = k + lane % 8 + lane / 16 * 8;
                start[i] = Tile::at(line, output + lane / 8 % 2 * UNIT);
            } else
                start[i] = Tile::start(output + g * 4, k + t * (NARROW ? 2 : UNIT));
            start[i] = in_register(start[i]);
        }
    }

    // Reads the i-th 32 outputs for the step that begins `k` after the first one.
    __device__ __forceinline__ void read(Registers<OF, PRODUCTS> &to, const T *tiles, int stage,
                                         int i, int k) const {
        const T *const stages = tiles + stage * Tile::SIZE;
        if constexpr (!NARROW) {
            using E = precision_t;
            float value[4][4];
            const int apart = Tile::K_MAJOR ? i * 32 : 0;
            Tile::read(value, tiles, start[i % PLACES] + stage * Tile::SIZE, k, apart);
            UNROLL(int o = 0; o < 4; ++o)
                UNROLL(int p = 0; p < PRODUCTS; ++p)
                    UNROLL(int r = 0; r < 2; ++r) {
                        const int first = (p * 2 + r) * E::PER;
                        to.at(o, p, r) = rounded<E>(value[o][first], value[o][first + E::PER - 1]);
                    }
        } else if constexpr (Tile::K_MAJOR && OF == Operand::A) {
            // Of outputs 4g + 2 half and 4g + 2 half + 1, the first and the second 8 of 16 k.
            UNROLL(int half = 0; half < 2; ++half)
                UNROLL(int p = 0; p < PRODUCTS; ++p)
                    load_matrices(to.words[half][p], stages + (start[0] ^ (k + p * 16)) +
                                                         (i * 32 + half * 16) * Tile::COLUMNS);
        } else if constexpr (Tile::K_MAJOR) {
            // Of outputs 4g + o, all 8 k of 32; or of these and the next ones, of 16.
            UNROLL(int o = 0; o < 4; o += 4 / ACROSS)
                load_matrices(reinterpret_cast<uint32(&)[4]>(to.words[o]),
                              stages + (start[0] ^ k) + (i * 32 + o * 8) * Tile::COLUMNS);
        } else if constexpr (Tile::MATRICES) {
            // Of outputs 16 half + g and 16 half + 8 + g, the first and the second 8 of 16 k.
            UNROLL(int half = 0; half < 2; ++half)
                UNROLL(int p = 0; p < PRODUCTS; ++p)
                    load_transposed(to.words[half][p],
                                    stages + (start[i] ^ half * 16) + (k + p * 16) * Tile::COLUMNS);
        } else {  // two lines give the pairs along k
            UNROLL(int pair = 0; pair < 2 * PRODUCTS; ++pair) {
                uint32 low[2], high[2];
                const T *const first = stages + Tile::further(start[i], k + pair * 8);
                const T *const second = stages + Tile::further(start[i], k + pair * 8 + 1);
                load_vector<2>(low, reinterpret_cast<const uint32 *>(first));
                load_vector<2>(high, reinterpret_cast<const uint32 *>(second));
                UNROLL(int o = 0; o < 4; ++o)
                    to.at(o, pair / 2, pair % 2) =
                        __byte_perm(low[o / 2], high[o / 2], o % 2 ? 0x7632 : 0x5410);
            }
        }
    }
};
