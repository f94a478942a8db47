// Products whose k is divided among blocks of many threads. Each block stores its sums; the last of
// a tile's blocks to do so adds them up in the order of k and runs the epilogue. The result does
// not depend on which block is last.
#pragma once

// In the last block of a tile, replaces its sums by those over all of k and returns true; returns
// false in the others. for_tiles(body) calls body(m, n, tile, rows, columns) for every micro-tile
// of a thread.
template <class BlockTile, class ForTiles>
__device__ __forceinline__ bool add_up(const BlockAt<BlockTile> &block, const Parts &parts,
                                       const ForTiles &for_tiles) {
    const auto at = [&](int part, int m, int n) {
        return parts.sums + part * parts.size + m * parts.stride + parts.first + n;
    };
    for_tiles([&](int m, int n, auto &tile, int rows, int columns) {
        UNROLL(int i = 0; i < TM; ++i)
            if (i < rows) store_row(at(parts.part, m + i, n), tile[i], columns);
        UNROLL(int i = 0; i < TM; ++i)
            UNROLL(int j = 0; j < TN; ++j) tile[i][j] = 0;
    });
    const int tile = (block.z / parts.count * block.all.y + block.y) * block.all.x + block.x;
    if (!last_block(parts.arrived + tile, parts.count)) return false;
    for (int part = 0; part < parts.count; ++part)
        for_tiles([&](int m, int n, auto &tile, int rows, int columns) {
            UNROLL(int i = 0; i < TM; ++i) {
                if (i >= rows) break;
                acc_t more[TN];
                load_row(more, at(part, m + i, n), columns);
                UNROLL(int j = 0; j < TN; ++j) tile[i][j] += more[j];
            }
        });
    return true;
}

// Gives a block's sums to the epilogue; if k is divided, only the last block of a tile does, with
// the sums over all parts.
template <class BlockTile, class ForTiles, class Epilogue>
__device__ __forceinline__ Block finish(const BlockAt<BlockTile> &at, const Parts &parts,
                                        const ForTiles &for_tiles, const Epilogue &epilogue, int M,
                                        int N) {
    if (parts.count == 1 || add_up(at, parts, for_tiles))
        for_tiles([&](int m, int n, const auto &tile, int rows, int columns) {
            epilogue.store(m, n, tile, rows, columns);
        });
    const BlockRows rows(M, at);
    const int n0 = at.y * BlockTile::WIDTH;
    return {rows.begin, rows.end, n0, smaller(n0 + BlockTile::WIDTH, N)};
}
