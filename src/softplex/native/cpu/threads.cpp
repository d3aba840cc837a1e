// The one pool of worker threads behind share(): who does which piece, how workers wait, what a fork leaves behind.
// What a piece computes, how a call is cut into pieces and how many threads it deserves are decided elsewhere.
//
// The pool is never destroyed: it is constant-initialised and has no destructor, so share() works before, during and
// after the static constructors and destructors of others, and workers may still wait when the process ends.
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <new>
#include <thread>
#include <type_traits>

#include "float_mode.h"

namespace softplex {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr int MAX_THREADS = 256;
constexpr std::size_t CACHE_LINE = 128;  // two lines of x86, which fetches them in pairs; one of Apple's cores
constexpr std::size_t LEAST_STACK = std::size_t{1} << 20;  // musl gives 128 KiB if not asked
constexpr microseconds SPIN{150};      // how long a thread spins before it sleeps, or naps: for a worker the way from a call to the next
constexpr microseconds PURE_SPIN{10};  // how much of that without offering the CPU to others
constexpr microseconds SHORTEST_NAP{20};
constexpr microseconds LONGEST_NAP{1000};
constexpr milliseconds ASK_EVERY{20};
constexpr milliseconds RETRY_AFTER{1000};  // when the system last refused a thread

// The processor ---------------------------------------------------------------------------------------------------

inline void pause_processor() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#endif
}

// Linux on a virtual machine takes idle processors for preempted ones and wakes a worker on that of the caller, where it
// comes when the call is over. So a worker is forbidden the processor of whoever wakes it, for the moment of the wake.
class WakeElsewhere {
public:
#if defined(__linux__)
    void name_sleeper() { sleeper_ = static_cast<pid_t>(syscall(SYS_gettid)); }

    void before_wake() {
        const int here = sched_getcpu();
        if (here < 0 || here >= CPU_SETSIZE || sched_getaffinity(sleeper_, sizeof allowed_, &allowed_) != 0) return;
        cpu_set_t elsewhere = allowed_;
        CPU_CLR(static_cast<std::size_t>(here), &elsewhere);
        is_kept_away_ = CPU_COUNT(&elsewhere) > 0 && sched_setaffinity(sleeper_, sizeof elsewhere, &elsewhere) == 0;
    }

    void after_wake() {
        if (is_kept_away_) sched_setaffinity(0, sizeof allowed_, &allowed_);
        is_kept_away_ = false;
    }

private:
    pid_t sleeper_ = 0;
    bool is_kept_away_ = false;
    cpu_set_t allowed_{};
#else
    void name_sleeper() {}
    void before_wake() {}
    void after_wake() {}
#endif
};

bool has_one_processor() {
#if defined(__linux__)
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed) == 1;
#endif
    return std::thread::hardware_concurrency() == 1;
}

// The pool --------------------------------------------------------------------------------------------------------

// The gate is one word: the number of the call (high 32 bits), its threads (0: closed) and the workers attached (low
// 16). A worker reads the call, and takes pieces of it, only while attached, and attaches by a compare-and-swap that
// fails on a closed gate. The caller closes the gate when no piece is left and returns when nobody is attached. So a
// late worker finds the gate closed and is not waited for, and none can meet a later call with an earlier one's state:
// the call changes only while the gate is closed and nobody attached. The number of the call merely keeps a worker
// that found no piece left from attaching again and again; that it wraps does no harm.
using Gate = std::uint64_t;
constexpr Gate ATTACHED = 0xFFFF;
constexpr int THREADS_SHIFT = 16;
constexpr Gate OPEN = Gate{0xFFFF} << THREADS_SHIFT;
constexpr int NUMBER_SHIFT = 32;

constexpr Gate open_gate(std::uint32_t number, int threads) {
    return Gate{number} << NUMBER_SHIFT | static_cast<Gate>(threads) << THREADS_SHIFT;
}
constexpr std::uint32_t number_of(Gate gate) { return static_cast<std::uint32_t>(gate >> NUMBER_SHIFT); }
constexpr int threads_of(Gate gate) { return static_cast<int>((gate & OPEN) >> THREADS_SHIFT); }

struct SharedCall {
    Index count = 0;
    int threads = 0;
    Work work = nullptr;
    void* state = nullptr;
    bool from_end = false;
    FloatMode float_mode = 0;  // the caller's, or results would depend on who does which piece
};

struct alignas(CACHE_LINE) Worker {
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t woken = PTHREAD_COND_INITIALIZER;
    std::atomic<bool> asleep{false};
    WakeElsewhere wake_elsewhere;  // guarded by the mutex
};

// The pieces that a thread takes first. Those of a like call are then where its caches have them.
struct alignas(CACHE_LINE) Portion {
    std::atomic<Index> next{0};
};

struct Pool {
    alignas(CACHE_LINE) std::atomic<Gate> gate{0};
    Portion portions[MAX_THREADS];
    alignas(CACHE_LINE) std::atomic<int> next_to_wake{0};
    alignas(CACHE_LINE) SharedCall call;
    std::atomic<bool> spinning_pays{false};
    alignas(CACHE_LINE) std::atomic<bool> busy{false};
    // Whoever made the pool busy owns the rest.
    std::uint32_t number = 0;
    int workers_made = 0;
    bool was_refused = false;
    Clock::time_point refused_at{};
};
static_assert(std::is_trivially_destructible_v<Pool> && std::is_trivially_destructible_v<Worker>);

Pool pool;
Worker workers[MAX_THREADS];  // by slot; slot 0 is the caller, and unused

// Fork: the child has no workers, and another thread may have been anywhere in the pool. Its only thread starts
// afresh, in place. If that thread is itself inside share() (a signal handler that forks while `ask` runs), it finds an
// empty call, stops, and sees by this count that it cannot vouch for the pieces of others.
int forks = 0;

void start_afresh() {
    const int perhaps_used = std::min(pool.workers_made + 2, MAX_THREADS);
    for (int slot = 1; slot < perhaps_used; ++slot) new (&workers[slot]) Worker;
    new (&pool) Pool;
    ++forks;
}

// Registered when the library is loaded, never during a call: a lock for "once" could itself be held at the fork.
const bool forks_are_noticed = pthread_atfork(nullptr, nullptr, start_afresh) == 0;

// Waiting ---------------------------------------------------------------------------------------------------------

// Spins until ready() or the time is up, and says whether it is ready. Yields after a while, lest more threads than
// processors starve one another.
template <class Ready>
bool spin_until(Ready ready) {
    if (ready()) return true;
    if (!pool.spinning_pays.load(std::memory_order_relaxed)) return false;
    const auto start = Clock::now();
    for (;;) {
        for (int i = 0; i < 32; ++i) {
            pause_processor();
            if (ready()) return true;
        }
        const auto waited = Clock::now() - start;
        if (waited > SPIN) return false;
        if (waited > PURE_SPIN) sched_yield();
    }
}

// Asks now and then whether to give up; never again once told so, because the answer may have raised an exception.
class Watch {
public:
    explicit Watch(const Interrupt& interrupt) : interrupt_(interrupt) {
        if (interrupt_.ask == nullptr) return;
        const bool goes_on = interrupt_.asked != nullptr && *interrupt_.asked != 0;
        if (goes_on)
            asked_ = Clock::time_point(std::chrono::duration_cast<Clock::duration>(std::chrono::nanoseconds(*interrupt_.asked)));
        else
            remember(Clock::now());
    }

    bool says_stop() {
        if (stopped_ || interrupt_.ask == nullptr) return stopped_;
        const auto now = Clock::now();
        if (now - asked_ < ASK_EVERY) return false;
        remember(now);
        stopped_ = interrupt_.ask(interrupt_.state);
        return stopped_;
    }

    bool stopped() const { return stopped_; }

private:
    void remember(Clock::time_point now) {
        asked_ = now;
        if (interrupt_.asked == nullptr) return;
        *interrupt_.asked = std::chrono::duration_cast<std::chrono::nanoseconds>(now.time_since_epoch()).count();
    }

    const Interrupt& interrupt_;
    Clock::time_point asked_{};
    bool stopped_ = false;
};

// Sleep and wake cannot miss each other: a worker says that it sleeps and then looks at the gate, a caller opens the
// gate and then looks who sleeps, all in the one order of seq_cst.
bool is_offered(int slot, std::uint32_t served) {
    const Gate gate = pool.gate.load(std::memory_order_seq_cst);
    return slot < threads_of(gate) && number_of(gate) != served;
}

void sleep_until_offered(Worker& worker, int slot, std::uint32_t served) {
    pthread_mutex_lock(&worker.mutex);
    worker.wake_elsewhere.name_sleeper();
    worker.asleep.store(true, std::memory_order_seq_cst);
    while (worker.asleep.load(std::memory_order_relaxed) && !is_offered(slot, served))
        pthread_cond_wait(&worker.woken, &worker.mutex);
    worker.asleep.store(false, std::memory_order_relaxed);
    worker.wake_elsewhere.after_wake();
    pthread_mutex_unlock(&worker.mutex);
}

bool wake_if_asleep(Worker& worker) {
    if (!worker.asleep.load(std::memory_order_seq_cst)) return false;
    pthread_mutex_lock(&worker.mutex);
    const bool was_asleep = worker.asleep.exchange(false, std::memory_order_relaxed);
    if (was_asleep) worker.wake_elsewhere.before_wake();
    pthread_mutex_unlock(&worker.mutex);
    if (was_asleep) pthread_cond_signal(&worker.woken);
    return was_asleep;
}

// Waking costs microseconds, so all that work share it: the caller wakes one before each piece of its own, and each
// worker two when it comes, so that their number doubles.
void wake_one_more() {
    const int threads = pool.call.threads;
    while (pool.next_to_wake.load(std::memory_order_relaxed) < threads) {
        const int slot = pool.next_to_wake.fetch_add(1, std::memory_order_relaxed);
        if (slot >= threads || wake_if_asleep(workers[slot])) return;
    }
}

// Pieces ----------------------------------------------------------------------------------------------------------

Index portion_begin(const SharedCall& call, int slot) {
    return call.count / call.threads * slot + std::min<Index>(call.count % call.threads, slot);
}

// A piece that nobody has, of the slot's own portion or else of another's; the call's count if none is left. Counters count
// upwards whichever end a portion is begun at.
Index next_piece(const SharedCall& call, int slot) {
    for (int turn = 0; turn < call.threads; ++turn) {
        const int owner = (slot + turn) % call.threads;
        const Index end = portion_begin(call, owner + 1);
        std::atomic<Index>& next = pool.portions[owner].next;
        if (next.load(std::memory_order_relaxed) >= end) continue;
        const Index piece = next.fetch_add(1, std::memory_order_relaxed);
        if (piece < end) return call.from_end ? end - 1 - (piece - portion_begin(call, owner)) : piece;
    }
    return call.count;
}

// Does one piece that nobody has; false if none is left. The gate, not these counters, orders memory.
bool do_next_piece(int slot) noexcept {
    const SharedCall& call = pool.call;
    const Index piece = next_piece(call, slot);
    if (piece >= call.count) return false;
    wake_one_more();
    call.work(call.state, piece, slot);
    return true;
}

bool do_all_alone(Index count, bool from_end, Work work, void* state, const Interrupt& interrupt) noexcept {
    if (count == 1 && interrupt.asked == nullptr) {
        work(state, 0, 0);
        return true;
    }
    Watch watch(interrupt);
    for (Index piece = 0; piece < count; ++piece) {
        if (watch.says_stop()) return false;
        work(state, from_end ? count - 1 - piece : piece, 0);
    }
    return true;
}

// Workers ---------------------------------------------------------------------------------------------------------

bool attach(int slot, std::uint32_t& served) {
    Gate gate = pool.gate.load(std::memory_order_relaxed);
    while (slot < threads_of(gate) && number_of(gate) != served) {
        if (pool.gate.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire, std::memory_order_relaxed)) {
            served = number_of(gate);
            return true;
        }
    }
    return false;
}

void detach() { pool.gate.fetch_sub(1, std::memory_order_release); }

void serve(int slot) {
    set_float_mode(pool.call.float_mode);
    wake_one_more();
    while (do_next_piece(slot)) {
    }
}

// A thread that has yet to destroy something of a library keeps dlclose from unmapping it: workers run its code.
struct LibraryHold {
    bool held = true;
    ~LibraryHold() { held = false; }
};
thread_local LibraryHold library_hold;

void* live_as_worker(void* argument) {
    Worker& self = *static_cast<Worker*>(argument);
    const int slot = static_cast<int>(&self - workers);
    std::uint32_t served = 0;
    library_hold.held = true;
    for (;;) {
        if (attach(slot, served)) {
            serve(slot);
            detach();
        }
        if (!spin_until([&] { return is_offered(slot, served); })) sleep_until_offered(self, slot, served);
    }
    return nullptr;
}

// All that is sent to the process goes to other threads (Ctrl-C: Python's main thread); a fault of a worker's own
// still reaches its handler (faulthandler).
sigset_t signals_for_others() {
    sigset_t signals;
    sigfillset(&signals);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&signals, fault);
    return signals;
}

bool start_detached(Worker& worker, pthread_attr_t& attributes) {
    std::size_t stack = 0;
    if (pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) != 0) return false;
    if (pthread_attr_getstacksize(&attributes, &stack) != 0) return false;
    if (stack < LEAST_STACK && pthread_attr_setstacksize(&attributes, LEAST_STACK) != 0) return false;
    pthread_t thread;
    return pthread_create(&thread, &attributes, live_as_worker, &worker) == 0;
}

// A thread inherits the signals blocked, so the caller blocks them meanwhile: not one can slip in.
bool start_worker(Worker& worker) {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    const sigset_t blocked = signals_for_others();
    sigset_t before;
    bool started = false;
    if (pthread_sigmask(SIG_BLOCK, &blocked, &before) == 0) {
        started = start_detached(worker, attributes);
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }
    pthread_attr_destroy(&attributes);
    return started;
}

// How many threads there are for a call that asks for so many, after making those that lack.
int make_workers(int threads) {
    if (pool.workers_made + 1 >= threads) return threads;
    if (!pool.was_refused || Clock::now() - pool.refused_at > RETRY_AFTER) {
        pool.spinning_pays.store(!has_one_processor(), std::memory_order_relaxed);
        while (pool.workers_made + 1 < threads && start_worker(workers[pool.workers_made + 1]))
            ++pool.workers_made;
        pool.was_refused = pool.workers_made + 1 < threads;
        if (pool.was_refused) pool.refused_at = Clock::now();
    }
    return std::min(threads, pool.workers_made + 1);
}

// The caller ------------------------------------------------------------------------------------------------------

void begin_call(Index count, int threads, bool from_end, Work work, void* state) {
    pool.call = SharedCall{count, threads, work, state, from_end, float_mode()};
    for (int slot = 0; slot < threads; ++slot)
        pool.portions[slot].next.store(portion_begin(pool.call, slot), std::memory_order_relaxed);
    pool.next_to_wake.store(1, std::memory_order_relaxed);
    pool.gate.store(open_gate(++pool.number, threads), std::memory_order_seq_cst);
}

void start_no_more_pieces() {
    for (int slot = 0; slot < pool.call.threads; ++slot)
        pool.portions[slot].next.store(pool.call.count, std::memory_order_relaxed);
}

bool nobody_is_attached() { return (pool.gate.load(std::memory_order_acquire) & ATTACHED) == 0; }

// Spins, then naps for an eighth of the time waited so far: long pieces need no exact end, and no one to wake us.
void wait_for_begun_pieces(Watch& watch) {
    if (spin_until(nobody_is_attached)) return;
    const auto start = Clock::now();
    while (!nobody_is_attached()) {
        const auto nap = std::chrono::duration_cast<microseconds>((Clock::now() - start) / 8);
        std::this_thread::sleep_for(std::clamp(nap, SHORTEST_NAP, LONGEST_NAP));
        watch.says_stop();
    }
}

bool do_with_workers(Index count, int threads, bool from_end, Work work, void* state, const Interrupt& interrupt) noexcept {
    const int forks_before = forks;
    Watch watch(interrupt);
    begin_call(count, threads, from_end, work, state);
    while (!watch.says_stop() && do_next_piece(0)) {
    }
    if (watch.stopped()) start_no_more_pieces();
    pool.gate.fetch_and(~OPEN, std::memory_order_relaxed);
    wait_for_begun_pieces(watch);
    return !watch.stopped() && forks == forks_before;
}

}  // namespace

bool share(Index count, int threads, bool from_end, Work work, void* state, const Interrupt& interrupt) {
    const int wanted = static_cast<int>(std::min<Index>(std::min(threads, MAX_THREADS), count));
    // Busy also when a piece calls share(): then the pool is its own call's.
    if (wanted < 2 || !forks_are_noticed || pool.busy.exchange(true, std::memory_order_acquire))
        return do_all_alone(count, from_end, work, state, interrupt);
    const int there_are = make_workers(wanted);
    const bool is_done = there_are < 2 ? do_all_alone(count, from_end, work, state, interrupt)
                                       : do_with_workers(count, there_are, from_end, work, state, interrupt);
    pool.busy.store(false, std::memory_order_release);
    return is_done;
}

}  // namespace softplex
