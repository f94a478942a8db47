// The GEMM of gemm.cuh on `cpu`: one thread per block, lanes along n, operand A read in place.
//
// A micro-tile is TM rows by V registers of C: each k takes V loads of B and TM broadcasts of A for
// TM * V multiply-adds. B is packed, a panel at a time, unless few micro-tiles read it. Packing A,
// too, would take longer than it saves, since a row of A is multiplied by N columns only. A's
// loader gives the addresses of its rows:
//
//   walk(row).next(count, start)
//                     writes the addresses of `count` rows, and of the following rows at the next
//                     call. A row that reaches into padding has the address null, and load() copies
//                     it; then next() returns false. It may write up to SLACK more addresses
//   offset(column)    a column's offset from the row's address; columns come in runs of neighbours
//   inside()          whether no row reaches into padding
//   PLAIN             whether, besides, every row is one run
//
//   geometry grid (parts of M, parts of N, any): any number of parts gives the same bits
#pragma once

#include "common/channels.cuh"

// TM * VECTORS sums fit in registers: 24 of AVX-512's 32, 12 of AVX2's 16.
constexpr int TM = REGISTER_BYTES == 64 ? 8 : 4, VECTORS = 3;
constexpr int TALL = REGISTER_BYTES == 64 ? 9 : TM;  // fits, too; 9 taps of a 3 x 3 window
constexpr int BAND = 256;                            // rows along k that are packed at a time
constexpr int SHEET = 256;                           // rows of sums kept until the next panel

static_assert(BN >= VECTORS * LANES, "a panel must hold the columns of a micro-tile");
static_assert(SHEET % TM == 0 && BK * BN >= BAND * TM, "sheets must hold whole micro-tiles");

// A block's arrays. A function that has them is not inlined: beside others, GCC spills registers in
// its inner loop.
template <class Arrays> static inline Arrays &own_arrays() {
    return *static_cast<Arrays *>(own_memory(sizeof(Arrays)));
}

// Receives the elements that a loader copies, and writes them STEP apart.
template <int STEP> struct Converted {
    acc_t *out;

    // The next `length` elements: the source's from `begin` to `end`, and zeros around them.
    __device__ __forceinline__ void run(const T *source, int begin, int end, int length) {
        copy_between<STEP>(out, source, begin, end, length);
        out += length * STEP;
    }
};

// Copies columns [column, column + count) of a row to elements STEP apart.
template <int STEP, class Loader>
__device__ inline void load(const Loader &loader, int row, int column, int count, acc_t *out) {
    loader.load(loader.row(row), loader.column(column), count, Converted<STEP>{out});
}

// The part of [0, count) of block `index` of `blocks`, in multiples of `unit`.
struct Part {
    int begin, end;

    Part(int count, int unit, unsigned index, unsigned blocks) {
        const int64 units = ceil_div(count, unit);
        begin = int(units * index / blocks) * unit;
        end = smaller(int(units * (index + 1) / blocks) * unit, count);
    }
};

// Blocks have no tile of a fixed size here.
struct FirstTile {};
using SecondTile = FirstTile;

// The rows of an M x N product that a block computes: with all columns, if it is the only one
// along n.
struct BlockRows : Part {
    BlockRows(int M, const BlockAt<FirstTile> &at) : Part(M, TM, at.x, at.all.x) {}
};

// The registers of a micro-tile for N columns: fewest unused lanes, then most work per broadcast.
// With the TM of AVX2, two registers take 7/6 of the time per sum: 8 sums just hide the latency of
// one.
static inline int vectors(int N) {
    const int needed = ceil_div(N, LANES), two = TM < 8 ? 7 : 6;
    if (needed <= VECTORS) return needed;
    return ceil_div(needed, 3) * 3 * 6 <= ceil_div(needed, 2) * 2 * two ? 3 : 2;
}

// The sums of a micro-tile. They stay in registers if all loops over them are unrolled.
template <int V, int ROWS = TM> struct MicroTile {
    lanes_t sum[ROWS][V];

    template <class Body> __attribute__((always_inline)) void each(const Body &body) {
        UNROLL(int i = 0; i < ROWS; ++i)
            UNROLL(int v = 0; v < V; ++v) body(i, v);
    }
    // Adds the products of one column of A, element(i) in row i, and one row of B.
    template <class Element>
    __attribute__((always_inline)) void add(const acc_t *b, const Element &element) {
        lanes_t row[V];
        UNROLL(int v = 0; v < V; ++v) row[v] = in_register(load_lanes(b + v * LANES));
        each([&](int i, int v) { sum[i][v] += element(i) * row[v]; });
    }
    void load(const acc_t *from) {
        each([&](int i, int v) { sum[i][v] = load_lanes(from + (i * V + v) * LANES); });
    }
    void store(acc_t *to) {
        each([&](int i, int v) { store_lanes(to + (i * V + v) * LANES, sum[i][v]); });
    }
};

// Swaps the off-diagonal quarters of STEP * 2 x STEP * 2 blocks of LANES x LANES values.
template <int STEP, int... L>
static inline void swap_quarters(lanes_t (&row)[LANES], Indices<L...>) {
    UNROLL(int i = 0; i < LANES; ++i) {
        if (i & STEP) continue;
        const lanes_t a = row[i], b = row[i + STEP];
        row[i] = shuffle<(L & STEP ? LANES + L - STEP : L)...>(a, b);
        row[i + STEP] = shuffle<(L & STEP ? LANES + L : L + STEP)...>(a, b);
    }
}
// Transposes LANES x LANES values, by swapping quarters of smaller and smaller blocks.
template <int STEP = LANES / 2> static inline void transpose(lanes_t (&row)[LANES]) {
    swap_quarters<STEP>(row, FirstIndices<LANES>());
    if constexpr (STEP > 1) transpose<STEP / 2>(row);
}

// Receives a row of B, one run without padding, and appends zeros up to `width`.
struct Padded {
    acc_t *out;
    int width;

    void run(const acc_t *source, int, int end, int) const {
        for (int n = 0; n < width; n += LANES) {
            fetch_ahead(source + n);
            store_lanes(out + n, load_first(source + n, end - n));
        }
    }
};

// Packs rows [k0, k0 + depth) and columns [n0, n0 + columns) of B, with zeros up to `width`.
template <Rows ROWS, class B>
static void pack(acc_t *tile, const B &b, int k0, int depth, int n0, int columns, int width) {
    if (ROWS == Rows::ALONG_K) {
        for (int k = 0; k < depth; ++k)
            b.load(b.row(k0 + k), b.column(n0), columns, Padded{tile + k * width, width});
        return;
    }
    for (int n = 0; n < width; n += LANES)
        for (int k = 0; k < depth; k += LANES) {
            const int length = smaller(LANES, depth - k), rows = smaller(LANES, columns - n);
            alignas(REGISTER_BYTES) acc_t line[LANES];
            lanes_t square[LANES];
            UNROLL(int i = 0; i < LANES; ++i) {
                if (i < rows && length == LANES) {
                    load<1>(b, n0 + n + i, k0 + k, LANES, line);
                    square[i] = load_lanes(line);
                } else {
                    if (i < rows) load<1>(b, n0 + n + i, k0 + k, length, line);
                    square[i] = load_first(line, i < rows ? length : 0);
                }
            }
            transpose(square);
            for (int j = 0; j < length; ++j) store_lanes(tile + (k + j) * width + n, square[j]);
        }
}

// Gets the addresses of the next rows (past the last one, its address again); returns whether none
// is null. Not inlined: within a product there are no registers left for it.
template <class Walk>
__attribute__((noinline)) static bool next_rows(Walk &walk, int rows,
                                                const T *(&start)[TM + SLACK]) {
    const bool whole = walk.next(rows, start);
    for (int i = rows; i < TM; ++i) start[i] = start[rows - 1];
    UNROLL(int i = 0; i < TM; ++i) fetch_ahead(start[i]);
    return whole;
}

// ---- rows along the output ---------------------------------------------------------------------

template <int V, Rows B_ROWS, class A, class B, class Epilogue>
__attribute__((noinline)) static void multiply_rows(const A &a, const B &b, Part m, Part n,
                                                    int k_begin, int k_end,
                                                    const Epilogue &epilogue) {
    constexpr int WIDTH = V * LANES, PANEL = BN / WIDTH * WIDTH;
    struct Arrays {
        alignas(REGISTER_BYTES) acc_t tile[BK * BN], gathered[TM][BK], waiting[SHEET * BN];
    };
    auto &own = own_arrays<Arrays>();
    // A panel ends at the end of a run, unless runs are longer than panels.
    const int run = a.run(), most = run < BK ? BK / run * run : BK;
    for (int n0 = n.begin; n0 < n.end; n0 += PANEL) {
        const int columns = smaller(PANEL, n.end - n0);
        const int width = ceil_div(columns, WIDTH) * WIDTH;
        for (int m0 = m.begin; m0 < m.end; m0 += SHEET) {
            const int m1 = smaller(m0 + SHEET, m.end);
            int k0 = k_begin;
            do {
                const int left = run < BK ? most : smaller(most, run - k0 % run);
                const int depth = smaller(left, k_end - k0);
                const bool first = k0 == k_begin, last = k0 + depth == k_end;
                if (!(first && last) || m0 == m.begin)
                    pack<B_ROWS>(own.tile, b, k0, depth, n0, columns, width);
                auto walk = a.walk(m0);
                for (int row = m0; row < m1; row += TM) {
                    const int rows = smaller(TM, m1 - row);
                    const acc_t *start[TM + SLACK];
                    const bool whole = next_rows(walk, rows, start);
                    bool direct[TM];  // whether row i is read in place; set unless all are
                    for (int i = 0; !whole && i < TM; ++i) {
                        direct[i] = start[i];
                        if (direct[i]) continue;
                        load<1>(a, row + smaller(i, rows - 1), k0, depth, own.gathered[i]);
                        start[i] = own.gathered[i];
                    }
                    for (int j = 0; j < columns; j += WIDTH) {
                        MicroTile<V> c = {};
                        acc_t *kept = own.waiting + (row - m0) * BN + j * TM;
                        if (!first) c.load(kept);
                        const acc_t *packed = own.tile + j;
                        for (int k = 0; k < depth; k += run) {
                            const int64 offset = a.offset(k0 + k);
                            const acc_t *p[TM];
                            UNROLL(int i = 0; i < TM; ++i)
                                p[i] = start[i] + (whole || direct[i] ? offset : k);
                            const int length = smaller(run, depth - k);
                            for (int l = 0; l < length; ++l, packed += width)
                                c.add(packed, [&](int i) { return p[i][l]; });
                        }
                        if (last)
                            epilogue.store(row, n0 + j, c.sum, rows, smaller(WIDTH, columns - j));
                        else
                            c.store(kept);
                    }
                }
                k0 += depth;
            } while (k0 < k_end);
        }
    }
}

// ---- short rows --------------------------------------------------------------------------------

// The same for rows of few columns in short runs, none in padding: windows over images of few
// channels. Each column has its own offset, and B's panel is packed once for all k.
template <int V, Rows B_ROWS, class A, class B, class Epilogue>
__attribute__((noinline)) static void multiply_short_rows(const A &a, const B &b, Part m, Part n,
                                                          int K, const Epilogue epilogue) {
    constexpr int WIDTH = V * LANES, PANEL = BN / WIDTH * WIDTH, CHUNK = 8 * TM;
    struct Arrays {
        alignas(REGISTER_BYTES) acc_t tile[BK * BN];
        int64 offsets[BK];
    };
    auto &own = own_arrays<Arrays>();
    for (int k = 0; k < K; ++k) own.offsets[k] = a.offset(k);
    for (int n0 = n.begin; n0 < n.end; n0 += PANEL) {
        const int columns = smaller(PANEL, n.end - n0);
        const int width = ceil_div(columns, WIDTH) * WIDTH;
        pack<B_ROWS>(own.tile, b, 0, K, n0, columns, width);
        auto walk = a.walk(m.begin);
        for (int m0 = m.begin; m0 < m.end; m0 += CHUNK) {
            const acc_t *start[CHUNK + SLACK];
            const int rows = smaller(CHUNK, m.end - m0);
            walk.next(rows, start);
            for (int i = rows; i % TM > 0; ++i) start[i] = start[rows - 1];
            for (int row = 0; row < rows; row += TM)
                for (int j = 0; j < columns; j += WIDTH) {
                    MicroTile<V> c = {};
                    const acc_t *packed = own.tile + j;
                    for (int k = 0; k < K; ++k, packed += width)
                        c.add(packed, [&](int i) { return start[row + i][own.offsets[k]]; });
                    epilogue.store(m0 + row, n0 + j, c.sum, smaller(TM, rows - row),
                                   smaller(WIDTH, columns - j));
                }
        }
    }
}

// ---- few rows ----------------------------------------------------------------------------------

// The same for few rows, by dot products with lanes along k: packing B would take longer than
// multiplying it.
template <class A, class B, class Epilogue>
static void multiply_dots(const A &a, const B &b, int M, Part n, int K, const Epilogue &epilogue) {
    constexpr int CHAINS = 8;  // independent sums, which hide the latency of an addition
    static_assert(LANES % CHAINS == 0 || LANES < CHAINS, "a vector of results is made in turns");
    for (int n0 = n.begin; n0 < n.end; n0 += LANES) {
        const int columns = smaller(LANES, n.end - n0);
        lanes_t results[TM][1] = {};
        const acc_t *x[TM + SLACK];
        a.walk(0).next(M, x);
        for (int i = 0; i < M; ++i) {
            for (int j = 0; j < columns; j += CHAINS) {
                const acc_t *row[CHAINS + SLACK];
                const int used = smaller(CHAINS, columns - j);
                b.walk(n0 + j).next(used, row);
                for (int c = used; c < CHAINS; ++c) row[c] = row[0];
                lanes_t sum[CHAINS] = {};
                for (int k = 0; k < K; k += LANES) {
                    const lanes_t value = load_first(x[i] + k, K - k);
                    UNROLL(int c = 0; c < CHAINS; ++c)
                        sum[c] += value * load_first(row[c] + k, K - k);
                }
                for (int c = 0; c < used; ++c) {
                    acc_t total = 0;
                    for (int l = 0; l < LANES; ++l) total += sum[c][l];
                    results[i][0][j + c] = total;
                }
            }
        }
        epilogue.store(0, n0, results, M, columns);
    }
}

// ---- rows along k ------------------------------------------------------------------------------

template <int V, int ROWS, class A, class B, class Epilogue>
__attribute__((noinline)) static void multiply_bands(const A &a, const B &b, Part m, Part n,
                                                     int k_begin, int k_end,
                                                     const Epilogue &epilogue) {
    constexpr int WIDTH = V * LANES, PANEL = BN / WIDTH * WIDTH;
    constexpr int MOST = BK * BN / BAND / ROWS * ROWS;  // columns of A that are gathered at a time
    struct Arrays { alignas(REGISTER_BYTES) acc_t tile[BAND * BN], gathered[BAND * MOST]; };
    auto &own = own_arrays<Arrays>();
    for (int n0 = n.begin; n0 < n.end; n0 += PANEL) {
        const int columns = smaller(PANEL, n.end - n0);
        const int width = ceil_div(columns, WIDTH) * WIDTH;
        auto walk = a.walk(k_begin);
        for (int k0 = k_begin; k0 < k_end; k0 += BAND) {
            const int depth = smaller(BAND, k_end - k0);
            // Rows that are read in place come first, then those that reach into padding.
            const acc_t *start[BAND + SLACK];
            int order[BAND], direct = 0, others = 0;
            walk.next(depth, start);
            for (int k = 0; k < depth; ++k) {
                fetch_ahead(start[k]);
                if (start[k])
                    start[direct] = start[k], order[direct++] = k;
                else
                    order[BAND - ++others] = k;
            }
            // B is packed in this order, unless too few micro-tiles read it for that to pay. Then
            // lanes past the last column read what follows it in memory, so that must be enough.
            const int64 after = (k_end - k0 - depth) * b.stride;
            const bool packed = others > 0 || after < width - columns || m.end - m.begin > 4 * ROWS;
            const acc_t *const band = packed ? own.tile : b.row(k0) + n0;
            const int64 step = packed ? width : b.stride;
            for (int i = 0; packed && i < depth; ++i) {
                const int k = i < direct ? order[i] : order[BAND - 1 - (i - direct)];
                pack<Rows::ALONG_K>(own.tile + i * width, b, k0 + k, 1, n0, columns, width);
            }
            for (int m0 = m.begin; m0 < m.end; m0 += MOST) {
                const int m1 = smaller(m0 + MOST, m.end);
                for (int i = 0; i < others; ++i)
                    load<1>(a, k0 + order[BAND - 1 - i], m0, m1 - m0, own.gathered + i * MOST);
                for (int row = m0; row < m1; row += ROWS) {
                    int64 offset[ROWS];
                    int place[ROWS];
                    for (int i = 0; i < ROWS; ++i) {
                        place[i] = smaller(row + i, m1 - 1) - m0;
                        offset[i] = a.offset(m0 + place[i]);
                    }
                    for (int j = 0; j < columns; j += WIDTH) {
                        const int rows = smaller(ROWS, m1 - row);
                        const int used = smaller(WIDTH, columns - j);
                        MicroTile<V, ROWS> c = {};
                        const acc_t *lanes = band + j;
                        for (int k = 0; k < direct; ++k, lanes += step)
                            c.add(lanes, [&](int i) { return start[k][offset[i]]; });
                        for (int k = 0; k < others; ++k, lanes += step)
                            c.add(lanes, [&](int i) { return own.gathered[k * MOST + place[i]]; });
                        if (k0 > k_begin) {  // sums per band, so that rounding errors stay small
                            MicroTile<V, ROWS> before;
                            epilogue.load(row, n0 + j, before.sum, rows, used);
                            c.each([&](int i, int v) { c.sum[i][v] += before.sum[i][v]; });
                        }
                        epilogue.store(row, n0 + j, c.sum, rows, used);
                    }
                }
            }
        }
    }
}

// This block's part of the M x N product over k in [k_begin, k_end), which is all of k for rows
// along the output.
template <Rows A_ROWS, Rows B_ROWS, class A, class B, class Epilogue, class Sums = NoSums>
static Block gemm(const BlockAt<FirstTile> &at, const A &a, const B &b, int M, int N, int k_begin,
                  int k_end, const Epilogue &epilogue, const Parts & = ALL_OF_K, Sums = {}) {
    const int V = vectors(N);
    if constexpr (A::PLAIN && A_ROWS == Rows::ALONG_OUTPUT && B_ROWS == Rows::ALONG_OUTPUT)
        if (M <= TM) {  // one block along m
            const Part n(N, LANES, at.y, at.all.y);
            multiply_dots(a, b, M, n, k_end, epilogue);
            return {0, M, n.begin, n.end, true};
        }
    const BlockRows m(M, at);
    const Part n(N, V * LANES, at.y, at.all.y);
    const auto whole = [](Part part, int unit) {
        return ceil_div(part.end - part.begin, unit) * unit;
    };
    const auto run = [&](auto width) {
        if constexpr (A_ROWS == Rows::ALONG_OUTPUT) {
            if constexpr (!A::PLAIN)
                if (k_end <= BK && a.run() < 2 * LANES && a.inside())
                    return multiply_short_rows<width.value, B_ROWS>(a, b, m, n, k_end, epilogue);
            multiply_rows<width.value, B_ROWS>(a, b, m, n, k_begin, k_end, epilogue);
        } else if (whole(m, TALL) < whole(m, TM))
            multiply_bands<width.value, TALL>(a, b, m, n, k_begin, k_end, epilogue);
        else
            multiply_bands<width.value, TM>(a, b, m, n, k_begin, k_end, epilogue);
    };
    if (V == 1)
        run(Number<1>());
    else if (V == 2)
        run(Number<2>());
    else
        run(Number<3>());
    return {m.begin, m.end, n.begin, n.end, true};
}
