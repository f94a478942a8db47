#include "host_threads.h"

#include <pthread.h>

#include <condition_variable>
#include <mutex>
#include <thread>

namespace gpu {
namespace {

class HostThreads {
  public:
    void run(unsigned others, const std::function<void()> &work) {
        const std::lock_guard<std::mutex> turn(turn_);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            for (; threads_ < others; ++threads_) std::thread([this] { serve(); }).detach();
            work_ = &work;
            wanted_ = others;
        }
        called_.notify_all();
        work();
        std::unique_lock<std::mutex> lock(mutex_);
        wanted_ = 0;
        done_.wait(lock, [&] { return busy_ == 0; });
    }

  private:
    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            called_.wait(lock, [&] { return wanted_ > 0; });
            --wanted_, ++busy_;
            const std::function<void()> &work = *work_;
            lock.unlock();
            work();
            lock.lock();
            if (--busy_ == 0) done_.notify_one();
        }
    }

    std::mutex turn_, mutex_;
    std::condition_variable called_, done_;
    const std::function<void()> *work_ = nullptr;
    unsigned threads_ = 0, wanted_ = 0, busy_ = 0;
};

// Never destroyed, since its threads wait until the process ends; a forked process has none of
// them and begins anew.
HostThreads *the_threads;

HostThreads &host_threads() {
    static const bool made = [] {
        the_threads = new HostThreads;
        pthread_atfork(nullptr, nullptr, [] { the_threads = new HostThreads; });
        return true;
    }();
    static_cast<void>(made);
    return *the_threads;
}

}  // namespace

void run_on_host_threads(unsigned others, const std::function<void()> &work) {
    if (others == 0) return work();
    host_threads().run(others, work);
}

}  // namespace gpu
