// Sums over k of one operand beside its product: the gradients of biases beside those of weights.
// Of the blocks with the same outputs of that operand the first adds up its tiles, which lie in
// shared memory anyway.
//
//   shared   of BM x BN outputs, a block reads BN (or BM) times BK elements more in each stage
//   lanes    a thread adds up four outputs of every APART-th k; then one thread an output adds
//            these sums, in order
#pragma once

template <Operand OF, class TileA, class> struct TileOf { using Type = TileA; };
template <class TileA, class TileB> struct TileOf<Operand::B, TileA, TileB> { using Type = TileB; };

// The largest power of two up to n.
constexpr int power_of_two(int n) { return n < 2 ? n : 2 * power_of_two(n / 2); }

// A block's sums, if it has any.
template <class Sums, class TileA, class TileB> struct BlockSums {
    template <class At> __device__ BlockSums(const Sums &, const At &) {}
    __device__ void add(const T *, const T *, int) {}
    __device__ void store(int, int, int, int) {}
};

template <Operand OF, typename E, class TileA, class TileB>
struct BlockSums<SumsOverK<OF, E>, TileA, TileB> {
    using Tile = typename TileOf<OF, TileA, TileB>::Type;
    static constexpr int OUTPUTS = Tile::COLUMNS, ACROSS = OUTPUTS / 4, MOST = THREADS / ACROSS;
    static constexpr int APART = MOST < BK ? power_of_two(MOST) : BK;
    static_assert(Tile::ALONG == Rows::ALONG_K, "lines of outputs");
    static_assert(ACROSS <= THREADS, "a line needs no more threads than there are");
    static_assert((APART & (APART - 1)) == 0,
                  "the lines of a thread differ in other bits than its first one has");
    static_assert(APART * OUTPUTS * sizeof(acc_t) <= Tile::IN_TURN * Tile::SIZE * sizeof(T),
                  "the sums of a block's threads must fit where the tiles were");

    E *const to;      // null in other blocks than the first
    const int start;  // where the thread reads; -1 if it does not
    acc_t sum[4] = {};

    template <class At>
    __device__ BlockSums(const SumsOverK<OF, E> &sums, const At &at)
        : to((OF == Operand::A ? at.y : at.x) == 0 ? sums.to : nullptr),
          start(in_register(to && line() < APART ? Tile::at(line(), column()) : -1)) {}

    // Adds a stage's tile.
    __device__ void add(const T *tiles_a, const T *tiles_b, int stage) {
        if (start < 0) return;
        const T *const tile = (OF == Operand::A ? tiles_a : tiles_b) + stage * Tile::SIZE;
        UNROLL(int i = 0; i < BK; i += APART) {
            acc_t value[4];
            load_vector<4>(value, tile + Tile::further(start, i));
            UNROLL(int j = 0; j < 4; ++j) sum[j] += value[j];
        }
    }

    // Stores the sums of outputs from m0 or n0 on.
    __device__ void store(int m0, int M, int n0, int N) {
        if (!to) return;
        const int begin = OF == Operand::A ? m0 : n0, end = OF == Operand::A ? M : N;
        acc_t *const sums = reinterpret_cast<acc_t *>(stages());
        __syncthreads();  // the tiles are no longer read
        if (line() < APART) store_vector(sums + line() * OUTPUTS + column(), sum);
        __syncthreads();
        UNROLL(int first = 0; first < OUTPUTS; first += THREADS) {
            const int i = first + threadIdx.x;
            if (i >= smaller(OUTPUTS, end - begin)) break;
            acc_t total = 0;
            UNROLL(int l = 0; l < APART; ++l) total += sums[l * OUTPUTS + i];
            to[begin + i] = E(total);
        }
    }

    // The thread's first line and its outputs.
    static __device__ int line() { return threadIdx.x / ACROSS; }
    static __device__ int column() { return threadIdx.x % ACROSS * 4; }
};
