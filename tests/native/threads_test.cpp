// Stress of share(): a program of its own, that exits with 0 if all is well. With "--times" it prints what calls cost.
//
//   g++ -std=c++17 -O2 -pthread -I src/softplex/native/cpu tests/native/threads_test.cpp src/softplex/native/cpu/threads.cpp
//
// Also meant for -fsanitize=thread (scaled down, without the tests that fork) and -fsanitize=address,undefined.
#include "threads.h"

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
// A forked child has lost the threads that owned some memory of libc, and would report it.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace {

using softplex::Index;
using softplex::Interrupt;
using softplex::share;
using Clock = std::chrono::steady_clock;

#if defined(__SANITIZE_THREAD__)
constexpr bool UNDER_TSAN = true;
#else
constexpr bool UNDER_TSAN = false;
#endif
#if defined(__SANITIZE_ADDRESS__)
constexpr bool UNDER_ASAN = true;
#else
constexpr bool UNDER_ASAN = false;
#endif
constexpr int SCALE = UNDER_TSAN ? 20 : 1;
constexpr int MOST_THREADS = 300;

std::atomic<int> failures{0};

void check(bool holds, const char* what) {
    if (holds) return;
    failures.fetch_add(1);
    std::fprintf(stderr, "FAILED: %s\n", what);
}

double microseconds_since(Clock::time_point start) {
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

void compute_for(double microseconds) {
    const auto start = Clock::now();
    while (microseconds_since(start) < microseconds) {
    }
}

// Plain memory on purpose: a sanitizer, or a wrong count, shows a piece done twice, unseen or outside its call.
struct Tally {
    int threads = 1;
    Index first = 0;
    std::vector<int> done;
    std::vector<Index> inputs;
    std::vector<Index> outputs;
    std::vector<std::atomic<int>> users_of_slot;
    std::atomic<bool> slot_is_wrong{false};

    Tally() : users_of_slot(MOST_THREADS) {}

    void prepare(Index count, int at_most, Index number) {
        threads = at_most;
        first = number;
        const auto size = static_cast<std::size_t>(count);
        done.assign(size, 0);
        inputs.resize(size);
        outputs.assign(size, -1);
        for (std::size_t i = 0; i < size; ++i) inputs[i] = number + static_cast<Index>(i);
    }

    bool is_right() const {
        for (std::size_t i = 0; i < done.size(); ++i)
            if (done[i] != 1 || outputs[i] != 2 * (first + static_cast<Index>(i))) return false;
        return !slot_is_wrong.load();
    }
};

void tally_piece(void* state, Index piece, int slot) {
    Tally& tally = *static_cast<Tally*>(state);
    if (slot < 0 || slot >= tally.threads) {
        tally.slot_is_wrong.store(true);
        return;
    }
    auto& users = tally.users_of_slot[static_cast<std::size_t>(slot)];
    if (users.fetch_add(1, std::memory_order_relaxed) != 0) tally.slot_is_wrong.store(true);
    const auto i = static_cast<std::size_t>(piece);
    ++tally.done[i];
    tally.outputs[i] = 2 * tally.inputs[i];
    users.fetch_sub(1, std::memory_order_relaxed);
}

// Returns whether every call did every piece once.
bool call_back_to_back(int calls, unsigned seed, int most_threads) {
    Tally tally;
    unsigned random = seed;
    bool all_right = true;
    for (int call = 0; call < calls; ++call) {
        random = random * 1664525U + 1013904223U;
        const Index count = static_cast<Index>((random >> 8) % 20);
        const int threads = 1 + static_cast<int>((random >> 16) % static_cast<unsigned>(most_threads));
        tally.prepare(count, threads, call);
        all_right &= share(count, threads, call % 2 == 0, tally_piece, &tally, Interrupt{});
        all_right &= tally.is_right();
    }
    return all_right;
}

void test_back_to_back() {
    check(call_back_to_back(100000 / SCALE, 1, 2), "back to back, 2 threads");
    check(call_back_to_back(100000 / SCALE, 2, 4), "back to back, 4 threads");
    check(call_back_to_back(20000 / SCALE, 3, 16), "back to back, 16 threads");
}

void test_many_threads() {
    Tally tally;
    for (const int threads : {MOST_THREADS, 40, MOST_THREADS, 0, -3}) {
        tally.prepare(5000, std::max(threads, 1), threads);
        check(share(5000, threads, threads == 40, tally_piece, &tally, Interrupt{}) && tally.is_right(), "odd numbers of threads");
    }
    check(share(0, 4, false, tally_piece, nullptr, Interrupt{}), "no pieces");
}

// Which piece the caller does first.
Index first_of_caller(int threads, bool from_end) {
    std::atomic<Index> first{-1};
    const softplex::Work note = [](void* state, Index piece, int slot) {
        auto& noted = *static_cast<std::atomic<Index>*>(state);
        Index none = -1;
        if (slot == 0) noted.compare_exchange_strong(none, piece);
    };
    share(100, threads, from_end, note, &first, Interrupt{});
    return first.load();
}

void test_which_end() {
    check(first_of_caller(1, false) == 0 && first_of_caller(1, true) == 99, "alone from either end");
    // Another may have taken the caller's part by then.
    bool is_seen = false;
    for (int call = 0; call < 100 && !is_seen; ++call) is_seen = first_of_caller(2, true) == 49;
    check(is_seen && first_of_caller(2, false) <= 50, "one's part from its end");
}

void test_sleeps_between() {
    bool all_right = true;
    for (int i = 0; i < 400 / SCALE; ++i) {
        std::this_thread::sleep_for(std::chrono::microseconds(i));
        all_right &= call_back_to_back(3, static_cast<unsigned>(i), 4);
    }
    check(all_right, "calls of sleeping workers");
}

void test_several_callers() {
    std::vector<std::thread> callers;
    for (unsigned seed = 0; seed < 4; ++seed)
        callers.emplace_back([seed] { check(call_back_to_back(30000 / SCALE, seed, 4), "several callers"); });
    for (auto& caller : callers) caller.join();
}

void nest(void* state, Index, int) {
    Tally tally;
    tally.prepare(7, 3, 5);
    if (!share(7, 3, false, tally_piece, &tally, Interrupt{}) || !tally.is_right())
        static_cast<std::atomic<int>*>(state)->fetch_add(1);
}

void test_nested() {
    std::atomic<int> wrong{0};
    for (int i = 0; i < 2000 / SCALE; ++i) share(10, 3, false, nest, &wrong, Interrupt{});
    check(wrong.load() == 0, "nested calls");
}

// Interrupt -------------------------------------------------------------------------------------------------------

struct Interrupted {
    pthread_t caller = pthread_self();
    Clock::time_point asked = Clock::now();
    int times_asked = 0;
    int stop_at = 1;
    bool asked_rightly = true;
    std::atomic<bool> stopped{false};
    std::atomic<int> begun{0};
    std::atomic<int> ended{0};
    double piece = 500;
};

bool ask(void* state) {
    Interrupted& it = *static_cast<Interrupted*>(state);
    it.asked_rightly &= pthread_equal(it.caller, pthread_self()) != 0 && microseconds_since(it.asked) >= 19900;
    it.asked_rightly &= !it.stopped.load();
    it.asked = Clock::now();
    it.stopped.store(++it.times_asked == it.stop_at);
    return it.stopped.load();
}

void long_piece(void* state, Index, int) {
    Interrupted& it = *static_cast<Interrupted*>(state);
    it.begun.fetch_add(1);
    compute_for(it.piece);
    it.ended.fetch_add(1);
}

void interrupt_with(int threads, int stop_at) {
    Interrupted it;
    it.stop_at = stop_at;
    const bool is_done = share(1000000, threads, false, long_piece, &it, Interrupt{ask, &it});
    check(!is_done, "an interrupt returns false");
    check(it.begun.load() == it.ended.load(), "pieces begun are waited for");
    check(it.asked_rightly && it.times_asked == stop_at, "asked by the caller, every 20 ms, until told to stop");
    check(microseconds_since(it.asked) < 500e3, "an interrupt stops soon");
    const int ended = it.ended.load();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    check(it.begun.load() == ended, "no piece begins after an interrupt");
}

void caller_leaves_early(void* state, Index, int slot) {
    Interrupted& it = *static_cast<Interrupted*>(state);
    it.begun.fetch_add(1);
    if (slot == 0)
        while (it.begun.load() < 2) std::this_thread::yield();
    else
        compute_for(150e3);
    it.ended.fetch_add(1);
}

void test_interrupt() {
    for (const int threads : {1, 2, 4}) interrupt_with(threads, 3);
    Interrupted never;
    never.stop_at = -1;
    check(share(200, 2, true, long_piece, &never, Interrupt{ask, &never}), "asked and not stopped");
    check(never.ended.load() == 200 && never.asked_rightly, "all done when not stopped");
    Interrupted waiting;
    check(!share(2, 2, false, caller_leaves_early, &waiting, Interrupt{ask, &waiting}), "asked while waiting for others");
    check(waiting.ended.load() == 2 && waiting.times_asked == 1, "waiting goes on after an interrupt");
    check(call_back_to_back(1000, 4, 4), "calls after an interrupt");
}

// What a worker inherits ------------------------------------------------------------------------------------------

struct Setting {
    std::atomic<int> begun{0};
    std::atomic<int> wrong{0};
};

// Holds each thread until both have come, so that a worker is among them.
void look_at_setting(void* state, Index, int slot) {
    Setting& setting = *static_cast<Setting*>(state);
    setting.begun.fetch_add(1);
    while (setting.begun.load() < 2) std::this_thread::yield();
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    const bool is_deaf = sigismember(&blocked, SIGINT) == 1 && sigismember(&blocked, SIGTERM) == 1;
    if (is_deaf != (slot != 0)) setting.wrong.fetch_add(1);
    volatile float one = 1.0F;
    volatile float tiny = 1e-30F;
    if (!(one + tiny > 1.0F)) setting.wrong.fetch_add(1);
}

void test_setting() {
    Setting setting;
    fesetround(FE_UPWARD);
    share(2, 2, false, look_at_setting, &setting, Interrupt{});
    fesetround(FE_TONEAREST);
    check(setting.wrong.load() == 0, "workers block signals and round as the caller does");
}

// Processes -------------------------------------------------------------------------------------------------------

// Runs the child's part and says whether it ended well, within a minute.
template <class Part>
bool child_is_well(Part part) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        part();
    }
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void test_fork_while_others_work() {
    std::atomic<bool> enough{false};
    std::vector<std::thread> callers;
    for (unsigned seed = 0; seed < 2; ++seed)
        callers.emplace_back([seed, &enough] {
            while (!enough.load()) check(call_back_to_back(100, seed, 4), "calls beside a fork");
        });
    for (unsigned i = 0; i < 100; ++i)
        check(child_is_well([i] { _exit(call_back_to_back(300, i, 4) ? 0 : 1); }), "calls in a forked child");
    enough.store(true);
    for (auto& caller : callers) caller.join();
    check(child_is_well([] {
              const bool is_well = child_is_well([] { _exit(call_back_to_back(100, 9, 3) ? 0 : 1); });
              _exit(is_well && call_back_to_back(100, 8, 3) ? 0 : 1);
          }),
          "a child's child");
}

// The child comes back from `ask` into a call whose workers it has not got.
bool fork_and_go_on(void* state) {
    pid_t* child = static_cast<pid_t*>(state);
    if (*child < 0) *child = fork();
    if (*child == 0) alarm(60);
    return false;
}

void test_fork_within_a_call() {
    Interrupted work;
    pid_t child = -1;
    std::fflush(nullptr);
    const bool is_done = share(200, 2, false, [](void*, Index, int) { compute_for(500); }, &work, {fork_and_go_on, &child});
    if (child == 0) _exit(!is_done && call_back_to_back(100, 1, 3) ? 0 : 1);
    int status = 1;
    waitpid(child, &status, 0);
    check(is_done && WIFEXITED(status) && WEXITSTATUS(status) == 0, "a fork within a call");
}

void share_at_exit() {
    if (!call_back_to_back(100, 6, 4)) _exit(1);
}

struct SharesWhenDestroyed {
    ~SharesWhenDestroyed() { share_at_exit(); }
};

void test_exit_while_workers_spin() {
    for (unsigned i = 0; i < 50; ++i)
        check(child_is_well([i] {
                  static SharesWhenDestroyed last;
                  std::atexit(share_at_exit);
                  std::exit(call_back_to_back(20, i, 4) ? 0 : 1);
              }),
              "exit while workers spin");
}

void test_threads_that_cannot_be_had() {
    check(child_is_well([] {
              rlimit limit{};
              getrlimit(RLIMIT_AS, &limit);
              limit.rlim_cur = rlim_t{400} << 20;  // room for some stacks, not for all
              setrlimit(RLIMIT_AS, &limit);
              bool all_right = true;
              for (int i = 0; i < 20; ++i) {
                  Tally tally;
                  tally.prepare(3000, 256, i);
                  all_right &= share(3000, 256, false, tally_piece, &tally, Interrupt{}) && tally.is_right();
              }
              _exit(all_right ? 0 : 1);
          }),
          "threads that cannot be had");
}

// Times -----------------------------------------------------------------------------------------------------------

void compute_piece(void* state, Index, int) { compute_for(*static_cast<double*>(state)); }

void do_nothing(void*, Index, int) {}

// The median and the ninth decile, in microseconds.
void print_time(const char* what, Index count, int threads, double piece, double pause) {
    std::vector<double> times;
    for (int i = 0; i < (pause > 0 ? 500 : 20000); ++i) {
        if (pause > 0) std::this_thread::sleep_for(std::chrono::duration<double, std::micro>(pause));
        const auto start = Clock::now();
        share(count, threads, false, piece > 0 ? compute_piece : do_nothing, &piece, Interrupt{});
        times.push_back(microseconds_since(start));
    }
    std::sort(times.begin(), times.end());
    std::printf("%-52s %8.2f %8.2f\n", what, times[times.size() / 2], times[times.size() * 9 / 10]);
}

void print_times() {
    std::printf("%-52s %8s %8s\n", "microseconds a call", "median", "90 %");
    print_time("1 empty piece", 1, 2, 0, 0);
    print_time("2 empty pieces, 1 thread", 2, 1, 0, 0);
    print_time("2 empty pieces, 2 threads", 2, 2, 0, 0);
    print_time("2 empty pieces, 2 threads, 5 ms apart", 2, 2, 0, 5000);
    for (const double piece : {5.0, 10.0, 20.0, 50.0, 200.0}) {
        std::printf("2 pieces of %.0f us\n", piece);
        print_time("    1 thread", 2, 1, piece, 0);
        print_time("    2 threads", 2, 2, piece, 0);
        print_time("    1 thread, 5 ms apart", 2, 1, piece, 5000);
        print_time("    2 threads, 5 ms apart", 2, 2, piece, 5000);
    }
}

}  // namespace

int main(int arguments, char** argument) {
    if (arguments > 1 && std::strcmp(argument[1], "--times") == 0) {
        print_times();
        return 0;
    }
    const auto start = Clock::now();
    test_back_to_back();
    test_sleeps_between();
    test_several_callers();
    test_nested();
    test_interrupt();
    test_setting();
    if (!UNDER_TSAN) test_fork_while_others_work();
    if (!UNDER_TSAN) test_fork_within_a_call();
    if (!UNDER_TSAN) test_exit_while_workers_spin();
    if (!UNDER_TSAN && !UNDER_ASAN) test_threads_that_cannot_be_had();
    test_many_threads();
    test_which_end();
    std::printf("%d failures, %.1f s\n", failures.load(), microseconds_since(start) / 1e6);
    return failures.load() == 0 ? 0 : 1;
}
