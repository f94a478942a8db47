// The thread pool that runs the blocks of a `cpu` launch.
//
// One job at a time: the caller and the workers take chunks of blocks from an atomic counter until
// none is left. Each takes half of its share of what is left, so that chunks are few and the last
// ones small: no thread waits long for another. Blocks are independent, so a result does not depend
// on which thread ran a block.
//
// Launches often follow each other closely, so a worker spins for a while before it sleeps; and a
// caller waits only for workers that have joined its job, not for those that are still waking up.
// Linux tends to wake a worker on the caller's own core and to leave it there, where it takes the
// caller's time: such a worker moves to another core.
//
// If the pool is busy, or the process was forked after the workers started, the caller runs its
// blocks alone. The pool is never destroyed: workers may outlive static destructors.
//
// Another library in the process may compute with OpenMP between launches, as PyTorch does.
// OpenMP's threads spin after its work, on the cores that the workers need; so then they run the
// blocks.
//
// Each thread that runs blocks keeps memory for them, since its stack may be too small.
//
// It uses POSIX threads because every first start compiles this file: <thread> and <mutex> would
// take three quarters of that time.
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

#include <atomic>
#include <new>

using OwnMemory = void *(*)(unsigned long bytes);
using RangeBody = void (*)(void *context, OwnMemory, long long begin, long long end);

namespace {

// Memory of one thread, which becomes as large as a block asks for: huge pages, if the system gives
// them, since scattered small ones evict each other from the caches.
class Memory {
  public:
    Memory() = default;
    Memory(const Memory &) = delete;
    ~Memory() { ::operator delete(begin, ALIGNMENT); }

    void *operator()(unsigned long bytes) {
        if (bytes > size) {
            ::operator delete(begin, ALIGNMENT);
            begin = nullptr, size = 0;
            const unsigned long whole = (bytes + PAGE - 1) / PAGE * PAGE;
            begin = static_cast<char *>(::operator new(whole, ALIGNMENT));
            size = whole;
#ifdef MADV_HUGEPAGE
            madvise(begin, size, MADV_HUGEPAGE);
#endif
        }
#ifdef __SANITIZE_ADDRESS__
        return begin + (size - (bytes + 63) / 64 * 64);  // it sees accesses past the end
#else
        return begin;  // blocks of all kernels take the same, which is in cache
#endif
    }

  private:
    static constexpr unsigned long PAGE = 1 << 21;
    static constexpr std::align_val_t ALIGNMENT{PAGE};
    char *begin = nullptr;
    unsigned long size = 0;
};

// The key of each thread's memory, which goes with the thread. (Not thread_local: the C library
// frees such a variable in another thread, in a way that a thread sanitizer takes for a race.)
const pthread_key_t memory_of_thread = [] {
    pthread_key_t key;
    if (pthread_key_create(&key, [](void *memory) { delete static_cast<Memory *>(memory); }))
        throw std::bad_alloc();
    return key;
}();

void *own_memory(unsigned long bytes) {
    auto *memory = static_cast<Memory *>(pthread_getspecific(memory_of_thread));
    if (!memory) pthread_setspecific(memory_of_thread, memory = new Memory);
    return (*memory)(bytes);
}

// Holds a mutex as long as it lives.
class Lock {
  public:
    explicit Lock(pthread_mutex_t &held) : mutex(held) { pthread_mutex_lock(&mutex); }
    ~Lock() { pthread_mutex_unlock(&mutex); }
    Lock(const Lock &) = delete;
    void wait(pthread_cond_t &condition) { pthread_cond_wait(&condition, &mutex); }

  private:
    pthread_mutex_t &mutex;
};

// The blocks of a launch, of which threads take chunks.
struct Chunks {
    RangeBody body;
    void *context;
    long long count;
    int threads;

    void take(std::atomic<long long> &next) const {
        for (long long begin = next; begin < count; begin = next) {
            const long long half = (count - begin) / (2LL * threads);
            const long long end = begin + (half > 1 ? half : 1);
            if (next.compare_exchange_weak(begin, end)) body(context, own_memory, begin, end);
        }
    }
};

class Pool {
  public:
    explicit Pool(int threads) : process(getpid()) {
#ifdef __linux__
        sched_getaffinity(0, sizeof allowed, &allowed);
#endif
        // If the system allows no more threads, go on with those that have started.
        for (pthread_t worker; workers < threads - 1; ++workers) {
            if (pthread_create(&worker, nullptr, start, this)) break;
            pthread_detach(worker);
        }
    }

    void run(RangeBody body, void *context, long long count) {
        if (count < 2 || workers == 0 || getpid() != process || pthread_mutex_trylock(&caller)) {
            body(context, own_memory, 0, count);
            return;
        }
        bool asleep;
        {
            Lock lock(mutex);
            job = {body, context, count, workers + 1};
            core_of_caller = core();
            next = 0;
            open = true;
            ++generation;
            asleep = sleeping > 0;
        }
        if (asleep) pthread_cond_broadcast(&wake);
        job.take(next);
        {
            Lock lock(mutex);
            open = false;
        }
        for (int turn = 0; turn < SPINS && active > 0; ++turn) relax();
        {
            Lock lock(mutex);
            while (active > 0) lock.wait(finished);
        }
        pthread_mutex_unlock(&caller);
    }

  private:
    static void *start(void *self) {
        static_cast<Pool *>(self)->work();
        return nullptr;
    }

    void work() {
        long long seen = 0;
        for (;;) {
            for (int turn = 0; turn < SPINS && generation == seen; ++turn) relax();
            int busy;
            bool joins;
            {
                Lock lock(mutex);
                ++sleeping;
                while (generation == seen) lock.wait(wake);
                --sleeping;
                seen = generation;
                busy = core_of_caller;
                joins = open;
                active += joins;
            }
            leave(busy);
            if (!joins) continue;
            job.take(next);
            Lock lock(mutex);
            if (--active == 0) pthread_cond_signal(&finished);
        }
    }

    // core(): the core that this thread runs on. leave(): moves to another allowed core.
#ifdef __linux__
    static int core() { return sched_getcpu(); }
    void leave(int busy) const {
        if (busy < 0 || busy >= CPU_SETSIZE || core() != busy || CPU_COUNT(&allowed) < 2) return;
        cpu_set_t others = allowed;
        CPU_CLR(busy, &others);
        sched_setaffinity(0, sizeof others, &others);
    }
    cpu_set_t allowed{};  // cores that the process could use when the pool was made
#else
    static int core() { return -1; }
    void leave(int) const {}
#endif

    // Some 100 microseconds of spinning: longer than Python takes between two launches. Waking a
    // thread takes up to half as long.
    static constexpr int SPINS = 5000;

    static void relax() {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }

    const pid_t process;
    int workers = 0;
    pthread_mutex_t caller = PTHREAD_MUTEX_INITIALIZER, mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t wake = PTHREAD_COND_INITIALIZER, finished = PTHREAD_COND_INITIALIZER;
    Chunks job{};
    int core_of_caller = -1;
    // On cache lines of their own: the others are written while workers poll one of them.
    alignas(64) std::atomic<long long> next{0};
    alignas(64) std::atomic<long long> generation{0};
    // Changed under the mutex.
    alignas(64) std::atomic<int> active{0};  // workers in the job
    bool open = false;                       // whether workers may still join
    int sleeping = 0;
};

// The threads of an OpenMP, by its GOMP_parallel, which GCC's, LLVM's and Intel's have.
struct OpenMP {
    using Parallel = void (*)(void (*part)(void *), void *data, unsigned threads, unsigned flags);
    using Threads = int (*)();

    struct Job {
        Chunks chunks;
        std::atomic<long long> next{0};
    };

    void run(RangeBody body, void *context, long long count) const {
        if (count < 2 || getpid() != process) {  // its threads do not survive a fork either
            body(context, own_memory, 0, count);
            return;
        }
        // Not a number of our own: in a fork, which has lost the threads, it would wait for them.
        // PyTorch's DataLoader sets its own to one there.
        const int number = threads();
        Job job{{body, context, count, number}};
        parallel(
            [](void *data) {
                static_cast<Job *>(data)->chunks.take(static_cast<Job *>(data)->next);
            },
            &job, unsigned(number), 0);
    }

    Parallel parallel;
    Threads threads;
    pid_t process;
};

Pool *pool = nullptr;
std::atomic<const OpenMP *> openmp{nullptr};

// One launch of a kernel, packed; see EXPORT_LAUNCH.
struct BoundLaunch {
    void (*function)(const char *packed, void *parallel_for);
    const char *packed;
};

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Called once, under Python's lock, before the first parallel_for.
EXPORT void start_pool(int threads) {
    if (!pool) pool = new Pool(threads);
}

// Leaves all later launches to an OpenMP, and to as many of its threads as `threads` returns.
EXPORT void use_openmp(OpenMP::Parallel parallel, OpenMP::Threads threads) {
    openmp = new OpenMP{parallel, threads, getpid()};
}

EXPORT void parallel_for(RangeBody body, void *context, long long count) {
    if (const OpenMP *shared = openmp)
        shared->run(body, context, count);
    else
        pool->run(body, context, count);
}

// Runs launches one after the other.
EXPORT void replay(const BoundLaunch *launches, long long count, void *parallel_for) {
    for (long long i = 0; i < count; ++i) launches[i].function(launches[i].packed, parallel_for);
}
