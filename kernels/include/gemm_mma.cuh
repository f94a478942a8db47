// The one GEMM on tensor cores: the loaders and epilogues of gemm.cuh, float arrays, operands
// rounded to PRECISION (tf32, bf16 or fp16) on their way to registers, sums in float32.
//
// A block keeps STAGES tiles of A and B in shared memory, as float: while its warps multiply one,
// the next come by asynchronous copies. A warp computes WARP_M x WARP_N outputs.
//
//   bytes    as in gemm.cuh
//   geometry grid as in gemm.cuh, THREADS threads: a warp for each WARP_M x WARP_N outputs
//   lanes    with g = lane / 4, t = lane % 4, a lane holds of each 32 x 8 outputs the rows 4g to
//            4g + 3, columns 2t and 2t + 1; it reads k from 4t to 4t + 3 of each 16
#pragma once

#include "async_copy.cuh"
#include "dialect.cuh"
#include "mma.cuh"

#ifndef WARP_M
#define WARP_M 32
#define WARP_N 32
#define STAGES 2
#endif

using precision_t = TYPE_PRECISION;

constexpr int WARPS_M = BM / WARP_M, WARPS_N = BN / WARP_N, THREADS = WARPS_M * WARPS_N * 32;
// Blocks that a multiprocessor must hold: 168 registers a thread. The tiles of three are also what
// the 100 KB of sm_86 and sm_89 take.
constexpr int BLOCKS = 384 / THREADS;
constexpr int TM = 4, TN = 2;  // rows and columns of the result that a lane has together
constexpr int SEGMENT = 4;     // floats in a copy of 16 bytes

static_assert(sizeof(T) == sizeof(float) && sizeof(acc_t) == sizeof(float), "float arrays");
static_assert(WARP_M % 32 == 0 && WARP_N % 8 == 0, "products must fill a warp's outputs");
static_assert(BM % WARP_M == 0 && BN % WARP_N == 0, "warps must fill the tile");
static_assert(STAGES >= 2, "a tile to multiply and one on its way");

// Puts what a loader copies into a tile, where it arrives later; `out` is aligned to 16 bytes.
struct AsyncCopies {
    float *out;

    // As Converted does; a segment at most in all.
    __device__ void run(const float *source, int begin, int end, int length) {
        const int valid = begin < end ? end : 0;
        if (length == SEGMENT && (begin == 0 || valid == 0) && (uint64)source % 16 == 0)
            copy_async<16>(out, source, valid * 4);
        else
#pragma unroll
            for (int i = 0; i < SEGMENT; ++i)
                if (i < length) copy_async<4>(out + i, source + i, begin <= i && i < end ? 4 : 0);
        out += length;
    }
};

struct alignas(16) Four { float value[4]; };

// One operand's tile: EXTENT outputs by BK steps of k, in lines as its loader's rows run.
//
// The segments of a line change places by the line's number, so that lanes that read or write 16
// bytes, eight at a time, meet all 32 banks, and so do lanes that read 4 bytes, 32 at a time.
template <Rows ROWS, int EXTENT> struct Tile {
    static constexpr bool BY_OUTPUT = ROWS == Rows::ALONG_OUTPUT;
    static constexpr int LINES = BY_OUTPUT ? EXTENT : BK, COLUMNS = BY_OUTPUT ? BK : EXTENT;
    static constexpr int SEGMENTS = COLUMNS / SEGMENT, SIZE = LINES * COLUMNS;
    // A thread copies one segment of so many lines, LINES_APART from each other.
    static constexpr int LINES_APART = THREADS / SEGMENTS, COPIES = LINES / LINES_APART;
    static_assert(COLUMNS % 32 == 0, "a line must hold every bank");
    static_assert(THREADS % SEGMENTS == 0 && LINES % LINES_APART == 0, "threads must share evenly");

    static __device__ constexpr int at(int line, int column) {
        const int moved = BY_OUTPUT ? ((line ^ line >> 2) & 1) * 4 : (line >> 2 & 3) * 2;
        return line * COLUMNS + (column / SEGMENT ^ moved) * SEGMENT + column % SEGMENT;
    }
    static __device__ constexpr int element(int output, int k) {
        return BY_OUTPUT ? at(output, k) : at(k, output);
    }

    // value[i][j] = element (output + i, k + j). 4 divides k and, where there are several, output:
    // lines of one parity, or along k all four, then have their segments in one order.
    template <int OUTPUTS>
    static __device__ void read(float (&value)[OUTPUTS][4], const float *tile, int output, int k) {
        static_assert(OUTPUTS == 1 || OUTPUTS == 4, "a float or a segment of them");
#pragma unroll
        for (int i = 0; i < (BY_OUTPUT ? OUTPUTS : 4); ++i) {
            const float *first = tile + (BY_OUTPUT ? element(output + i % 2, k) + (i & 2) * COLUMNS
                                                   : element(output, k) + i * COLUMNS);
            if constexpr (BY_OUTPUT || OUTPUTS == 4) {
                const Four four = *reinterpret_cast<const Four *>(first);
#pragma unroll
                for (int j = 0; j < 4; ++j) (BY_OUTPUT ? value[i][j] : value[j][i]) = four.value[j];
            } else {
                value[0][i] = *first;
            }
        }
    }

    // Whether lanes get what read() loads at once from different banks.
    static constexpr bool without_conflicts(int outputs) {
        const bool wide = BY_OUTPUT || outputs == 4;
        for (int i = 0; i < 4; ++i)
            for (int first = 0; first < 32; first += wide ? 8 : 32) {
                unsigned banks = 0;
                for (int lane = first; lane < first + (wide ? 8 : 32); ++lane) {
                    const int output = lane / 4 * outputs + (BY_OUTPUT ? i % outputs : 0);
                    const int bank = element(output, lane % 4 * 4 + (BY_OUTPUT ? 0 : i)) % 32;
                    banks |= (wide ? 15u : 1u) << bank;
                }
                if (banks != 0xffffffffu) return false;
            }
        return true;
    }
};

// What a thread copies of one operand, step after step: its loader's work for a line that runs
// along k is done once, and for those that run along the output, the column's.
template <Rows ROWS, int EXTENT, class Loader> struct Copier {
    using Tile = ::Tile<ROWS, EXTENT>;
    using Row = decltype(((Loader *)nullptr)->row(0));
    using Column = decltype(((Loader *)nullptr)->column(0));
    static constexpr bool BY_OUTPUT = Tile::BY_OUTPUT;
    static_assert(Tile::without_conflicts(4) && Tile::without_conflicts(1),
                  "lanes must not meet in a bank");

    const Loader &loader;
    const int first, limit;  // outputs
    const int line, column;  // of the thread's first segment in the tile
    Row rows[BY_OUTPUT ? Tile::COPIES : 1];
    Column columns;

    __device__ Copier(const Loader &loader, int first, int limit)
        : loader(loader), first(first), limit(limit), line(threadIdx.x / Tile::SEGMENTS),
          column(threadIdx.x % Tile::SEGMENTS * SEGMENT),
          columns(loader.column(BY_OUTPUT ? 0 : first + column)) {
        if constexpr (BY_OUTPUT)
#pragma unroll
            for (int i = 0; i < Tile::COPIES; ++i)
                rows[i] = loader.row(first + line + i * Tile::LINES_APART);
    }

    // Begins to copy k in [k0, k_end); zeros beyond it and beyond the limit.
    __device__ void begin(float *tile, int k0, int k_end) {
        const int lines = BY_OUTPUT ? limit - first : k_end - k0;
        const int reach = (BY_OUTPUT ? k_end - k0 : limit - first) - column;
        if constexpr (BY_OUTPUT) columns = loader.column(k0 + column);
#pragma unroll
        for (int i = 0; i < Tile::COPIES; ++i) {
            const int to = line + i * Tile::LINES_APART;
            float *out = tile + Tile::at(to, column);
            const int count = to < lines ? larger(smaller(reach, SEGMENT), 0) : 0;
            if constexpr (!BY_OUTPUT) rows[0] = loader.row(k0 + to);
            if (count > 0) loader.load(rows[BY_OUTPUT ? i : 0], columns, count, AsyncCopies{out});
#pragma unroll
            for (int j = 0; j < SEGMENT; ++j)
                if (j >= count) out[j] = 0;
        }
    }
};

using Sums = float[WARP_M / 16][WARP_N / 8][4];

// Adds the products of one step of k to a warp's outputs, of which (m, n) is the first.
template <class TileA, class TileB>
__device__ inline void multiply(Sums &sum, const float *tile_a, const float *tile_b, int m, int n) {
    using E = precision_t;
    constexpr int PRODUCTS = 16 / E::K;  // along k
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    // What a register holds of a lane's four floats along k, the first or the second one of a
    // product. Any order of k will do that is the same for a and b.
    const auto pair = [](const float (&value)[4], int product, int place) {
        const int first = (product * 2 + place) * E::PER;
        return rounded<E>(value[first], value[first + E::PER - 1]);
    };
#pragma unroll
    for (int k = 0; k < BK; k += 16) {
        uint32 b[WARP_N / 8][PRODUCTS][2];
#pragma unroll
        for (int j = 0; j < WARP_N / 8; ++j) {
            float value[1][4];
            TileB::template read<1>(value, tile_b, n + j * 8 + g, k + t * 4);
#pragma unroll
            for (int p = 0; p < PRODUCTS; ++p)
#pragma unroll
                for (int r = 0; r < 2; ++r) b[j][p][r] = pair(value[0], p, r);
        }
#pragma unroll
        for (int i = 0; i < WARP_M / 16; i += 2) {
            float value[4][4];
            TileA::template read<4>(value, tile_a, m + i * 16 + g * 4, k + t * 4);
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int p = 0; p < PRODUCTS; ++p) {
                    uint32 a[4];
#pragma unroll
                    for (int r = 0; r < 4; ++r) a[r] = pair(value[half * 2 + r % 2], p, r / 2);
#pragma unroll
                    for (int j = 0; j < WARP_N / 8; ++j) mma<E>(sum[i + half][j], a, b[j][p]);
                }
        }
    }
}

// Tile (blockIdx.x, blockIdx.y) of the M x N product over k in [k_begin, k_end).
template <Rows A_ROWS, Rows B_ROWS, class A, class B, class Epilogue>
__device__ Block gemm(const A &a, const B &b, int M, int N, int k_begin, int k_end,
                      const Epilogue &epilogue) {
    using TileA = Tile<A_ROWS, BM>;
    using TileB = Tile<B_ROWS, BN>;
    alignas(16) __shared__ float tiles_a[STAGES][TileA::SIZE], tiles_b[STAGES][TileB::SIZE];

    const int m0 = blockIdx.x * BM, n0 = blockIdx.y * BN, warp = threadIdx.x / 32;
    const int warp_m = warp % WARPS_M * WARP_M, warp_n = warp / WARPS_M * WARP_N;
    Copier<A_ROWS, BM, A> copier_a(a, m0, M);
    Copier<B_ROWS, BN, B> copier_b(b, n0, N);
    Sums sum = {};
    const int steps = ceil_div(k_end - k_begin, BK);
    // Step `coming` is on its way while `step` is multiplied; the first have nothing to multiply.
    for (int coming = 0, step = 1 - STAGES; step < steps; ++coming, ++step) {
        if (step >= 0) {
            wait_copies<STAGES - 2>();
            __syncthreads();  // this step's tiles are whole, the last step's may be overwritten
        }
        const int k0 = k_begin + coming * BK;
        if (k0 < k_end) {
            copier_a.begin(tiles_a[coming % STAGES], k0, k_end);
            copier_b.begin(tiles_b[coming % STAGES], k0, k_end);
        }
        commit_copies();  // a group for every step, be it empty: to count groups is to count steps
        if (step >= 0 && m0 + warp_m < M && n0 + warp_n < N)
            multiply<TileA, TileB>(sum, tiles_a[step % STAGES], tiles_b[step % STAGES], warp_m,
                                   warp_n);
    }

    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < WARP_M / 32; ++i)
#pragma unroll
        for (int j = 0; j < WARP_N / 8; ++j) {
            const int m = m0 + warp_m + i * 32 + g * 4, n = n0 + warp_n + j * 8 + t * 2;
            if (m >= M || n >= N) continue;
            acc_t tile[TM][TN];
#pragma unroll
            for (int r = 0; r < TM; ++r)
#pragma unroll
                for (int c = 0; c < TN; ++c) tile[r][c] = sum[i * 2 + r / 2][j][r % 2 * 2 + c];
            epilogue.store(m, n, tile, smaller(TM, M - m), smaller(TN, N - n));
        }
    return {m0, smaller(m0 + BM, M), n0, smaller(n0 + BN, N)};
}
