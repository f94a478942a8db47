// Loops over the channels of NHWC arrays, which are neighbours in memory: on `cpu` a thread takes
// up to six SIMD registers of them at a time, on `cuda` a vector of 16 bytes. Bodies are generic
// lambdas of `at`, the channels of a thread, which loads and stores them:
//
//   const auto value = at.load(p), scale = ...;   // p at channel at.first
//   at.write(q, past, [&](int v) { return value[v] * scale[v]; });
//
//   for_rows          over all rows. What depends on the channel alone is computed once for many
//
//     for_rows(count, C, [=](auto at, const auto &rows) {
//         const auto scale = at.load(gamma + at.first);
//         rows.each([&](int64 r) INLINE {
//             const auto value = at.load(x + r * C + at.first);
//             return [&, value]() INLINE { sum += value * scale; };   // once it is there
//         });
//     });
//
//   for_chunk         the same over the rows begin to end - 1, for one result of a block:
//                     rows.add(sum) adds the other threads' sums, and rows.first tells which thread
//                     stores it
//   for_images        over the pixels of images, row by row. On `cpu`, code outside `channels` runs
//                     once for all channels: for what depends on the row or pixel alone
//
//     for_images(N * H, H, W, C, [&](int64 n, int row, const auto &columns) {
//         columns([&](int column, const auto &channels) { channels([&](auto at) { ... }); });
//     });
#pragma once

#include "dialect/lanes.cuh"
#include "common/window.cuh"

// Values of neighbouring channels, one register or lane each. In shared memory a thread takes 16
// bytes of them at once, which no bank has to serve twice.
template <typename L, int COUNT>
struct alignas(sizeof(L) * COUNT % 16 == 0 && alignof(L) < 16 ? 16 : alignof(L)) OfChannels {
    L value[COUNT];
    __device__ __forceinline__ L &operator[](int v) { return value[v]; }
    __device__ __forceinline__ const L &operator[](int v) const { return value[v]; }
    __device__ __forceinline__ const L &operator()(int v) const { return value[v]; }
};

// The distance of prefetches in a loop over windows, in elements, given the elements from one row
// of windows to the next: one such row, since a window's rows are far apart; but at least that of a
// loop over neighbours, and at most what the caches hold.
__device__ inline int row_ahead(int64 row) {
    constexpr int64 LEAST = 8192 / sizeof(T), MOST = 65536 / sizeof(T);
    return int(larger(smaller(row, MOST), LEAST));
}

#ifdef __CUDACC__

// Channels that a thread takes at once: channels.py passes a number that divides C, if all arrays
// are aligned to so many elements, or to 16 bytes.
#ifndef VECTOR
#define VECTOR 1
#endif
static_assert(VECTOR * sizeof(T) <= 16, "one access of a thread");

// The vector of channels from `first` on.
template <int COUNT> struct Channels {
    using Values = OfChannels<lanes_t, COUNT>;
    static constexpr int REGISTERS = COUNT;
    int first;

    template <typename E> __device__ __forceinline__ Values load(const E *p) const {
        Values values;
        load_vector(values.value, p);
        return values;
    }
    template <typename E, class Of>
    __device__ __forceinline__ void store(E *p, const Of &of) const {
        E values[COUNT];
        UNROLL(int v = 0; v < COUNT; ++v) values[v] = E(of(v));
        store_vector(p, values);
    }
    template <typename E, class Of>
    __device__ __forceinline__ void write(E *p, bool, const Of &of) const {
        store(p, of);
    }
    template <typename E> __device__ void fetch(const E *, int = 0) const {}
    template <typename Whole>
    __device__ __forceinline__ OfChannels<index_t, COUNT> load_whole(const Whole *p) const {
        OfChannels<index_t, COUNT> values;
        load_vector(values.value, p);
        return values;
    }
    template <typename Whole, class Of>
    __device__ __forceinline__ void store_whole(Whole *p, const Of &of) const {
        store(p, of);
    }
};

// The most threads of a block, and the blocks that a multiprocessor must hold. Without them, ptxas
// saves registers, and waits for one row or two before it loads the next.
constexpr int TEAM = 256, TEAMS = 2;

// A thread's position in its block. Blocks along y share the vectors of channels evenly; a block's
// threads form `rows` rows, one thread per vector. Threads left over, or past the last vector, are
// idle.
struct Team {
    int columns, column, row, rows;
    bool idle;

    __device__ explicit Team(int C) {
        const int vectors = C / VECTOR;
        columns = ceil_div(vectors, gridDim.y);
        rows = blockDim.x / columns;
        row = threadIdx.x / columns;
        column = blockIdx.y * columns + threadIdx.x - row * columns;
        idle = row >= rows || column >= vectors;
        if (idle) column = 0;
    }
    __device__ Channels<VECTOR> channels() const { return {column * VECTOR}; }
};

// The rows of a thread; the first is an int where that suffices, since place() divides in its type.
template <class Row> struct RowsApart {
    Row begin;
    int64 end;
    int step;

    // Calls body(row)(), row by row. The body loads, and returns what is to be done with it: the
    // loads of four rows wait for memory together.
    template <class Body> __device__ __forceinline__ void each(const Body &body) const {
        const int64 apart = step;
        int64 row = begin;
        for (; row + 3 * apart < end; row += 4 * apart) {
            const auto first = body(row), second = body(row + apart);
            const auto third = body(row + 2 * apart), fourth = body(row + 3 * apart);
            first(), second(), third(), fourth();
        }
        NO_UNROLL(; row < end; row += apart) body(row)();
    }
};

// A thread's rows of a chunk.
struct ChunkRows : RowsApart<int64> {
    const Team &team;
    bool first;  // whether the thread has the result of a reduction

    __device__ ChunkRows(const Team &team, int64 chunk, int64 end)
        : RowsApart<int64>{team.idle ? end : chunk + team.row, end, team.rows}, team(team),
          first(!team.idle && team.row == 0) {}

    __device__ int64 count() const { return begin < end ? (end - begin - 1) / step + 1 : 0; }

    // Merges the values of the rows with `op`, two at a time, into that of the thread with `first`.
    // The order depends on the block's size alone.
    template <class Value, class Op>
    __device__ __forceinline__ void reduce(Value &value, const Op &op) const {
        __shared__ Value others[TEAM];
        // No barrier is needed between two reductions: the last step reads row 1; the next
        // reduction's first step writes rows from 2 on, and its barrier precedes writes of row 1.
        int apart = 2;
        while (2 * apart < team.rows) apart *= 2;
        const int thread = threadIdx.x, row = team.idle ? team.rows : team.row;
        for (; apart > 0; apart /= 2) {
            if (row >= apart && row < smaller(2 * apart, team.rows)) others[thread] = value;
            __syncthreads();
            if (row < apart && row + apart < team.rows)
                op(value, others[thread + apart * team.columns]);
        }
    }
    template <class Values> __device__ __forceinline__ void add(Values &values) const {
        reduce(values, [](Values &own, const Values &more) {
            UNROLL(int v = 0; v < VECTOR; ++v) own[v] += more[v];
        });
    }
};

template <class Body> __device__ void for_chunk(int64 begin, int64 end, int C, const Body &body) {
    const Team team(C);
    body(team.channels(), ChunkRows(team, begin, end));
}

// The grid's blocks take turns.
template <class Body> __device__ void for_rows(int64 rows, int C, const Body &body) {
    const Team team(C);
    const int first = blockIdx.x * team.rows + team.row, step = gridDim.x * team.rows;
    if (!team.idle) body(team.channels(), RowsApart<int>{first, rows, step});
}

template <class Body>
__device__ void for_images(int64 rows, int H, int W, int C, const Body &body) {
    for_rows(rows * W, C, [&](auto at, const auto &pixels) {
        Walk walk(pixels.begin, pixels.step, H, W);
        for (int64 pixel = pixels.begin; pixel < pixels.end; pixel += pixels.step) {
            body(walk.at.n, walk.at.row, [&](const auto &of_column) {
                of_column(walk.at.column, [&](const auto &of_channels) { of_channels(at); });
            });
            walk.advance();
        }
    });
}

#else

// SIMD registers of neighbouring channels; all but the last are full.
template <int COUNT> struct Channels {
    using Values = OfChannels<lanes_t, COUNT>;
    static constexpr int REGISTERS = COUNT;
    int first, last;  // the first channel, and the channels of the last register

    int count(int v) const { return v < REGISTERS - 1 ? LANES : last; }
    // Loads each register when it is used.
    template <typename E> struct Loaded {
        Channels at;
        const E *p;
        __forceinline__ lanes_t operator[](int v) const {
            return lanes_t(load_first(p + v * LANES, at.count(v)));
        }
        __forceinline__ operator Values() const {
            Values values;
            UNROLL(int v = 0; v < COUNT; ++v) values[v] = (*this)[v];
            return values;
        }
    };
    template <typename E> __forceinline__ Loaded<E> load(const E *p) const { return {*this, p}; }
    template <typename E, class Of> __forceinline__ void store(E *p, const Of &of) const {
        UNROLL(int v = 0; v < COUNT; ++v) store_first(p + v * LANES, of(v), count(v));
    }
    template <typename E, class Of>
    __forceinline__ void write(E *p, bool past, const Of &of) const {
        UNROLL(int v = 0; v < COUNT; ++v) write_first(p + v * LANES, of(v), count(v), past);
    }
    template <typename E>
    __forceinline__ void fetch(const E *p, int ahead = 8192 / int(sizeof(E))) const {
        UNROLL(int v = 0; v < COUNT; ++v) fetch_ahead(p + v * LANES, 1, ahead);
    }
    template <typename Whole>
    __forceinline__ OfChannels<index_t, COUNT> load_whole(const Whole *p) const {
        OfChannels<index_t, COUNT> values;
        UNROLL(int v = 0; v < COUNT; ++v)
            values[v] = load_first_whole<acc_t>(p + v * LANES, count(v));
        return values;
    }
    template <typename Whole, class Of>
    __forceinline__ void store_whole(Whole *p, const Of &of) const {
        UNROLL(int v = 0; v < COUNT; ++v) store_first_whole<acc_t>(p + v * LANES, of(v), count(v));
    }
};

// All rows of a chunk, since a block has one thread.
struct ChunkRows {
    static constexpr int step = 1;
    static constexpr bool first = true;
    int64 begin, end;

    template <class Body> __forceinline__ void each(const Body &body) const {
        for (int64 row = begin; row < end; ++row) body(row)();
    }
    template <class Values> void add(Values &) const {}
};

// C channels, up to six registers at a time, in parts as equal as can be: a row is read in few
// pieces. The body is compiled for one to six registers.
struct InRegisters {
    static constexpr int MOST = 6;
    int registers, parts, last;  // `last`: channels of the last register

    InRegisters(int C) : registers(ceil_div(C, LANES)), parts(ceil_div(registers, MOST)) {
        last = C - (registers - 1) * LANES;
    }
    template <class OfChannels> __forceinline__ void operator()(const OfChannels &of) const {
        int done = 0;
        for (int part = 0; part < parts; ++part) {
            const int first = done * LANES, here = ceil_div(registers - done, parts - part);
            done += here;
            const int end = done == registers ? last : LANES;
            if (here == 1) of(Channels<1>{first, end});
            if (here == 2) of(Channels<2>{first, end});
            if (here == 3) of(Channels<3>{first, end});
            if (here == 4) of(Channels<4>{first, end});
            if (here == 5) of(Channels<5>{first, end});
            if (here == 6) of(Channels<6>{first, end});
        }
    }
};

template <class Body>
static __forceinline__ void for_chunk(int64 begin, int64 end, int C, const Body &body) {
    const InRegisters channels(C);
    channels([&](auto at) { body(at, ChunkRows{begin, end}); });
}

// A block's rows, so few at a time that their channels stay in the cache.
template <class Body> static __forceinline__ void for_rows(int64 rows, int C, const Body &body) {
    constexpr int64 FEW = 32;
    const InRegisters channels(C);
    const int64 last = rows * (blockIdx.x + 1) / gridDim.x;
    for (int64 begin = rows * blockIdx.x / gridDim.x; begin < last; begin += FEW) {
        const ChunkRows few = {begin, smaller(begin + FEW, last)};
        channels([&](auto at) INLINE { body(at, few); });
    }
}

template <class Body>
static __forceinline__ void for_images(int64 rows, int H, int W, int C, const Body &body) {
    const InRegisters channels(C);
    const auto columns = [&](const auto &of_column) {
        for (int column = 0; column < W; ++column) of_column(column, channels);
    };
    GRID_STRIDE(row, rows) body(row / H, int(row % H), columns);
}

#endif
