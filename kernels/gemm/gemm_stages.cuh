// The pipeline through shared memory that gemm_fma.cuh and gemm_mma.cuh share.
//
// Shared memory holds a tile of A and of B for each stage, in the arrays' own type: while one stage
// is multiplied, the next ones are filled by asynchronous copies. A loader (gemm.cuh), whose rows
// run along the outputs or along k, provides:
//
//   Row row(int r)           the state of row r
//   Segment segment(int c)   the state of the PER_COPY columns from c on
//   Step step(int n)         what moves a row n steps along k
//   advance(row, step)       does so
//   advance(segment, n)      moves a segment n steps along k
//   at(row, segment, inside, from)
//                            sets `from` to the address of these elements; false if they are zeros
//                            of the padding, or `inside` is
#pragma once

#include "dialect/async_copy.cuh"

// The constants of the tile that are not in gemm.cuh: those of a warp, and the elements of A and of
// B in a copy: UNIT if every row is aligned to 16 bytes and no copy would cross the end of a row or
// tap (gemm.in_vectors), else one.
#ifndef WARP_M
#define WARP_M 32
#define WARP_N 32
#define LANES_N 4
#define SLICES 1
#define STAGES 2
#define VECTOR_A 1
#define VECTOR_B 1
#endif

// Of a micro-tile: in 16 bits, where a lane of tensor cores has eight neighbouring columns, all of
// them, which are 16 bytes.
#ifdef TYPE_PRECISION
constexpr int TM = 4, TN = sizeof(T) == 2 ? 8 : 4;
#else
constexpr int TM = 4, TN = 4;
#endif
constexpr int UNIT = 16 / sizeof(T);  // elements in 16 bytes, the widest access

// The tile of a block: M x N outputs, those of a warp, and what the constants above say.
template <int M, int N, int OF_WARP_M, int OF_WARP_N, int COUNT, int ALONG_N, int OF_K, int COPY_A,
          int COPY_B>
struct BlockTile {
    static constexpr int HEIGHT = M, WIDTH = N, WARP_HEIGHT = OF_WARP_M, WARP_WIDTH = OF_WARP_N;
    static constexpr int WARPS_HIGH = M / OF_WARP_M, WARPS_WIDE = N / OF_WARP_N, SLICED = OF_K;
    static constexpr int IN_TURN = COUNT, LANES_WIDE = ALONG_N, PER_A = COPY_A, PER_B = COPY_B;
    static constexpr int THREADS = WARPS_HIGH * WARPS_WIDE * SLICED * 32;
    static_assert(M % OF_WARP_M == 0 && N % OF_WARP_N == 0, "warps must fill the tile");
    static_assert(COUNT >= 2, "a tile to multiply and one on its way");

    // Warps that a multiprocessor must hold: 12, with up to 168 registers per thread, or 8 if sums
    // and the rows of copies need more.
    static constexpr int SUMS = OF_WARP_M * OF_WARP_N / 32 * int(sizeof(acc_t) / 4);
    static constexpr int ROWS_OF_COPIES = 4 * (M * BK / UNIT / THREADS);
    static constexpr int WARPS = SUMS + ROWS_OF_COPIES >= 48 ? 8 : 12;
    static constexpr int BLOCKS = WARPS * 32 > THREADS ? WARPS * 32 / THREADS : 1;

    // Elements of all stages of both operands, which may have whole groups of 32 lines (Tile).
    static constexpr int STAGED = COUNT * ((M + 31) / 32 + (N + 31) / 32) * 32 * BK;
};
using FirstTile = BlockTile<BM, BN, WARP_M, WARP_N, STAGES, LANES_N, SLICES, VECTOR_A, VECTOR_B>;
// A launch may have blocks of a second product, which has another tile but as many threads.
#ifdef SECOND_BM
using SecondTile = BlockTile<SECOND_BM, SECOND_BN, SECOND_WARP_M, SECOND_WARP_N, SECOND_STAGES,
                             SECOND_LANES_N, SECOND_SLICES, SECOND_VECTOR_A, SECOND_VECTOR_B>;
#else
using SecondTile = FirstTile;
#endif
constexpr int THREADS = FirstTile::THREADS;
constexpr int BLOCKS =
    SecondTile::BLOCKS < FirstTile::BLOCKS ? SecondTile::BLOCKS : FirstTile::BLOCKS;
static_assert(SecondTile::THREADS == THREADS, "threads of the launch's blocks");

// Shared memory for all stages of either product.
__device__ __forceinline__ T *stages() {
    constexpr bool FIRST = FirstTile::STAGED > SecondTile::STAGED;
    alignas(16) __shared__ T memory[FIRST ? FirstTile::STAGED : SecondTile::STAGED];
    return memory;
}

// The rows of an M x N product that a block computes: with all columns, if it is the only one
// along n.
struct BlockRows {
    int begin, end;
    template <class BlockTile>
    __device__ BlockRows(int M, const BlockAt<BlockTile> &at)
        : begin(at.x * BlockTile::HEIGHT), end(begin + smaller(BlockTile::HEIGHT, M - begin)) {}
};

// One operand's tiles, COUNT of them in turn, each of EXTENT outputs by BK steps of k. It is
// k-major (a line of BK elements for each output) where 16-byte copies run along k; otherwise a
// line of EXTENT elements for each k.
//
// A 16-byte read is free of conflicts if each eight lanes meet all 32 banks, and a matrix of 8 x 8
// if its rows do. Eight lanes of gemm_fma.cuh read outputs that are four apart; of gemm_mma.cuh,
// two such outputs at four places along k, and a matrix has eight such outputs at one place. So
// k-major tiles keep outputs four apart in neighbouring lines, and the 16-byte segments of a line
// are permuted by an XOR with bits of the line's number.
//
// Of lines of outputs in 16 bits, four lanes of gemm_mma.cuh read every other line at once, or
// MATRICES have eight lines. An XOR keeps these apart, too: of lines of only four segments, for
// these lanes, it permutes the eight segments of two lines.
template <Rows ROWS, int EXTENT, int PER_COPY_, int COUNT, bool OF_MATRICES = false> struct Tile {
    static constexpr Rows ALONG = ROWS;
    static constexpr int PER_COPY = PER_COPY_, IN_TURN = COUNT;
    static constexpr bool K_MAJOR = ROWS == Rows::ALONG_OUTPUT && PER_COPY > 1;
    static constexpr bool MATRICES = OF_MATRICES;
    static constexpr int LINES = K_MAJOR ? (EXTENT + 31) / 32 * 32 : BK;
    static constexpr int COLUMNS = K_MAJOR ? BK : EXTENT;
    static constexpr int SEGMENTS = COLUMNS / UNIT, SIZE = LINES * COLUMNS;
    static_assert(PER_COPY == 1 || PER_COPY == UNIT, "copies of an element or of 16 bytes");
    static_assert(COLUMNS % UNIT == 0 && EXTENT % 4 == 0, "whole segments");
    static_assert(!K_MAJOR || (SEGMENTS & (SEGMENTS - 1)) == 0, "an XOR permutes powers of two");

    // The line of an output, and its inverse: of each 32 outputs, first those divisible by four,
    // then those with remainder one, two and three.
    static __device__ constexpr int line(int output) {
        return (output & ~31) | (output & 3) << 3 | (output >> 2 & 7);
    }
    static __device__ constexpr int output(int line) {
        return (line & ~31) | (line & 7) << 2 | (line >> 3 & 3);
    }
    static constexpr bool IN_PAIRS = !K_MAJOR && !MATRICES && UNIT > 4 && SEGMENTS == 4;

    // The XOR of a line with the numbers of its segments, or of those of two lines.
    static __device__ constexpr int moved(int line) {
        if (!K_MAJOR && UNIT < 4) return 0;
        if (!K_MAJOR && UNIT == 4)
            return line / 4 * 2 % (SEGMENTS % 8 == 0 ? 8 : SEGMENTS % 4 == 0 ? 4 : 1);
        if (!K_MAJOR && MATRICES) return SEGMENTS % 8 == 0 ? line % 8 : line / 2 % 4;
        if (!K_MAJOR) return SEGMENTS % 8 == 0 || IN_PAIRS ? line / 2 % 4 * 2 : 0;
        return SEGMENTS < 8 ? line / (8 / SEGMENTS) % SEGMENTS : (line & 1) * 4 + (line >> 1 & 3);
    }
    static __device__ constexpr int at(int line, int column) {
        return (line * COLUMNS + column) ^ moved(line) * UNIT;
    }
    // What is `lines` further than `from` in a tile of lines of outputs, if the line there has no
    // bits of that number.
    static __device__ constexpr int further(int from, int lines) {
        const int odd = IN_PAIRS ? lines % 2 * COLUMNS : 0;
        return (from ^ moved(lines) * UNIT ^ odd) + lines * COLUMNS - odd;
    }

    // The offset that read() takes, for an output divisible by 4 and a k.
    static __device__ constexpr int start(int output, int k = 0) {
        return K_MAJOR ? at(line(output), k) : at(k, output);
    }
    // value[i][j] = element (output + apart + i, k0 + k + j), where `start` is start(output, k0)
    // plus SIZE for each stage before this one. Needed: DEPTH divides k and UNIT, 32 divides
    // `apart`, and 16 divides k unless k0 is 0.
    template <int DEPTH>
    static __device__ void read(acc_t (&value)[4][DEPTH], const T *stages, int start, int k,
                                int apart = 0) {
        if constexpr (K_MAJOR) {
            const T *first = stages + (start ^ k / UNIT * UNIT) + k % UNIT + apart * COLUMNS;
            UNROLL(int i = 0; i < 4; ++i) load_vector<DEPTH>(value[i], first + i * 8 * COLUMNS);
        } else {
            UNROLL(int j = 0; j < DEPTH; ++j) {
                acc_t outputs[4];
                // The XOR of 16 bits may share bits with `apart`.
                const int place =
                    UNIT > 4 ? further(start ^ apart, k + j) : further(start, k + j) + apart;
                load_vector<4>(outputs, stages + place);
                UNROLL(int i = 0; i < 4; ++i) value[i][j] = outputs[i];
            }
        }
    }
};

// How a block's threads share the copies of a tile: each copies the same columns of COPIES lines
// that are LINES_APART from each other, REPEATS times in a line.
template <class Tile> struct CopyLayout {
    static constexpr int ACROSS = Tile::COLUMNS / Tile::PER_COPY;  // copies that a line takes
    // Threads of a line. Along k they are few, since to move to another pixel takes a thread more
    // instructions than to copy other channels: eight, which copy 128 bytes, one of each bank.
    static constexpr int MOST = Tile::K_MAJOR || Tile::PER_COPY == 1 ? THREADS : 8;
    static constexpr int SHARING = ACROSS < MOST ? ACROSS : MOST;
    static constexpr int REPEATS = (ACROSS + SHARING - 1) / SHARING;
    static constexpr int STEP = SHARING * Tile::PER_COPY;  // columns from one to the next
    static constexpr int LINES_APART = THREADS / SHARING;
    static constexpr int COPIES = (Tile::LINES + LINES_APART - 1) / LINES_APART;

    // The thread's first line and column; a surplus thread's line is past the last.
    static __device__ int line() {
        const int line = threadIdx.x / SHARING;
        return line < LINES_APART ? line : Tile::LINES;
    }
    static __device__ int column(int repeat = 0) {
        return (threadIdx.x % SHARING + repeat * SHARING) * Tile::PER_COPY;
    }
    static __device__ bool has_column(int repeat) {
        return ACROSS % SHARING == 0 || repeat + 1 < REPEATS || column(repeat) < Tile::COLUMNS;
    }
    static __device__ bool has(int line) {
        return (LINES_APART <= Tile::LINES && Tile::LINES % LINES_APART == 0 &&
                THREADS % SHARING == 0) ||
               line < Tile::LINES;
    }
};

template <class Tile, class Loader, bool K_MAJOR = Tile::K_MAJOR> struct Copier;

// Fills one operand's tiles, stage after stage, with zeros for k past k_end. Outputs past `end`,
// which nothing stores, are copies of the last one.
//
// K-major: each of a thread's copies has its own row; all have the same columns.
template <class Tile, class Loader> struct Copier<Tile, Loader, true> {
    using Layout = CopyLayout<Tile>;

    static_assert((Layout::LINES_APART & (Layout::LINES_APART - 1)) == 0,
                  "the lines of a thread differ in other bits than its first one has");

    const Loader &loader;
    const int k_end;
    const int to;  // where the first copy goes, in the first stage
    int k;
    decltype(((Loader *)nullptr)->row(0)) rows[Layout::COPIES];
    decltype(((Loader *)nullptr)->segment(0)) segment;

    __device__ Copier(const Loader &loader, int first, int end, int k_begin, int k_end)
        : loader(loader), k_end(in_register(end > 0 ? k_end : 0)),
          to(in_register(Tile::at(Layout::line(), Layout::column()))),
          k(in_register(k_begin + Layout::column())), segment(in_register(loader.segment(k))) {
        const int own = first + Tile::output(Layout::line());
        UNROLL(int i = 0; i < Layout::COPIES; ++i)
            rows[i] = in_register(loader.row(smaller(own + output(i), end - 1)));
    }

    // The output of copy i, relative to that of the first copy.
    static __device__ constexpr int output(int i) { return Tile::output(i * Layout::LINES_APART); }

    __device__ void begin(T *tiles, int stage) {
        UNROLL(int i = 0; i < Layout::COPIES; ++i) {
            if (!Layout::has(Layout::line() + i * Layout::LINES_APART)) break;
            const T *from;
            const bool inside = loader.at(rows[i], segment, k < k_end, from);
            const int apart = i * Layout::LINES_APART;
            const int place = (to + stage * Tile::SIZE) ^ Tile::moved(apart) * UNIT;
            copy_elements<Tile::PER_COPY>(tiles + place + apart * Tile::COLUMNS, from, inside);
        }
        loader.advance(segment, BK);
        k += BK;
    }
};

// A loader's rows and segments, by whether they run along the outputs or along k.
template <Rows ROWS, class Loader> struct Oriented {
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
    static __device__ auto step(const Loader &loader, int n) {
        if constexpr (ROWS == Rows::ALONG_OUTPUT)
            return n;
        else
            return loader.step(n);
    }
    template <class Output, class Depth>
    static __device__ bool at(const Loader &loader, const Output &output, const Depth &depth,
                              bool inside, const T *&from) {
        if constexpr (ROWS == Rows::ALONG_OUTPUT)
            return loader.at(output, depth, inside, from);
        else
            return loader.at(depth, output, inside, from);
    }
};

// Lines of outputs: a thread copies the same outputs for one k after the other.
template <class Tile, class Loader> struct Copier<Tile, Loader, false> {
    using Layout = CopyLayout<Tile>;
    using Oriented = ::Oriented<Tile::ALONG, Loader>;
    static constexpr int PER_COPY = Tile::PER_COPY;

    const Loader &loader;
    const int k_end;
    const int line, column;  // the thread's first ones
    const int to;            // where the first line begins, in the first stage
    int k;
    decltype(Oriented::output(*(Loader *)nullptr, 0)) outputs[Layout::REPEATS];
    decltype(Oriented::depth(*(Loader *)nullptr, 0)) depth;
    static constexpr int AWAY = (Layout::COPIES - 1) * Layout::LINES_APART;
    using Step = decltype(Oriented::step(*(Loader *)nullptr, 0));
    const Step to_next, to_next_stage;

    __device__ Copier(const Loader &loader, int first, int end, int k_begin, int k_end)
        : loader(loader), k_end(in_register(end > 0 ? k_end : 0)), line(Layout::line()),
          column(in_register(Layout::column())), to(in_register(line * Tile::COLUMNS)),
          k(k_begin + line), depth(in_register(Oriented::depth(loader, k))),
          to_next(Oriented::step(loader, Layout::LINES_APART)),
          to_next_stage(Oriented::step(loader, BK - AWAY)) {
        const int last = (end - 1) / PER_COPY * PER_COPY;
        UNROLL(int i = 0; i < Layout::REPEATS; ++i) {
            const int output = smaller(first + column + i * Layout::STEP, last);
            outputs[i] = in_register(Oriented::output(loader, output));
        }
    }

    // Where repeat i is, of a line at `first`. The XOR permutes eight segments.
    __device__ int place(int first, int i, int moved) const {
        if constexpr (Tile::IN_PAIRS) return (first + column + i * Layout::STEP) ^ moved;
        if constexpr (Layout::STEP % (8 * UNIT) == 0)
            return first + (column ^ moved) + i * Layout::STEP;
        return first + ((column + i * Layout::STEP) ^ moved);
    }

    __device__ void begin(T *tiles, int stage) {
        // Unrolled, many copies of single elements would spill registers.
        constexpr int ALL = Layout::COPIES * Layout::REPEATS;
        constexpr int AT_ONCE = ALL > 31 ? 2 : ALL > 16 ? 4 : Layout::COPIES;
#pragma unroll AT_ONCE
        for (int j = 0; j < Layout::COPIES; ++j) {
            const int apart = j * Layout::LINES_APART;
            const int moved = Tile::moved(line + apart) * UNIT;
            UNROLL(int i = 0; i < Layout::REPEATS; ++i) {
                if (!Layout::has(line + apart) || !Layout::has_column(i)) break;
                const T *from;
                const bool inside =
                    Oriented::at(loader, outputs[i], depth, k + apart < k_end, from);
                const int to = place(this->to + apart * Tile::COLUMNS, i, moved);
                copy_elements<PER_COPY>(tiles + to + stage * Tile::SIZE, from, inside);
            }
            if (AWAY + Layout::LINES_APART == BK || j + 1 < Layout::COPIES)
                loader.advance(depth, to_next);
            else  // no choice of a step: it would be in memory
                loader.advance(depth, to_next_stage);
        }
        k += BK;
    }
};

// The tiles of both operands of a block.
template <class BlockTile, Rows ROWS, bool MATRICES = false>
using TileA = Tile<ROWS, BlockTile::HEIGHT, BlockTile::PER_A, BlockTile::IN_TURN, MATRICES>;
template <class BlockTile, Rows ROWS>
using TileB = Tile<ROWS, BlockTile::WIDTH, BlockTile::PER_B, BlockTile::IN_TURN>;

// Calls multiply(tiles of A, tiles of B, stage) for each BK steps of k in order, up to k_end, for
// the block whose outputs begin at (m0, n0) of an M x N product.
template <class TileA, class TileB, class A, class B, class Multiply>
__device__ __forceinline__ void in_stages(const A &a, const B &b, int m0, int M, int n0, int N,
                                          int k_begin, int k_end, const Multiply &multiply) {
    constexpr int IN_TURN = TileA::IN_TURN;
    T *const tiles_a = stages(), *const tiles_b = tiles_a + IN_TURN * TileA::SIZE;
    Copier<TileA, A> copier_a(a, m0, M, k_begin, k_end);
    Copier<TileB, B> copier_b(b, n0, N, k_begin, k_end);
    const int steps = ceil_div(k_end - k_begin, BK);
    int stage = 0;
    // Copies run IN_TURN - 1 steps ahead, so the first steps have nothing to multiply. The stage
    // that is multiplied is the next after that which is filled.
    for (int step = 1 - IN_TURN; step < steps; ++step) {
        if (step >= 0) {
            wait_copies<IN_TURN - 2>();
            __syncthreads();  // this step's tiles are complete, the last step's are no longer read
        }
        if (step + IN_TURN - 1 < steps) {
            copier_a.begin(tiles_a, stage);
            copier_b.begin(tiles_b, stage);
        }
        commit_copies();  // one group per step, even if empty, so that waits can count steps
        stage = stage + 1 == IN_TURN ? 0 : stage + 1;
        if (step >= 0) multiply(tiles_a, tiles_b, stage);
    }
}
