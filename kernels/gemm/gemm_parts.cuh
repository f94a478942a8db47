// Products whose k is divided among blocks of many threads. Each block stores its sums; the last of
// a tile's blocks to do so adds them up in the order of k and runs the epilogue. The result does
// not depend on which block is last.
#pragma once

// In the last block of a tile, replaces its sums by those over all of k and returns true; returns
// false in the others. for_tiles(body) calls body(micro, m, n, tile, rows, columns) for micro-tile
// number `micro` of a thread. Memory holds what a thread reads again, and nobody else: by part and
// tile, then micro-tile and 16 bytes of its sums, and then by thread.
template <class BlockTile, class ForTiles>
__device__ __forceinline__ bool add_up(const BlockAt<BlockTile> &block, const Parts &parts,
                                       const ForTiles &for_tiles) {
    constexpr int SUMS = BlockTile::HEIGHT * BlockTile::WIDTH, PIECE = 16 / sizeof(acc_t);
    const int layers = block.all.z / parts.count, tiles = layers * block.all.y * block.all.x;
    const int tile = (block.z / parts.count * block.all.y + block.y) * block.all.x + block.x;
    const int own = block.z % parts.count;
    // Calls body(memory, sums) for each piece of a part's sums.
    const auto for_pieces = [&](int part, const auto &body) {
        acc_t *const sums = parts.sums + ((int64)part * tiles + tile) * SUMS;
        for_tiles([&](int micro, int, int, acc_t(&tile)[TM][TN], int, int) {
            acc_t(&pieces)[TM * TN / PIECE][PIECE] =
                reinterpret_cast<acc_t(&)[TM * TN / PIECE][PIECE]>(tile);
            UNROLL(int i = 0; i < TM * TN / PIECE; ++i) {
                const int place = (micro * TM * TN / PIECE + i) * BlockTile::THREADS + threadIdx.x;
                body(sums + place * PIECE, pieces[i]);
            }
        });
    };
    for_pieces(own, [](acc_t *memory, acc_t(&sums)[PIECE]) {
        store_vector(memory, sums);
        UNROLL(int j = 0; j < PIECE; ++j) sums[j] = 0;
    });
    if (!last_block(parts.arrived + tile, parts.count)) return false;
    NO_UNROLL(int part = 0; part < parts.count; ++part)
        for_pieces(part, [](const acc_t *memory, acc_t(&sums)[PIECE]) {
            acc_t more[PIECE];
            load_vector(more, memory);
            UNROLL(int j = 0; j < PIECE; ++j) sums[j] += more[j];
        });
    return true;
}

// The block's place, and its thread's number, computed anew: what is needed before the main loop
// and after it would have a register in it.
template <class BlockTile>
__device__ __forceinline__ BlockAt<BlockTile> anew(const BlockAt<BlockTile> &at) {
    if (at.before < 0) return at;  // it is in special registers
    int block;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(block));
    return at.all.template at<BlockTile>(block - at.before, at.before);
}
__device__ __forceinline__ int thread_anew() {
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

// Gives a block's sums to the epilogue; if k is divided, only the last block of a tile does, with
// the sums over all parts.
template <class BlockTile, class ForTiles, class Epilogue>
__device__ __forceinline__ Block finish(const BlockAt<BlockTile> &at, const Parts &parts,
                                        const ForTiles &for_tiles, const Epilogue &epilogue, int M,
                                        int N) {
    const bool stored = parts.count == 1 || add_up(at, parts, for_tiles);
    if (stored)
        for_tiles([&](int, int m, int n, const auto &tile, int rows, int columns) {
            epilogue.store(m, n, tile, rows, columns);
        });
    const BlockRows rows(M, at);
    const int n0 = at.y * BlockTile::WIDTH;
    return {rows.begin, rows.end, n0, smaller(n0 + BlockTile::WIDTH, N), stored};
}
