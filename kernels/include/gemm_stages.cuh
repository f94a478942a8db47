// The operands of the GEMM on their way to the threads of a block, and the threads' share of the
// outputs: what gemm_fma.cuh and gemm_mma.cuh have in common.
//
// Tiles of A and B lie in shared memory in the arrays' own type, STAGES of each: while one is
// multiplied, the next come by asynchronous copies. A loader's part, whose rows run along the
// outputs or along k:
//
//   Row row(int)             what the elements of a row have in common
//   Segment segment(int)     what those of the columns of one copy have in common
//   advance(row, n)          moves a row, or a segment, n further along k
//   at(row, segment, from)   whether these elements of a row are in memory, and where; otherwise
//                            they are zeros
#pragma once

#include "async_copy.cuh"

#ifndef WARP_M
#define WARP_M 32
#define WARP_N 32
#define LANES_N 4
#define STAGES 2
#endif

constexpr int TM = 4, TN = 4;  // of a micro-tile
constexpr int WARPS_M = BM / WARP_M, WARPS_N = BN / WARP_N, THREADS = WARPS_M * WARPS_N * 32;
static_assert(BM % WARP_M == 0 && BN % WARP_N == 0, "warps must fill the tile");
static_assert(STAGES >= 2, "a tile to multiply and one on its way");

constexpr int UNIT = 16 / sizeof(T);  // elements in a segment of 16 bytes, as banks serve them

// Warps that a multiprocessor must hold: 12, with 168 registers a thread, or 8 where sums and the
// rows of copies take more than the rest leaves.
constexpr int SUMS = BM * BN / THREADS * int(sizeof(acc_t) / 4);
constexpr int ROWS_OF_COPIES = 4 * (BM * BK / UNIT / THREADS);
constexpr int WARPS = SUMS + ROWS_OF_COPIES > 48 ? 8 : 12;
constexpr int BLOCKS = WARPS * 32 > THREADS ? WARPS * 32 / THREADS : 1;

// Elements of A and of B in a copy: a UNIT, where every row begins at a multiple of 16 bytes and no
// copy would cross the end of a row or tap; else one.
#ifndef VECTOR_A
#define VECTOR_A 1
#define VECTOR_B 1
#endif

// One operand's tile, EXTENT outputs by BK steps of k: lines of outputs, one for each k; or lines
// of k, one for each output, where copies of many elements run along k.
//
// Eight lanes that read 16 bytes each are served together if they meet all 32 banks. gemm_fma.cuh
// reads eight outputs four apart, gemm_mma.cuh two of them at four places along k. So among lines
// of k such outputs are neighbours; and the segments of a line change places by its number.
template <Rows ROWS, int EXTENT, int VECTOR> struct Tile {
    static constexpr bool BY_OUTPUT = ROWS == Rows::ALONG_OUTPUT && VECTOR > 1;
    static constexpr int LINES = BY_OUTPUT ? (EXTENT + 31) / 32 * 32 : BK;
    static constexpr int COLUMNS = BY_OUTPUT ? BK : EXTENT;
    static constexpr int SEGMENTS = COLUMNS / UNIT, SIZE = LINES * COLUMNS;
    static_assert(VECTOR == 1 || VECTOR == UNIT, "copies of an element or of 16 bytes");
    static_assert(COLUMNS % UNIT == 0 && EXTENT % 4 == 0, "whole segments");
    static_assert(!BY_OUTPUT || (SEGMENTS & (SEGMENTS - 1)) == 0,
                  "segments change places in pairs");

    // The line of an output, and the output of a line: among 32, those of one remainder by four
    // together.
    static __device__ constexpr int line(int output) {
        return (output & ~31) | (output & 3) << 3 | (output >> 2 & 7);
    }
    static __device__ constexpr int output(int line) {
        return (line & ~31) | (line & 7) << 2 | (line >> 3 & 3);
    }
    static __device__ constexpr int moved(int line) {
        if (!BY_OUTPUT && sizeof(T) == 8) return 0;
        if (!BY_OUTPUT)
            return line / UNIT * 2 % (SEGMENTS % 8 == 0 ? 8 : SEGMENTS % 4 == 0 ? 4 : 1);
        return SEGMENTS < 8 ? line / (8 / SEGMENTS) % SEGMENTS : (line & 1) * 4 + (line >> 1 & 3);
    }
    static __device__ constexpr int at(int line, int column) {
        return line * COLUMNS + (column / UNIT ^ moved(line)) * UNIT + column % UNIT;
    }

    // What read() begins with for outputs from one on, which 4 divides, and k from one on.
    static __device__ constexpr int start(int output, int k = 0) {
        return BY_OUTPUT ? at(line(output), k) : at(k, output);
    }
    // value[i][j] = element (output + apart + i, k0 + k + j) where start = start(output, k0), plus
    // SIZE for each stage before this. DEPTH divides k and UNIT, 32 divides `apart`, and 16 divides
    // k unless k0 is 0.
    template <int DEPTH>
    static __device__ void read(acc_t (&value)[4][DEPTH], const T *stages, int start, int k,
                                int apart = 0) {
        if constexpr (BY_OUTPUT) {
            const T *first = stages + (start ^ k / UNIT * UNIT) + k % UNIT + apart * COLUMNS;
            UNROLL for (int i = 0; i < 4; ++i)
                load_vector<DEPTH>(value[i], first + i * 8 * COLUMNS);
        } else {
            UNROLL for (int j = 0; j < DEPTH; ++j) {
                acc_t outputs[4];
                const int line = (k + j) * COLUMNS;
                const int to = moved(k + j) * UNIT;  // of 16 bits it can be as large as `apart`
                const int place = UNIT > 4 ? start ^ to ^ apart : (start ^ to) + apart;
                load_vector<4>(outputs, stages + place + line);
                UNROLL for (int i = 0; i < 4; ++i) value[i][j] = outputs[i];
            }
        }
    }
};

// What a thread copies of one operand, step after step: of outputs from the tile's first one up to
// a limit, and of k up to k_end; zeros beyond. Each thread copies from the same columns of so many
// lines, LINES_APART from each other.
template <class Tile, int VECTOR> struct Lines {
    static constexpr int ACROSS = Tile::COLUMNS / VECTOR;  // copies that a line takes
    static constexpr int REPEATS = ACROSS <= THREADS ? 1 : ACROSS / THREADS;  // in a line
    static constexpr int LINES_APART = REPEATS > 1 ? 1 : THREADS / ACROSS;
    static constexpr int COPIES = (Tile::LINES + LINES_APART - 1) / LINES_APART;
    static_assert(REPEATS == 1 || ACROSS % THREADS == 0, "threads must share evenly");

    // The thread's first line, none for threads too many, and first column.
    static __device__ int line() {
        const int line = REPEATS > 1 ? 0 : threadIdx.x / ACROSS;
        return line < LINES_APART ? line : Tile::LINES;
    }
    static __device__ int column() { return threadIdx.x % ACROSS * VECTOR; }
    static __device__ bool has(int line) {
        return (LINES_APART <= Tile::LINES && Tile::LINES % LINES_APART == 0 &&
                THREADS % ACROSS == 0) ||
               line < Tile::LINES;
    }
};

// A place in a tile, then in the next stage's; after the last one's, in the first one's again.
// Threads keep such places, for to make them anew takes a dozen instructions.
template <int SIZE> __device__ inline void next_stage(int &place, int stage) {
    place += stage + 1 == STAGES ? -(STAGES - 1) * SIZE : SIZE;
}

template <Rows ROWS, int EXTENT, int VECTOR, class Loader,
          bool BY_OUTPUT = ::Tile<ROWS, EXTENT, VECTOR>::BY_OUTPUT>
struct Copier;

// Lines of k: each of a thread's copies has a row of its own, all the same columns.
template <Rows ROWS, int EXTENT, int VECTOR, class Loader>
struct Copier<ROWS, EXTENT, VECTOR, Loader, true> {
    using Tile = ::Tile<ROWS, EXTENT, VECTOR>;
    using Lines = ::Lines<Tile, VECTOR>;

    static_assert((Lines::LINES_APART & (Lines::LINES_APART - 1)) == 0,
                  "a line is its first copy's, or others of its bits");

    const Loader &loader;
    const int limit;  // of outputs, from the thread's first one on
    int to;           // where the first copy goes
    int k;
    decltype(((Loader *)nullptr)->row(0)) rows[Lines::COPIES];
    decltype(((Loader *)nullptr)->segment(0)) segment;

    __device__ Copier(const Loader &loader, int first, int end, int k_begin)
        : loader(loader), limit(end - first - Tile::output(Lines::line())),
          to(Tile::at(Lines::line(), Lines::column())), k(k_begin + Lines::column()),
          segment(loader.segment(k)) {
        UNROLL for (int i = 0; i < Lines::COPIES; ++i) rows[i] =
            loader.row(smaller(end - limit + output(i), end - 1));
    }

    // The output of copy i, from the first one's on.
    static __device__ constexpr int output(int i) { return Tile::output(i * Lines::LINES_APART); }

    __device__ void begin(T *tiles, int stage, int k_end) {
        UNROLL for (int i = 0; i < Lines::COPIES; ++i) {
            if (!Lines::has(Lines::line() + i * Lines::LINES_APART)) break;
            const T *from;
            const bool inside = loader.at(rows[i], segment, from);
            const int apart = i * Lines::LINES_APART;
            copy_elements<VECTOR>(tiles + (to ^ Tile::moved(apart) * UNIT) + apart * Tile::COLUMNS,
                                  from, inside && output(i) < limit && k < k_end);
        }
        loader.advance(segment, BK);
        next_stage<Tile::SIZE>(to, stage);
        k += BK;
    }
};

// What a loader's elements have in common along the outputs, and along k.
template <Rows ROWS, class Loader> struct Axes {
    static __device__ auto output(const Loader &loader, int i) {
        if constexpr (ROWS == Rows::ALONG_OUTPUT)
            return loader.row(i);
        else
            return loader.segment(i);
    }
    static __device__ auto depth(const Loader &loader, int k) {
        if constexpr (ROWS == Rows::ALONG_OUTPUT)
            return loader.segment(k);
        else
            return loader.row(k);
    }
    template <class Output, class Depth>
    static __device__ bool at(const Loader &loader, const Output &output, const Depth &depth,
                              const T *&from) {
        if constexpr (ROWS == Rows::ALONG_OUTPUT)
            return loader.at(output, depth, from);
        else
            return loader.at(depth, output, from);
    }
};

// Lines of outputs: a thread goes along k, with the same outputs.
template <Rows ROWS, int EXTENT, int VECTOR, class Loader>
struct Copier<ROWS, EXTENT, VECTOR, Loader, false> {
    using Tile = ::Tile<ROWS, EXTENT, VECTOR>;
    using Lines = ::Lines<Tile, VECTOR>;
    using Axes = ::Axes<ROWS, Loader>;

    const Loader &loader;
    const int limit;
    int to;  // where the first copy goes
    int k;
    decltype(Axes::output(*(Loader *)nullptr, 0)) outputs[Lines::REPEATS];
    decltype(Axes::depth(*(Loader *)nullptr, 0)) depth;

    __device__ Copier(const Loader &loader, int first, int end, int k_begin)
        : loader(loader), limit(end - first), to(Lines::line() * Tile::COLUMNS),
          k(k_begin + Lines::line()), depth(Axes::depth(loader, k)) {
        UNROLL for (int i = 0; i < Lines::REPEATS; ++i) {
            const int output = Lines::column() + i * THREADS;
            outputs[i] = Axes::output(loader, first + smaller(output, limit - VECTOR));
        }
    }

    __device__ void begin(T *tiles, int stage, int k_end) {
        UNROLL for (int j = 0; j < Lines::COPIES; ++j) {
            const int apart = j * Lines::LINES_APART, line = Lines::line() + apart;
            UNROLL for (int i = 0; i < Lines::REPEATS; ++i) {
                if (!Lines::has(line)) break;
                const int output = Lines::column() + i * THREADS;
                const T *from;
                const bool inside = Axes::at(loader, outputs[i], depth, from);
                const int place = output ^ Tile::moved(line) * UNIT;
                copy_elements<VECTOR>(tiles + to + apart * Tile::COLUMNS + place, from,
                                      inside && output < limit && k + apart < k_end);
            }
            constexpr int AWAY = (Lines::COPIES - 1) * Lines::LINES_APART;
            loader.advance(depth, j + 1 < Lines::COPIES ? Lines::LINES_APART : BK - AWAY);
        }
        next_stage<Tile::SIZE>(to, stage);
        k += BK;
    }
};

// Calls multiply(tiles of A, tiles of B, stage) for one BK of k after another, in order, up to
// k_end.
template <class TileA, class TileB, class CopierA, class CopierB, class Multiply>
__device__ __forceinline__ void in_stages(CopierA a, CopierB b, int k_begin, int k_end,
                                          const Multiply &multiply) {
    alignas(16) __shared__ T tiles_a[STAGES * TileA::SIZE];
    alignas(16) __shared__ T tiles_b[STAGES * TileB::SIZE];
    const int steps = ceil_div(k_end - k_begin, BK);
    int filled = 0, read = 0;  // stages, taken in turn
    // A step's copies begin STAGES - 1 steps ahead; the first steps have nothing to multiply.
    for (int step = 1 - STAGES; step < steps; ++step) {
        if (step >= 0) {
            wait_copies<STAGES - 2>();
            __syncthreads();  // this step's tiles are whole, the last step's may be overwritten
        }
        if (step + STAGES - 1 < steps) {
            a.begin(tiles_a, filled, k_end);
            b.begin(tiles_b, filled, k_end);
            filled = filled + 1 == STAGES ? 0 : filled + 1;
        }
        commit_copies();  // a group for every step, be it empty: to count groups is to count steps
        if (step < 0) continue;
        multiply(tiles_a, tiles_b, read);
        read = read + 1 == STAGES ? 0 : read + 1;
    }
}

// The same for a block's outputs from (m0, n0) on, of an M x N product.
template <Rows A_ROWS, Rows B_ROWS, class A, class B, class Multiply>
__device__ __forceinline__ void in_stages(const A &a, const B &b, int m0, int M, int n0, int N,
                                          int k_begin, int k_end, const Multiply &multiply) {
    using TileA = Tile<A_ROWS, BM, VECTOR_A>;
    using TileB = Tile<B_ROWS, BN, VECTOR_B>;
    in_stages<TileA, TileB>(Copier<A_ROWS, BM, VECTOR_A, A>(a, m0, M, k_begin),
                            Copier<B_ROWS, BN, VECTOR_B, B>(b, n0, N, k_begin), k_begin, k_end,
                            multiply);
}
