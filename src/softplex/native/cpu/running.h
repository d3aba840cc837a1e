// A call run from Python: without the interpreter's lock where it takes long, with an eye on Ctrl-C, and what all readers of arguments
// ask about a call. No argument is read here.
#pragma once

#include <nanobind/nanobind.h>

#include <unistd.h>

#include <cstring>

#include "axes.h"
#include "call.h"
#include "dispatch.h"
#include "settings.h"

namespace softplex {

namespace nb = nanobind;

constexpr Index UNLOCKED_FROM = 16384;  // entries; below, giving up the interpreter's lock costs more than it brings

// Whether short cuts decline every call of this thread.
inline thread_local bool only_formulas = false;

inline bool is_main_thread() {
    const nb::object main = nb::module_::import_("threading").attr("main_thread")();
    return nb::cast<unsigned long>(main.attr("ident")) == PyThread_get_thread_ident();
}

// The interpreter's lock given up for as long as a call runs. It is taken back now and then to see whether Ctrl-C was
// pressed, which concerns the main thread alone.
class Unlocked {
  public:
    explicit Unlocked(Call& call) : state_(PyEval_SaveThread()) {
        call.is_interrupted = &Unlocked::is_interrupted;
        call.interrupt_state = this;
    }
    ~Unlocked() { take_lock_back(); }
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;

  private:
    static bool is_interrupted(void* self) { return static_cast<Unlocked*>(self)->ask(); }

    // When Python ends, a daemon thread that asks for the lock is ended by it, which unwinds the stack through frames that
    // do not expect it: the thread waits for the end of the process instead.
    void take_lock_back() {
        while (!Py_IsInitialized()) pause();
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            for (;;) pause();
        }
    }

    bool ask() {
        if (!may_be_interrupted_) return false;
        take_lock_back();
        const bool answer = is_signalled();
        state_ = PyEval_SaveThread();
        return answer;
    }

    // Leaves the exception of a signal's handler set.
    bool is_signalled() {
        try {
            if (!is_asked_) may_be_interrupted_ = is_main_thread();
        } catch (nb::python_error& error) {
            error.restore();  // Python's own code is where a handler runs, too
            return true;
        }
        is_asked_ = true;
        return may_be_interrupted_ && PyErr_CheckSignals() != 0;
    }

    PyThreadState* state_;
    bool is_asked_ = false;
    bool may_be_interrupted_ = true;
};

// Blocks from this size on come new from the system each time they are asked for: glibc's allocator keeps none of them.
constexpr Index NEW_FROM = Index(1) << 25;

inline Index bytes_of(Type type) { return type == Type::float64 ? 8 : type == Type::float32 ? 4 : 2; }
inline bool is_new(Index bytes) { return bytes >= NEW_FROM; }

inline Outcome run_unlocked_if_long(Call& call, Index entries) {
    call.last_cache = assumed_cache.load(std::memory_order_relaxed);
    if (entries <= UNLOCKED_FROM) return run(call);
    const Unlocked unlocked(call);
    return run(call);
}

inline Index product(const Index* sizes, int count) {
    Index total = 1;
    for (int axis = 0; axis < count; ++axis) total *= sizes[axis];
    return total;
}

// Whether take(row, number) holds for every number of 8 bytes, one a row, row after row.
template <class Number, class Take>
inline bool take_each(const Call& call, const Array& numbers, Take take) {
    const Index rows = product(call.shape, call.batch_axes);
    Index position[MAX_AXES] = {};
    const char* at = numbers.data;
    for (Index row = 0; row < rows; ++row) {
        Number number{};
        std::memcpy(&number, at, sizeof number);
        if (!take(row, number)) return false;
        for (int axis = call.batch_axes - 1; axis >= 0; --axis) {
            at += numbers.strides[axis];
            if (++position[axis] < call.shape[axis]) break;
            at -= numbers.strides[axis] * call.shape[axis];
            position[axis] = 0;
        }
    }
    return true;
}

// Points `array` at one number of 8 bytes a row, row after row.
inline void point_along_rows(Array& array, const Call& call, const void* data) {
    array.data = static_cast<char*>(const_cast<void*>(data));
    Index stride = static_cast<Index>(sizeof(double));
    for (int axis = call.batch_axes - 1; axis >= 0; --axis) {
        array.strides[axis] = stride;
        stride *= call.shape[axis];
    }
}

}  // namespace softplex
