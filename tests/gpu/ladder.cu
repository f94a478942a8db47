// The steps of the well-known SGEMM worklog (S. Boehm, "How to Optimize a CUDA Matmul Kernel for
// cuBLAS-like Performance"), as kernels of our own: C = A B, row-major float32.
//
//   A[M, K], B[K, N], C[M, N]; the sizes are multiples of the kernel's tile (the caller's to check)
//
// Each step moves less than the one before: coalesced reads, tiles in shared memory, tiles of
// a thread in registers, vector loads, larger tiles, tiles of a warp. Grids and blocks are in
// ladder.py.

// ---- 1, 2: a thread per element of C ------------------------------------------------------------

constexpr int EDGE = 32;  // of a block's part of C

__device__ float dot(const float *A, const float *B, int N, int K, int row, int column) {
    float sum = 0;
    for (int k = 0; k < K; ++k) sum += A[row * K + k] * B[k * N + column];
    return sum;
}

// Neighbouring threads are in neighbouring rows: each reads a sector of A of its own.
extern "C" __global__ void naive(const float *A, const float *B, float *C, int N, int K) {
    const int row = blockIdx.y * EDGE + threadIdx.x % EDGE;
    const int column = blockIdx.x * EDGE + threadIdx.x / EDGE;
    C[row * N + column] = dot(A, B, N, K, row, column);
}

// Neighbouring threads are in neighbouring columns.
extern "C" __global__ void coalesced(const float *A, const float *B, float *C, int N, int K) {
    const int row = blockIdx.y * EDGE + threadIdx.x / EDGE;
    const int column = blockIdx.x * EDGE + threadIdx.x % EDGE;
    C[row * N + column] = dot(A, B, N, K, row, column);
}

// ---- 3: the same, from tiles in shared memory ---------------------------------------------------

extern "C" __global__ void shared_tiles(const float *A, const float *B, float *C, int N, int K) {
    __shared__ float a[EDGE][EDGE], b[EDGE][EDGE];
    const int i = threadIdx.x / EDGE, j = threadIdx.x % EDGE;
    const int row = blockIdx.y * EDGE + i, column = blockIdx.x * EDGE + j;
    float sum = 0;
    for (int k0 = 0; k0 < K; k0 += EDGE) {
        a[i][j] = A[row * K + k0 + j];
        b[i][j] = B[(k0 + i) * N + column];
        __syncthreads();
        for (int k = 0; k < EDGE; ++k) sum += a[i][k] * b[k][j];
        __syncthreads();  // before the next tiles replace these
    }
    C[row * N + column] = sum;
}

// ---- 4, 5: TM x TN elements of C a thread -------------------------------------------------------

template <int BM, int BN, int BK, int TM, int TN>
__device__ void thread_tiles(const float *A, const float *B, float *C, int N, int K) {
    constexpr int THREADS = BM * BN / (TM * TN);
    static_assert(BM * BK % THREADS == 0 && BK * BN % THREADS == 0);
    __shared__ float a[BM][BK], b[BK][BN];
    const int row = threadIdx.x / (BN / TN) * TM, column = threadIdx.x % (BN / TN) * TN;
    A += blockIdx.y * BM * K, B += blockIdx.x * BN;
    float sums[TM][TN] = {};
    for (int k0 = 0; k0 < K; k0 += BK) {
        for (int i = threadIdx.x; i < BM * BK; i += THREADS)
            a[i / BK][i % BK] = A[i / BK * K + k0 + i % BK];
        for (int i = threadIdx.x; i < BK * BN; i += THREADS)
            b[i / BN][i % BN] = B[(k0 + i / BN) * N + i % BN];
        __syncthreads();
        for (int k = 0; k < BK; ++k) {
            float x[TM], y[TN];
            for (int i = 0; i < TM; ++i) x[i] = a[row + i][k];
            for (int j = 0; j < TN; ++j) y[j] = b[k][column + j];
            for (int i = 0; i < TM; ++i)
                for (int j = 0; j < TN; ++j) sums[i][j] += x[i] * y[j];
        }
        __syncthreads();
    }
    C += (blockIdx.y * BM + row) * N + blockIdx.x * BN + column;
    for (int i = 0; i < TM; ++i)
        for (int j = 0; j < TN; ++j) C[i * N + j] = sums[i][j];
}

extern "C" __global__ void __launch_bounds__(512)
column_tiles(const float *A, const float *B, float *C, int N, int K) {
    thread_tiles<64, 64, 8, 8, 1>(A, B, C, N, K);
}

extern "C" __global__ void __launch_bounds__(256)
square_tiles(const float *A, const float *B, float *C, int N, int K) {
    thread_tiles<128, 128, 8, 8, 8>(A, B, C, N, K);
}

// ---- 6, 7: four floats a load and store, A transposed in shared memory --------------------------
// ---- 8: tiles of a warp between those of the block and of the thread ----------------------------

__device__ const float4 &four(const float &first) {
    return reinterpret_cast<const float4 &>(first);
}
__device__ float4 &four(float &first) { return reinterpret_cast<float4 &>(first); }

// A warp has WM x WN elements of C, in PM x PN parts; in each part a thread has TM x TN.
template <int BM, int BN, int BK, int WM, int WN, int PM, int PN, int TM, int TN>
__device__ void warp_tiles(const float *A, const float *B, float *C, int N, int K) {
    constexpr int THREADS = BM / WM * (BN / WN) * 32;
    constexpr int LANES_N = WN / PN / TN;
    static_assert(WM / PM / TM * LANES_N == 32 && BM * BK % (4 * THREADS) == 0);
    static_assert(BK * BN % (4 * THREADS) == 0 && TN % 4 == 0 && TM % 4 == 0);
    __shared__ __align__(16) float a[BK][BM], b[BK][BN];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int row = warp / (BN / WN) * WM + lane / LANES_N * TM;
    const int column = warp % (BN / WN) * WN + lane % LANES_N * TN;
    A += blockIdx.y * BM * K, B += blockIdx.x * BN;
    __align__(16) float sums[PM * TM][PN * TN] = {};
    for (int k0 = 0; k0 < K; k0 += BK) {
        for (int i = 4 * threadIdx.x; i < BM * BK; i += 4 * THREADS) {
            const float4 v = four(A[i / BK * K + k0 + i % BK]);
            a[i % BK][i / BK] = v.x, a[i % BK + 1][i / BK] = v.y;
            a[i % BK + 2][i / BK] = v.z, a[i % BK + 3][i / BK] = v.w;
        }
        for (int i = 4 * threadIdx.x; i < BK * BN; i += 4 * THREADS)
            four(b[i / BN][i % BN]) = four(B[(k0 + i / BN) * N + i % BN]);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < BK; ++k) {
            __align__(16) float x[PM * TM], y[PN * TN];
            for (int i = 0; i < PM * TM; i += 4)
                four(x[i]) = four(a[k][row + i / TM * (WM / PM) + i % TM]);
            for (int j = 0; j < PN * TN; j += 4)
                four(y[j]) = four(b[k][column + j / TN * (WN / PN) + j % TN]);
            for (int i = 0; i < PM * TM; ++i)
                for (int j = 0; j < PN * TN; ++j) sums[i][j] += x[i] * y[j];
        }
        __syncthreads();
    }
    C += (blockIdx.y * BM + row) * N + blockIdx.x * BN + column;
    for (int i = 0; i < PM * TM; ++i)
        for (int j = 0; j < PN * TN; j += 4)
            four(C[(i / TM * (WM / PM) + i % TM) * N + j / TN * (WN / PN) + j % TN]) =
                four(sums[i][j]);
}

extern "C" __global__ void __launch_bounds__(256)
vectors(const float *A, const float *B, float *C, int N, int K) {
    warp_tiles<128, 128, 8, 16, 128, 1, 1, 8, 8>(A, B, C, N, K);
}

extern "C" __global__ void __launch_bounds__(256)
larger_tiles(const float *A, const float *B, float *C, int N, int K) {
    warp_tiles<128, 128, 16, 16, 128, 1, 1, 8, 8>(A, B, C, N, K);
}

extern "C" __global__ void __launch_bounds__(128)
warp_tiles_of_parts(const float *A, const float *B, float *C, int N, int K) {
    warp_tiles<128, 128, 16, 64, 64, 1, 4, 8, 4>(A, B, C, N, K);
}
