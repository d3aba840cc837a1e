// The Python module softplex.native._cpu: NumPy arrays in, a Call for the kernels out. What could crash the process is
// refused here; what the arguments of a map mean is checked in Python, and nothing is computed.
#include <nanobind/nanobind.h>
#include <numpy/arrayobject.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "axes.h"
#include "call.h"
#include "dispatch.h"

namespace nb = nanobind;

namespace softplex {
namespace {

constexpr Index UNLOCKED_FROM = 16384;  // entries; below, giving up the interpreter's lock costs more than it brings

std::atomic<int> thread_count{1};
std::atomic<int> bfloat16_number{-1};
thread_local bool only_formulas = false;

PyArrayObject* array_of(PyObject* object) { return reinterpret_cast<PyArrayObject*>(object); }

[[noreturn]] void refuse(const char* name, const std::string& why) {
    throw nb::value_error((std::string(name) + " " + why).c_str());
}

// --- Running a call -------------------------------------------------------------------------------------------------

bool is_main_thread() {
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
    ~Unlocked() { PyEval_RestoreThread(state_); }
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;

  private:
    static bool is_interrupted(void* self) { return static_cast<Unlocked*>(self)->ask(); }

    bool ask() {
        if (!may_be_interrupted_) return false;
        PyEval_RestoreThread(state_);
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

Outcome run_unlocked_if_long(Call& call, Index entries) noexcept {
    if (entries <= UNLOCKED_FROM) return run(call);
    const Unlocked unlocked(call);
    return run(call);
}

// --- Any call ---------------------------------------------------------------------------------------------------------

enum class Element { of_type, float64, int64, boolean };
enum class Shape { none, entries, rows };

// What a method takes and gives beside x.
struct Layout {
    Shape operand;
    Shape index;
    Shape result;
    Element element;
};

Layout layout_of(Map map, Method method) {
    const Shape of_map = map == Map::maxout ? Shape::rows : Shape::entries;
    switch (method) {
        case Method::value: return {Shape::none, Shape::none, of_map, Element::of_type};
        case Method::vjp: return {of_map, Shape::none, Shape::entries, Element::of_type};
        case Method::jvp: return {Shape::entries, Shape::none, of_map, Element::of_type};
        case Method::residual_of_index: return {Shape::none, Shape::rows, Shape::entries, Element::of_type};
        case Method::residual: return {Shape::entries, Shape::none, Shape::entries, Element::of_type};
        case Method::loss_of_index: return {Shape::none, Shape::rows, Shape::rows, Element::float64};
        case Method::loss: return {Shape::entries, Shape::none, Shape::rows, Element::float64};
        case Method::support_size:
        case Method::winner: return {Shape::none, Shape::none, Shape::rows, Element::int64};
    }
    throw nb::value_error("method is not known");
}

// Maxout has values, derivatives and a winner, a log map values and derivatives.
bool has_method(Map map, Method method) {
    const bool is_basic = method == Method::value || method == Method::vjp || method == Method::jvp;
    if (map == Map::maxout) return is_basic || method == Method::winner;
    if (map == Map::log_softmax) return is_basic;
    return method != Method::winner;
}

bool is_native(PyArrayObject* array) { return PyArray_ISNBO(PyArray_DESCR(array)->byteorder); }

bool is_of_type(PyArrayObject* array, Type type) {
    const int number = PyArray_TYPE(array);
    switch (type) {
        case Type::float64: return number == NPY_DOUBLE;
        case Type::float32: return number == NPY_FLOAT;
        case Type::float16: return number == NPY_HALF;
        case Type::bfloat16: return number == bfloat16_number.load(std::memory_order_relaxed);
    }
    return false;
}

bool holds(PyArrayObject* array, Element element, Type type) {
    if (!is_native(array)) return false;
    switch (element) {
        case Element::of_type: return is_of_type(array, type);
        case Element::float64: return PyArray_TYPE(array) == NPY_DOUBLE;
        case Element::int64: return PyTypeNum_ISSIGNED(PyArray_TYPE(array)) && PyArray_ITEMSIZE(array) == 8;
        case Element::boolean: return PyArray_TYPE(array) == NPY_BOOL;
    }
    return false;
}

const char* described(Element element) {
    switch (element) {
        case Element::of_type: return "the dtype that type names";
        case Element::float64: return "float64";
        case Element::int64: return "int64";
        case Element::boolean: return "bool";
    }
    return "";
}

// Points `array` at an ndarray whose shape is that of the call's first `axes` axes.
void point_at(Array& array, const Call& call, int axes, Element element, const char* name, PyObject* object) {
    if (!PyArray_Check(object)) refuse(name, "is not an ndarray");
    PyArrayObject* given = array_of(object);
    if (!holds(given, element, call.type)) {
        refuse(name, std::string("does not hold ") + described(element) + " in native byte order");
    }
    bool fits = PyArray_NDIM(given) == axes;
    for (int axis = 0; fits && axis < axes; ++axis) {
        fits = PyArray_DIM(given, axis) == call.shape[axis];
        array.strides[axis] = PyArray_STRIDE(given, axis);
    }
    if (!fits) refuse(name, "has the wrong shape");
    array.data = PyArray_BYTES(given);
}

void point_at_shape(Array& array, const Call& call, Shape shape, Element element, const char* name, PyObject* object) {
    if ((shape == Shape::none) != (object == Py_None)) {
        refuse(name, shape == Shape::none ? "has no meaning for this method" : "is missing");
    }
    if (shape == Shape::none) return;
    const int axes = call.batch_axes + (shape == Shape::entries ? call.row_axes : 0);
    point_at(array, call, axes, element, name, object);
}

void read_parameter(Parameter& parameter, const Call& call, const char* name, PyObject* object) {
    if (PyFloat_Check(object)) {
        parameter.fixed = PyFloat_AsDouble(object);
    } else {
        point_at(parameter.rows, call, call.batch_axes, Element::float64, name, object);
    }
}

void read_shape(Call& call, PyObject* object, int row_axes) {
    if (!PyArray_Check(object)) refuse("x", "is not an ndarray");
    PyArrayObject* x = array_of(object);
    const int axes = PyArray_NDIM(x);
    if (axes > MAX_AXES) refuse("x", "has too many axes");
    if (row_axes < 1 || row_axes > axes) refuse("row_axes", "must be at least 1 and at most the number of x's axes");
    call.row_axes = row_axes;
    call.batch_axes = axes - row_axes;
    for (int axis = 0; axis < axes; ++axis) call.shape[axis] = PyArray_DIM(x, axis);
}

template <class Enum>
Enum read_enum(int number, Enum last, const char* name) {
    if (number < 0 || number > static_cast<int>(last)) refuse(name, "is not known");
    return static_cast<Enum>(number);
}

Index product(const Index* sizes, int count) {
    Index total = 1;
    for (int axis = 0; axis < count; ++axis) total *= sizes[axis];
    return total;
}

// Whether every index names an entry of its row. The axes of the call may be merged.
bool are_indices_in_range(const Call& call) {
    const Index length = product(call.shape + call.batch_axes, call.row_axes);
    const Index rows = product(call.shape, call.batch_axes);
    Index position[MAX_AXES] = {};
    const char* at = call.index.data;
    for (Index row = 0; row < rows; ++row) {
        Index index = 0;
        std::memcpy(&index, at, sizeof index);
        if (index < 0 || index >= length) return false;
        for (int axis = call.batch_axes - 1; axis >= 0; --axis) {
            at += call.index.strides[axis];
            if (++position[axis] < call.shape[axis]) break;
            at -= call.index.strides[axis] * call.shape[axis];
            position[axis] = 0;
        }
    }
    return true;
}

void raise_unless_done(Outcome outcome) {
    if (outcome == Outcome::out_of_memory) throw std::bad_alloc();
    if (outcome == Outcome::interrupted) throw nb::python_error();
}

void run_any(int map, int method, int type, bool negated, int row_axes, int threads, double empty, nb::handle x,
             nb::handle operand, nb::handle index, nb::handle mask, nb::handle result, nb::handle temperature,
             nb::handle sink, nb::handle alpha) {
    Call call;
    call.map = read_enum(map, Map::maxout, "map");
    call.method = read_enum(method, Method::winner, "method");
    call.type = read_enum(type, Type::bfloat16, "type");
    if (!has_method(call.map, call.method)) refuse("method", "is not one that this map has");
    call.negated = negated;
    call.empty = empty;
    call.threads = threads < 1 ? 1 : threads;
    call.has_sink = !sink.is_none();

    const Layout layout = layout_of(call.map, call.method);
    read_shape(call, x.ptr(), row_axes);
    point_at_shape(call.x, call, Shape::entries, Element::of_type, "x", x.ptr());
    point_at_shape(call.operand, call, layout.operand, Element::of_type, "operand", operand.ptr());
    point_at_shape(call.index, call, layout.index, Element::int64, "index", index.ptr());
    if (!mask.is_none()) point_at_shape(call.mask, call, Shape::entries, Element::boolean, "mask", mask.ptr());
    point_at_shape(call.result, call, layout.result, layout.element, "result", result.ptr());
    if (!PyArray_ISWRITEABLE(array_of(result.ptr()))) refuse("result", "is read-only");
    read_parameter(call.temperature, call, "temperature", temperature.ptr());
    if (call.has_sink) read_parameter(call.sink, call, "sink", sink.ptr());
    read_parameter(call.alpha, call, "alpha", alpha.ptr());

    if (PyArray_SIZE(array_of(result.ptr())) == 0) return;
    const Index entries = PyArray_SIZE(array_of(x.ptr()));
    merge_axes(call);
    if (call.index.data != nullptr && !are_indices_in_range(call)) refuse("index", "names no entry of its row");
    raise_unless_done(run_unlocked_if_long(call, entries));
}

// --- The short cut ----------------------------------------------------------------------------------------------------

constexpr int DENSE = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED;

bool read_type(PyArrayObject* array, Type& type) {
    const int number = PyArray_TYPE(array);
    if (number == NPY_FLOAT) {
        type = Type::float32;
    } else if (number == NPY_DOUBLE) {
        type = Type::float64;
    } else if (number == NPY_HALF) {
        type = Type::float16;
    } else if (number == bfloat16_number.load(std::memory_order_relaxed) && number >= 0) {
        type = Type::bfloat16;
    } else {
        return false;
    }
    return is_native(array);
}

bool is_last_axis(PyObject* object, int axes) {
    if (!PyLong_Check(object)) return false;
    int overflow = 0;
    const long axis = PyLong_AsLongAndOverflow(object, &overflow);
    return overflow == 0 && (axis == -1 || axis == axes - 1);
}

// Whether the result may be written to `out` while x is read row by row.
bool can_take_result(PyObject* object, PyArrayObject* x) {
    if (!PyArray_CheckExact(object)) return false;
    PyArrayObject* out = array_of(object);
    if (!PyArray_CHKFLAGS(out, DENSE | NPY_ARRAY_WRITEABLE) || PyArray_TYPE(out) != PyArray_TYPE(x) ||
        !is_native(out) || !PyArray_SAMESHAPE(out, x)) {
        return false;
    }
    const auto from = reinterpret_cast<std::uintptr_t>(PyArray_DATA(x));
    const auto to = reinterpret_cast<std::uintptr_t>(PyArray_DATA(out));
    const auto bytes = static_cast<std::uintptr_t>(PyArray_NBYTES(x));
    return from == to || from + bytes <= to || to + bytes <= from;
}

PyObject* empty_like(PyArrayObject* x) {
    PyArray_Descr* descr = PyArray_DESCR(x);
    Py_INCREF(reinterpret_cast<PyObject*>(descr));
    return PyArray_NewFromDescr(&PyArray_Type, descr, PyArray_NDIM(x), PyArray_DIMS(x), nullptr, nullptr, 0, nullptr);
}

// Dense rows: one batch axis, one row axis.
void point_at_rows(Call& call, PyArrayObject* x, PyArrayObject* result) {
    const int axes = PyArray_NDIM(x);
    const Index length = PyArray_DIM(x, axes - 1), size = PyArray_ITEMSIZE(x);
    call.batch_axes = 1;
    call.shape[0] = product(PyArray_DIMS(x), axes - 1);
    call.shape[1] = length;
    call.x.data = PyArray_BYTES(x);
    call.result.data = PyArray_BYTES(result);
    call.x.strides[0] = call.result.strides[0] = length * size;
    call.x.strides[1] = call.result.strides[1] = size;
}

PyObject* raised(Outcome outcome) {
    if (outcome == Outcome::out_of_memory) PyErr_NoMemory();
    return nullptr;
}

PyObject* not_taken() {
    Py_INCREF(Py_None);
    return Py_None;
}

// quick(map, negated, x, axis, out): called directly, not through nanobind, since here each 10 ns count.
PyObject* quick(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "quick takes map, negated, x, axis and out");
        return nullptr;
    }
    PyObject* out = arguments[4];
    if (only_formulas || !PyArray_CheckExact(arguments[2])) return not_taken();
    PyArrayObject* x = array_of(arguments[2]);
    const int axes = PyArray_NDIM(x);
    Type type = Type::float32;
    if (axes < 1 || !PyArray_CHKFLAGS(x, DENSE) || !read_type(x, type) || !is_last_axis(arguments[3], axes)) {
        return not_taken();
    }
    const Index entries = PyArray_SIZE(x);
    const long map = PyLong_AsLong(arguments[0]);
    if (map == -1 && PyErr_Occurred()) return nullptr;
    if (entries == 0 || map < 0 || map > static_cast<long>(Map::entmax)) return not_taken();
    if (out != Py_None && !can_take_result(out, x)) return not_taken();

    PyObject* result = out;
    if (out == Py_None) {
        result = empty_like(x);
        if (result == nullptr) return nullptr;
    } else {
        Py_INCREF(out);
    }
    Call call;
    call.map = static_cast<Map>(map);
    call.type = type;
    call.negated = arguments[1] == Py_True;
    call.threads = thread_count.load(std::memory_order_relaxed);
    point_at_rows(call, x, array_of(result));
    const Outcome outcome = run_unlocked_if_long(call, entries);
    if (outcome == Outcome::done) return result;
    Py_DECREF(result);
    return raised(outcome);
}

PyMethodDef QUICK = {"quick", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&quick)), METH_FASTCALL,
                     "quick(map, negated, x, axis, out): the commonest call, or None if this is not it."};

// --- A measure of memory ----------------------------------------------------------------------------------------------

void streaming_copy(nb::handle to, nb::handle from, int threads) {
    if (!PyArray_Check(to.ptr()) || !PyArray_Check(from.ptr())) throw nb::type_error("to and from must be ndarrays");
    PyArrayObject *target = array_of(to.ptr()), *source = array_of(from.ptr());
    const bool fits = PyArray_CHKFLAGS(target, DENSE | NPY_ARRAY_WRITEABLE) && PyArray_CHKFLAGS(source, DENSE) &&
                      PyArray_TYPE(target) == NPY_FLOAT && PyArray_TYPE(source) == NPY_FLOAT &&
                      PyArray_SAMESHAPE(target, source) && is_native(target) && is_native(source);
    if (!fits) throw nb::value_error("to and from must be dense float32 arrays of one shape");
    float* data = static_cast<float*>(PyArray_DATA(target));
    const float* given = static_cast<const float*>(PyArray_DATA(source));
    const Index count = PyArray_SIZE(target);
    const nb::gil_scoped_release unlocked;
    copy(data, given, count, threads);
}

// --- The module -------------------------------------------------------------------------------------------------------

void register_bfloat16(nb::handle dtype) {
    if (!PyObject_TypeCheck(dtype.ptr(), &PyArrayDescr_Type)) throw nb::type_error("bfloat16 is not a dtype");
    const auto* descr = reinterpret_cast<PyArray_Descr*>(dtype.ptr());
    if (PyDataType_ELSIZE(descr) != 2 || !PyTypeNum_ISUSERDEF(descr->type_num)) {
        throw nb::value_error("bfloat16 is not a dtype of 2 bytes that an extension has registered");
    }
    bfloat16_number.store(descr->type_num);
}

void refuse_unknown_instructions() {
    const std::string refused = refused_instruction_set();
    if (refused.empty()) return;
    throw std::runtime_error("SOFTPLEX_INSTRUCTIONS is '" + refused + "'; this machine takes " +
                             usable_instruction_sets());
}

}  // namespace
}  // namespace softplex

NB_MODULE(_cpu, module) {
    if (PyArray_ImportNumPyAPI() < 0) throw nb::python_error();
    softplex::refuse_unknown_instructions();

    using namespace nb::literals;
    module.def("run", &softplex::run_any, "map"_a, "method"_a, "type"_a, "negated"_a, "row_axes"_a, "threads"_a,
               "empty"_a, "x"_a, "operand"_a.none(), "index"_a.none(), "mask"_a.none(), "result"_a, "temperature"_a,
               "sink"_a.none(), "alpha"_a);
    nb::object quick = nb::steal(PyCFunction_NewEx(&softplex::QUICK, nullptr, nullptr));
    if (!quick.is_valid()) throw nb::python_error();
    module.attr("quick") = quick;
    module.def("streaming_copy", &softplex::streaming_copy, "to"_a, "from_"_a, "threads"_a);
    module.def("set_threads", [](int n) { softplex::thread_count.store(n < 1 ? 1 : n); }, "n"_a);
    module.def("formulas_only", [] { return softplex::only_formulas; });
    module.def("set_formulas_only", [](bool value) { softplex::only_formulas = value; }, "value"_a);
    module.def("instruction_set", [] { return softplex::instruction_set(); });
    module.def("choose_instruction_set", &softplex::choose_instruction_set, "name"_a);
    module.def("set_bfloat16", &softplex::register_bfloat16, "dtype"_a);
}
