// The Python module softplex.native._cpu: NumPy arrays in, a Call for the kernels out. What could crash the process is
// refused here; what the arguments of a map mean is checked in Python, and nothing is computed.
#include <nanobind/nanobind.h>
#include <numpy/arrayobject.h>

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "axes.h"
#include "call.h"
#include "dispatch.h"
#include "exchange.h"
#include "layout.h"
#include "settings.h"
#include "xla.h"

namespace nb = nanobind;

namespace softplex {
namespace {

constexpr Index UNLOCKED_FROM = 16384;  // entries; below, giving up the interpreter's lock costs more than it brings

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

Index bytes_of(Type type) { return type == Type::float64 ? 8 : type == Type::float32 ? 4 : 2; }
bool is_new(Index bytes) { return bytes >= NEW_FROM; }

Outcome run_unlocked_if_long(Call& call, Index entries) {
    call.last_cache = assumed_cache.load(std::memory_order_relaxed);
    if (entries <= UNLOCKED_FROM) return run(call);
    const Unlocked unlocked(call);
    return run(call);
}

// --- Any call ---------------------------------------------------------------------------------------------------------

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
        // A tensor's bfloat16 come as their bits.
        case Element::of_type:
            return is_of_type(array, type) || (type == Type::bfloat16 && PyArray_TYPE(array) == NPY_USHORT);
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

// Whether take(row, number) holds for every number of 8 bytes, one a row, row after row.
template <class Number, class Take>
bool take_each(const Call& call, const Array& numbers, Take take) {
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

// Whether every index names an entry of its row. The axes of the call may be merged.
bool are_indices_in_range(const Call& call) {
    const Index length = product(call.shape + call.batch_axes, call.row_axes);
    return take_each<Index>(call, call.index, [&](Index, Index index) { return index >= 0 && index < length; });
}

void raise_unless_done(Outcome outcome) {
    if (outcome == Outcome::out_of_memory) throw std::bad_alloc();
    if (outcome == Outcome::interrupted) throw nb::python_error();
}

void run_any(int map, int method, int type, bool negated, int row_axes, int threads, double empty, nb::handle x,
             nb::handle operand, nb::handle index, nb::handle mask, nb::handle result, nb::handle temperature,
             nb::handle sink, nb::handle alpha, nb::handle scale, bool is_result_made, nb::handle scores) {
    Call call;
    call.map = read_enum(map, Map::maxout, "map");
    call.method = read_enum(method, Method::conjugate_by_alpha, "method");
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
    const Shape of_scores = takes_scores(call.method) ? Shape::entries : Shape::none;
    point_at_shape(call.scores, call, of_scores, Element::of_type, "scores", scores.ptr());
    if (!mask.is_none()) point_at_shape(call.mask, call, Shape::entries, Element::boolean, "mask", mask.ptr());
    point_at_shape(call.result, call, layout.result, layout.element, "result", result.ptr());
    if (!PyArray_ISWRITEABLE(array_of(result.ptr()))) refuse("result", "is read-only");
    read_parameter(call.temperature, call, "temperature", temperature.ptr());
    if (call.has_sink) read_parameter(call.sink, call, "sink", sink.ptr());
    read_parameter(call.alpha, call, "alpha", alpha.ptr());
    read_parameter(call.scale, call, "scale", scale.ptr());
    if (is_scaled(call) && !takes_scale(call.method)) refuse("scale", "has no meaning for this method");
    if (!is_known_from_weights(call)) refuse("method", "has no meaning for a mask, nor for a sink of this map");

    if (PyArray_SIZE(array_of(result.ptr())) == 0) return;
    const Index entries = PyArray_SIZE(array_of(x.ptr()));
    call.is_result_new = is_result_made && is_new(PyArray_NBYTES(array_of(result.ptr())));
    merge_axes(call);
    if (call.index.data != nullptr && !are_indices_in_range(call)) refuse("index", "names no entry of its row");
    raise_unless_done(run_unlocked_if_long(call, entries));
}

// --- The short cut ----------------------------------------------------------------------------------------------------
// The commonest calls, read without nanobind and without Python, since here each 10 ns count. What is not certainly
// right is declined, and is Python's to judge: a reader gives false for it and raises nothing.

// What a short cut knows of its map.
struct ShortCut {
    Map map;
    bool negated;
    bool takes_alpha;
    double alpha;  // where a call gives none
};

// Interned, as literals and keywords are: told by their address, and one that is not among them is declined.
struct Names {
    PyObject *value, *vjp, *jvp, *backward, *temperature, *where, *sink, *empty, *zero, *nan, *dtype, *alpha;
} names;

// The arrays of a call that is being read.
struct Given {
    PyArrayObject* x = nullptr;
    PyArrayObject* where = nullptr;
    PyArrayObject* out = nullptr;
    int axis = 0;
};

PyArrayObject* plain_array(PyObject* object) {
    if (!PyArray_CheckExact(object)) return nullptr;
    PyArrayObject* array = array_of(object);
    return PyArray_ISALIGNED(array) && is_native(array) ? array : nullptr;
}

// A plain array of a dtype and of the shape of x.
PyArrayObject* array_like(PyArrayObject* x, int type, PyObject* object) {
    PyArrayObject* array = plain_array(object);
    return array != nullptr && PyArray_TYPE(array) == type && PyArray_SAMESHAPE(array, x) ? array : nullptr;
}

bool read_type(PyArrayObject* array, Type& type) {
    for (const Type each : {Type::float32, Type::float64, Type::float16, Type::bfloat16}) {
        type = each;
        if (is_of_type(array, each)) return true;
    }
    return false;
}

bool read_axis(PyObject* object, int axes, int& axis) {
    if (!PyLong_Check(object)) return false;
    int overflow = 0;
    const long given = PyLong_AsLongAndOverflow(object, &overflow);
    if (overflow != 0 || given < -axes || given >= axes) return false;
    axis = static_cast<int>(given < 0 ? given + axes : given);
    return true;
}

bool read_number(PyObject* object, double& number) {
    if (PyFloat_CheckExact(object) || Py_TYPE(object) == &PyDoubleArrType_Type) {
        number = PyFloat_AsDouble(object);
        return true;
    }
    if (!PyLong_CheckExact(object)) return false;
    int overflow = 0;
    number = static_cast<double>(PyLong_AsLongAndOverflow(object, &overflow));
    return overflow == 0;
}

// The methods of short cuts by their names.
struct NamedMethod {
    PyObject* Names::*name;
    Method method;
};
constexpr NamedMethod METHODS[] = {{&Names::value, Method::value},
                                   {&Names::vjp, Method::vjp},
                                   {&Names::jvp, Method::jvp},
                                   {&Names::backward, Method::backward}};

bool read_method(PyObject* object, Method& method) {
    for (const NamedMethod& each : METHODS) {
        method = each.method;
        if (object == names.*each.name) return true;
    }
    return false;
}

bool read_empty(PyObject* object, double& empty) {
    empty = object == names.nan ? std::numeric_limits<double>::quiet_NaN() : 0.0;
    return object == names.nan || object == names.zero;
}

// Points `array` at one of the shape of x, the normalised axis last.
void point_along(Array& array, const Given& given, PyArrayObject* object) {
    int to = 0;
    for (int axis = 0; axis < PyArray_NDIM(object); ++axis) {
        if (axis != given.axis) array.strides[to++] = PyArray_STRIDE(object, axis);
    }
    array.strides[to] = PyArray_STRIDE(object, given.axis);
    array.data = PyArray_BYTES(object);
}

bool read_scores(Call& call, Given& given, PyObject* object, PyObject* axis) {
    given.x = plain_array(object);
    if (given.x == nullptr || !read_type(given.x, call.type) || PyArray_SIZE(given.x) == 0) return false;
    const int axes = PyArray_NDIM(given.x);
    if (axes > MAX_AXES || !read_axis(axis, axes, given.axis)) return false;
    for (int from = 0; from < axes; ++from) {
        if (from != given.axis) call.shape[call.batch_axes++] = PyArray_DIM(given.x, from);
    }
    call.shape[call.batch_axes] = PyArray_DIM(given.x, given.axis);
    point_along(call.x, given, given.x);
    return true;
}

bool read_operand(Call& call, const Given& given, PyObject* object) {
    if (call.method == Method::value) return object == Py_None;
    PyArrayObject* operand = array_like(given.x, PyArray_TYPE(given.x), object);
    if (operand != nullptr) point_along(call.operand, given, operand);
    return operand != nullptr;
}

bool read_where(Call& call, Given& given, PyObject* object) {
    if (object == Py_None) return true;
    given.where = array_like(given.x, NPY_BOOL, object);
    if (given.where != nullptr) point_along(call.mask, given, given.where);
    return given.where != nullptr;
}

bool read_option(Call& call, const ShortCut& known, PyObject* name, PyObject* value) {
    if (name == names.temperature) {
        return read_number(value, call.temperature.fixed) && call.temperature.fixed > 0.0 &&
               call.temperature.fixed < std::numeric_limits<double>::infinity();
    }
    if (name == names.alpha) return known.takes_alpha && read_number(value, call.alpha.fixed);
    if (name == names.sink) {
        call.has_sink = value != Py_None;
        return !call.has_sink || read_number(value, call.sink.fixed);
    }
    if (name == names.empty) return read_empty(value, call.empty);
    return name == names.dtype && value == Py_None;
}

// The options of a call; `where` among them for arrays alone.
bool read_options(Call& call, Given* given, const ShortCut& known, PyObject* options) {
    if (!PyDict_CheckExact(options)) return false;
    call.alpha.fixed = known.alpha;
    PyObject *name = nullptr, *value = nullptr;
    Py_ssize_t position = 0;
    while (PyDict_Next(options, &position, &name, &value)) {
        const bool is_where = given != nullptr && name == names.where;
        if (!(is_where ? read_where(call, *given, value) : read_option(call, known, name, value))) return false;
    }
    return call.alpha.fixed >= 1.0;
}

// The bytes among which the entries of an array lie.
struct Extent {
    std::uintptr_t begin, end;
};

Extent extent_of(PyArrayObject* array) {
    const auto data = reinterpret_cast<std::uintptr_t>(PyArray_DATA(array));
    Extent extent{data, data + static_cast<std::uintptr_t>(PyArray_ITEMSIZE(array))};
    for (int axis = 0; axis < PyArray_NDIM(array); ++axis) {
        const Index reach = PyArray_STRIDE(array, axis) * (PyArray_DIM(array, axis) - 1);
        (reach < 0 ? extent.begin : extent.end) += static_cast<std::uintptr_t>(reach);
    }
    return extent;
}

bool are_apart(PyArrayObject* one, PyArrayObject* other) {
    const Extent a = extent_of(one), b = extent_of(other);
    return a.end <= b.begin || b.end <= a.begin;
}

bool lie_alike(PyArrayObject* one, PyArrayObject* other) {
    return PyArray_DATA(one) == PyArray_DATA(other) &&
           PyArray_CompareLists(PyArray_STRIDES(one), PyArray_STRIDES(other), PyArray_NDIM(one));
}

// Whether the result may be written to `out` while x is read row by row.
bool read_out(Given& given, PyObject* object) {
    if (object == Py_None) return true;
    given.out = array_like(given.x, PyArray_TYPE(given.x), object);
    if (given.out == nullptr || !PyArray_ISWRITEABLE(given.out)) return false;
    return (lie_alike(given.out, given.x) || are_apart(given.out, given.x)) &&
           (given.where == nullptr || are_apart(given.out, given.where));
}

PyArrayObject* new_like(PyArrayObject* x) {
    PyArray_Descr* descr = PyArray_DESCR(x);
    Py_INCREF(reinterpret_cast<PyObject*>(descr));
    return array_of(PyArray_NewFromDescr(&PyArray_Type, descr, PyArray_NDIM(x), PyArray_DIMS(x), nullptr, nullptr, 0,
                                         nullptr));
}

// Runs a call whose arrays are known; false with an exception set.
bool is_run(Call& call) {
    const Index entries = product(call.shape, call.batch_axes + 1);
    merge_axes(call);
    const Outcome outcome = run_unlocked_if_long(call, entries);
    if (outcome == Outcome::out_of_memory) PyErr_NoMemory();
    return outcome == Outcome::done;
}

// A new reference to the result, or null with an exception set.
PyObject* run_into(Call& call, const Given& given) {
    PyArrayObject* result = given.out == nullptr ? new_like(given.x) : given.out;
    if (result == nullptr) return nullptr;
    if (given.out != nullptr) Py_INCREF(reinterpret_cast<PyObject*>(result));
    call.is_result_new = given.out == nullptr && is_new(PyArray_NBYTES(result));
    point_along(call.result, given, result);
    if (is_run(call)) return reinterpret_cast<PyObject*>(result);
    Py_DECREF(reinterpret_cast<PyObject*>(result));
    return nullptr;
}

// quick(method, x, operand, axis, out, options) of a map, which is `self`.
PyObject* quick(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    if (count != 6) {
        PyErr_SetString(PyExc_TypeError, "quick takes method, x, operand, axis, out and options");
        return nullptr;
    }
    const auto* known = static_cast<const ShortCut*>(PyCapsule_GetPointer(self, nullptr));
    if (known == nullptr) return nullptr;
    Call call;
    Given given;
    call.map = known->map;
    call.negated = known->negated;
    call.threads = thread_count.load(std::memory_order_relaxed);
    if (!only_formulas && read_method(arguments[0], call.method) &&
        read_scores(call, given, arguments[1], arguments[3]) && read_operand(call, given, arguments[2]) &&
        read_options(call, &given, *known, arguments[5]) && read_out(given, arguments[4]) && is_known_from_weights(call)) {
        return run_into(call, given);
    }
    Py_INCREF(Py_None);
    return Py_None;
}

PyMethodDef QUICK = {"quick", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&quick)), METH_FASTCALL,
                     "quick(method, x, operand, axis, out, options): the commonest calls, or None for any other."};

// A function of a map, which it has as its `self`.
nb::object function_of(PyMethodDef& definition, int map, bool negated, bool takes_alpha, double alpha) {
    const Map known = read_enum(map, Map::entmax, "map");
    const nb::capsule self(new ShortCut{known, negated, takes_alpha, alpha},
                           [](void* each) noexcept { delete static_cast<ShortCut*>(each); });
    nb::object function = nb::steal(PyCFunction_NewEx(&definition, self.ptr(), nullptr));
    if (!function.is_valid()) throw nb::python_error();
    return function;
}

nb::object short_cut(int map, bool negated, bool takes_alpha, double alpha) {
    return function_of(QUICK, map, negated, takes_alpha, alpha);
}

// --- The short cut for tensors ------------------------------------------------------------------------------------------
// The same for tensors, of which no library is known here: each tells about itself by the table of its class, and their
// library makes results.

bool is_same_name(PyObject* object, PyObject* name) {
    return object == name || (PyUnicode_CheckExact(object) && PyUnicode_Compare(object, name) == 0);
}

bool read_any_method(PyObject* object, Method& method) {
    if (read_method(object, method)) return true;
    for (const NamedMethod& each : METHODS) {
        method = each.method;
        if (is_same_name(object, names.*each.name)) return true;
    }
    return false;
}

bool read_integer(PyObject* object, Index& number) {
    if (!PyLong_Check(object)) return false;
    int overflow = 0;
    number = PyLong_AsLongLongAndOverflow(object, &overflow);
    return overflow == 0;
}

constexpr struct {
    Type type;
    nb::dlpack::dtype_code code;
    int bits;
} TENSOR_TYPES[] = {{Type::float32, nb::dlpack::dtype_code::Float, 32},
                    {Type::bfloat16, nb::dlpack::dtype_code::Bfloat, 16},
                    {Type::float16, nb::dlpack::dtype_code::Float, 16},
                    {Type::float64, nb::dlpack::dtype_code::Float, 64}};

bool read_tensor_type(const Tensor& tensor, Type& type) {
    for (const auto& each : TENSOR_TYPES) {
        type = each.type;
        if (is_of(tensor, each.code, each.bits)) return true;
    }
    return false;
}

bool have_one_shape(const Tensor& one, const Tensor& other) {
    return one.ndim == other.ndim && std::equal(one.shape, one.shape + one.ndim, other.shape);
}

// Points `array` at a tensor of the shape of x, the normalised axis last.
void point_along(Array& array, const Tensor& tensor, int axis) {
    const Index bytes = tensor.dtype.bits / 8;
    int to = 0;
    for (int from = 0; from < tensor.ndim; ++from) {
        if (from != axis) array.strides[to++] = tensor.strides[from] * bytes;
    }
    array.strides[to] = tensor.strides[axis] * bytes;
    array.data = first_of(tensor);
}

// The tensors of a call that is being read.
struct Seen {
    Tensor x{};
    int axis = 0;
};

// Scores, their type, shape and axis; false for what has no entries.
bool read_tensor_scores(Call& call, Seen& seen, PyObject* object, PyObject* axis) {
    if (!look_at(object, seen.x) || !read_tensor_type(seen.x, call.type)) return false;
    if (seen.x.ndim > MAX_AXES || !read_axis(axis, seen.x.ndim, seen.axis)) return false;
    for (int from = 0; from < seen.x.ndim; ++from) {
        if (seen.x.shape[from] <= 0) return false;
        if (from != seen.axis) call.shape[call.batch_axes++] = seen.x.shape[from];
    }
    call.shape[call.batch_axes] = seen.x.shape[seen.axis];
    point_along(call.x, seen.x, seen.axis);
    return true;
}

// A tensor of the shape and dtype of the scores, or None.
bool read_tensor_like(Array& array, const Seen& seen, PyObject* object) {
    if (object == Py_None) return true;
    Tensor tensor{};
    if (!look_at(object, tensor) || !(tensor.dtype == seen.x.dtype) || !have_one_shape(tensor, seen.x)) return false;
    point_along(array, tensor, seen.axis);
    return true;
}

// Points `array` at a tensor whose entries repeat where the scores have more.
bool point_along_repeated(Array& array, const Tensor& tensor, const Seen& seen) {
    const int missing = seen.x.ndim - tensor.ndim;
    if (missing < 0) return false;
    Index strides[MAX_AXES] = {};
    for (int axis = missing; axis < seen.x.ndim; ++axis) {
        const Index length = tensor.shape[axis - missing];
        if (length != seen.x.shape[axis] && length != 1) return false;
        strides[axis] = length == 1 ? 0 : tensor.strides[axis - missing] * (tensor.dtype.bits / 8);
    }
    const auto place = strides + seen.axis;
    std::rotate(place, place + 1, strides + seen.x.ndim);
    std::copy_n(strides, seen.x.ndim, array.strides);
    array.data = first_of(tensor);
    return true;
}

// Which scores are taken: booleans of a shape that can be made that of the scores; None for all.
bool read_tensor_where(Call& call, const Seen& seen, PyObject* object) {
    if (object == Py_None) return true;
    Tensor tensor{};
    return look_at(object, tensor) && is_of(tensor, nb::dlpack::dtype_code::Bool, 8) &&
           point_along_repeated(call.mask, tensor, seen);
}

// The map, the options and the scores of a call on tensors.
bool read_tensor_known(Call& call, Seen& seen, const ShortCut& known, PyObject* x, PyObject* axis, PyObject* options) {
    call.map = known.map;
    call.negated = known.negated;
    return !only_formulas && read_options(call, nullptr, known, options) && read_tensor_scores(call, seen, x, axis);
}

// As many threads as the library of tensors would take; false with an exception set.
bool ask_threads(Call& call) {
    const nb::object answer = nb::steal(PyObject_CallNoArgs(exchange().threads));
    const long threads = answer.is_valid() ? PyLong_AsLong(answer.ptr()) : -1;
    if (threads == -1 && PyErr_Occurred()) return false;
    call.threads = static_cast<int>(std::clamp<long>(threads, 1, std::numeric_limits<int>::max()));
    return true;
}

// A new tensor for the result, like the scores. Null with an exception set, or without one where the library makes another
// or none, as for want of memory: then the call is declined.
nb::object new_tensor_for(Call& call, const Seen& seen, PyObject* x) {
    call.is_result_new = is_new(product(call.shape, call.batch_axes + 1) * bytes_of(call.type));
    PyObject* make = call.is_result_new ? exchange().large_like : exchange().new_like;
    nb::object result = nb::steal(PyObject_Vectorcall(make, &x, 1, nullptr));
    if (!result.is_valid()) {
        if (PyErr_ExceptionMatches(PyExc_RuntimeError)) PyErr_Clear();
        return result;
    }
    if (!read_tensor_like(call.result, seen, result.ptr()) || call.result.data == nullptr) result.reset();
    return result;
}

// A new reference to the result, or to None where that is declined, or null with an exception set.
PyObject* run_into_tensor(Call& call, const Seen& seen, PyObject* x) {
    if (!ask_threads(call)) return nullptr;
    nb::object result = new_tensor_for(call, seen, x);
    if (!result.is_valid()) {
        if (PyErr_Occurred()) return nullptr;
        Py_RETURN_NONE;
    }
    return is_run(call) ? result.release().ptr() : nullptr;
}

// What `cut` takes, in this order.
enum Place { METHOD, X, OPERAND, WHERE, AXIS, OPTIONS, PLACES };

bool read_tensor_call(Call& call, Seen& seen, const ShortCut& known, PyObject* const* given) {
    return read_any_method(given[METHOD], call.method) &&
           read_tensor_known(call, seen, known, given[X], given[AXIS], given[OPTIONS]) &&
           read_tensor_like(call.operand, seen, given[OPERAND]) && read_tensor_where(call, seen, given[WHERE]) &&
           (call.operand.data != nullptr) == (call.method != Method::value) && is_known_from_weights(call);
}

// cut(method, x, operand, where, axis, options) of a map.
PyObject* cut(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    if (count != PLACES) {
        PyErr_SetString(PyExc_TypeError, "cut takes method, x, operand, where, axis and options");
        return nullptr;
    }
    const auto* known = static_cast<const ShortCut*>(PyCapsule_GetPointer(self, nullptr));
    if (known == nullptr) return nullptr;
    Call call;
    Seen seen;
    if (!read_tensor_call(call, seen, *known, arguments)) Py_RETURN_NONE;
    return run_into_tensor(call, seen, arguments[X]);
}

PyMethodDef CUT = {"cut", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&cut)), METH_FASTCALL,
                   "cut(method, x, operand, where, axis, options): the commonest calls on tensors, or None for any other."};

nb::object tensor_cut(int map, bool negated, bool takes_alpha, double alpha) {
    return function_of(CUT, map, negated, takes_alpha, alpha);
}

// --- The short cut for losses of tensors ------------------------------------------------------------------------------
// Against class indices, one a row: the losses themselves, or the gradient of their sum times a scale.

// What `lose` takes, in this order.
enum LossPlace { LOSS_X, LOSS_CLASSES, LOSS_WHERE, LOSS_AXIS, LOSS_OPTIONS, IGNORED, SCALE, SOLVED, LOSS_PLACES };

// Rows from this length on leave what was solved, where they are asked to: it is as large as 18 floats.
constexpr Index LEFT_FROM = 256;
constexpr Index SOLVED_NUMBERS = sizeof(Solved) / sizeof(double);

// The classes of a call, those that are ignored as 0 and noted.
struct Classes {
    std::vector<Index> index;
    std::vector<char> is_counted;  // empty: all are
    Index counted = 0;
};

// Points `array` at numbers of 8 bytes, whose shape is that of the scores without the normalised axis.
bool point_along_batch(Array& array, const Call& call, PyObject* object, nb::dlpack::dtype_code code) {
    Tensor tensor{};
    if (!look_at(object, tensor) || !is_of(tensor, code, 64) || tensor.ndim != call.batch_axes ||
        !std::equal(tensor.shape, tensor.shape + tensor.ndim, call.shape)) {
        return false;
    }
    for (int axis = 0; axis < tensor.ndim; ++axis) array.strides[axis] = tensor.strides[axis] * 8;
    array.data = first_of(tensor);
    return true;
}

// False where one is out of range.
bool read_classes(Classes& classes, const Call& call, PyObject* given, PyObject* ignored) {
    Array y;
    const int axes = call.batch_axes;
    if (!point_along_batch(y, call, given, nb::dlpack::dtype_code::Int)) return false;
    Index skipped = 0;
    const bool may_skip = ignored != Py_None;
    if (may_skip && !(PyLong_CheckExact(ignored) && read_integer(ignored, skipped))) return false;
    const Index rows = product(call.shape, axes), length = call.shape[axes];
    classes.index.resize(static_cast<std::size_t>(rows));
    return take_each<Index>(call, y, [&](Index row, Index index) {
        const auto place = static_cast<std::size_t>(row);
        if (may_skip && index == skipped) {
            if (classes.is_counted.empty()) classes.is_counted.assign(static_cast<std::size_t>(rows), 1);
            classes.is_counted[place] = 0;
            return true;
        }
        classes.index[place] = index;
        ++classes.counted;
        return index >= 0 && index < length;
    });
}

// Points `array` at one number of 8 bytes a row, row after row.
void point_along_rows(Array& array, const Call& call, const void* data) {
    array.data = static_cast<char*>(const_cast<void*>(data));
    Index stride = static_cast<Index>(sizeof(double));
    for (int axis = call.batch_axes - 1; axis >= 0; --axis) {
        array.strides[axis] = stride;
        stride *= call.shape[axis];
    }
}

// What residuals are multiplied with: a float, or a tensor of one float64 a row; with the temperature and the sign of the
// scores in it, and 0 where a row does not count.
bool read_scale(Call& call, std::vector<double>& scales, const Classes& classes, PyObject* object) {
    const double sign = call.negated ? -1.0 : 1.0;
    const bool is_fixed = PyFloat_CheckExact(object);
    const double fixed = is_fixed ? PyFloat_AsDouble(object) : 0.0;
    if (is_fixed && classes.is_counted.empty()) {
        call.scale.fixed = sign * fixed / call.temperature.fixed;
        return true;
    }
    scales.assign(classes.index.size(), fixed);
    if (!is_fixed) {
        Array numbers;
        if (!point_along_batch(numbers, call, object, nb::dlpack::dtype_code::Float)) return false;
        take_each<double>(call, numbers, [&](Index row, double number) {
            scales[static_cast<std::size_t>(row)] = number;
            return true;
        });
    }
    for (std::size_t row = 0; row < scales.size(); ++row) {
        const bool counts = classes.is_counted.empty() || classes.is_counted[row] != 0;
        scales[row] = counts ? sign * scales[row] / call.temperature.fixed : 0.0;
    }
    point_along_rows(call.scale.rows, call, scales.data());
    return true;
}

bool read_loss_call(Call& call, Seen& seen, Classes& classes, const ShortCut& known, PyObject* const* given) {
    return has_method(known.map, Method::loss_of_index) &&
           read_tensor_known(call, seen, known, given[LOSS_X], given[LOSS_AXIS], given[LOSS_OPTIONS]) &&
           read_tensor_where(call, seen, given[LOSS_WHERE]) &&
           read_classes(classes, call, given[LOSS_CLASSES], given[IGNORED]);
}

// What the way there has left, one row of numbers for each of the call; None: nothing. False for anything else.
bool read_solved(Call& call, PyObject* object) {
    if (object == Py_None) return true;
    Tensor tensor{};
    if (!look_at(object, tensor) || !is_of(tensor, nb::dlpack::dtype_code::Float, 64) || tensor.ndim != 2) return false;
    if (tensor.shape[0] != product(call.shape, call.batch_axes) || tensor.shape[1] != SOLVED_NUMBERS) return false;
    if (tensor.strides[0] != SOLVED_NUMBERS || tensor.strides[1] != 1) return false;
    call.solved = reinterpret_cast<Solved*>(first_of(tensor));
    return true;
}

// A new array of so many numbers for each row of a call, all 0, or null with an exception set.
PyObject* numbers_for_rows(const Call& call, Index numbers) {
    npy_intp shape[] = {static_cast<npy_intp>(product(call.shape, call.batch_axes)), static_cast<npy_intp>(numbers)};
    return PyArray_ZEROS(numbers > 1 ? 2 : 1, shape, NPY_DOUBLE, 0);
}

// A new reference to the gradient, None where that is declined, or null with an exception set.
PyObject* run_gradient(Call& call, const Seen& seen, const Classes& classes, PyObject* const* given) {
    std::vector<double> scales;
    call.method = Method::residual_of_index;
    if (!read_scale(call, scales, classes, given[SCALE]) || !read_solved(call, given[SOLVED])) Py_RETURN_NONE;
    return run_into_tensor(call, seen, given[LOSS_X]);
}

// A new reference to the losses, how many count, and what was solved, if that is asked for; or null with an exception set.
PyObject* run_losses(Call& call, const Classes& classes, PyObject* asked) {
    call.method = Method::loss_of_index;
    const bool is_sparse = call.map != Map::softmax && !(call.map == Map::entmax && call.alpha.fixed == 1.0);
    const bool leaves = asked == Py_True && is_sparse && call.shape[call.batch_axes] >= LEFT_FROM;
    const nb::object losses = nb::steal(numbers_for_rows(call, 1));
    const nb::object solved = leaves ? nb::steal(numbers_for_rows(call, SOLVED_NUMBERS)) : nb::none();
    if (!losses.is_valid() || !solved.is_valid() || !ask_threads(call)) return nullptr;
    auto* const values = static_cast<double*>(PyArray_DATA(array_of(losses.ptr())));
    point_along_rows(call.result, call, values);
    if (leaves) call.solved = static_cast<Solved*>(PyArray_DATA(array_of(solved.ptr())));
    if (!is_run(call)) return nullptr;
    for (std::size_t row = 0; row < classes.is_counted.size(); ++row) {
        if (classes.is_counted[row] == 0) values[row] = 0.0;
    }
    return Py_BuildValue("(OLO)", losses.ptr(), static_cast<long long>(classes.counted), solved.ptr());
}

// lose(x, y, where, axis, options, ignored, scale, solved) of a map.
PyObject* lose(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    if (count != LOSS_PLACES) {
        PyErr_SetString(PyExc_TypeError, "lose takes x, y, where, axis, options, ignored, scale and solved");
        return nullptr;
    }
    const auto* known = static_cast<const ShortCut*>(PyCapsule_GetPointer(self, nullptr));
    if (known == nullptr) return nullptr;
    try {
        Call call;
        Seen seen;
        Classes classes;
        if (!read_loss_call(call, seen, classes, *known, arguments)) Py_RETURN_NONE;
        point_along_rows(call.index, call, classes.index.data());
        if (arguments[SCALE] == Py_None) return run_losses(call, classes, arguments[SOLVED]);
        return run_gradient(call, seen, classes, arguments);
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    }
}

PyMethodDef LOSE = {"lose", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&lose)), METH_FASTCALL,
                    "lose(x, y, where, axis, options, ignored, scale, solved): without a scale the losses of the rows, how many "
                    "count, and what was solved where `solved` is True; with one the gradient, from what was solved if it is "
                    "given; or None for any other call."};

nb::object loss_cut(int map, bool negated, bool takes_alpha, double alpha) {
    return function_of(LOSE, map, negated, takes_alpha, alpha);
}

PyObject* interned(const char* name) {
    PyObject* string = PyUnicode_InternFromString(name);
    if (string == nullptr) throw nb::python_error();
    return string;
}

void intern_names() {
    names = {interned("value"), interned("vjp"),  interned("jvp"),   interned("backward"), interned("temperature"),
             interned("where"), interned("sink"), interned("empty"), interned("zero"),     interned("nan"),
             interned("dtype"), interned("alpha")};
}

// --- A measure of memory ----------------------------------------------------------------------------------------------

void streaming_copy(nb::handle to, nb::handle from, int threads) {
    if (!PyArray_Check(to.ptr()) || !PyArray_Check(from.ptr())) throw nb::type_error("to and from must be ndarrays");
    PyArrayObject *target = array_of(to.ptr()), *source = array_of(from.ptr());
    constexpr int DENSE = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED;
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
    softplex::intern_names();

    using namespace nb::literals;
    module.def("run", &softplex::run_any, "map"_a, "method"_a, "type"_a, "negated"_a, "row_axes"_a, "threads"_a,
               "empty"_a, "x"_a, "operand"_a.none(), "index"_a.none(), "mask"_a.none(), "result"_a, "temperature"_a,
               "sink"_a.none(), "alpha"_a, "scale"_a = 1.0, "is_result_made"_a = false,
               "scores"_a = nb::none());
    module.def("short_cut", &softplex::short_cut, "map"_a, "negated"_a, "takes_alpha"_a, "alpha"_a);
    module.def("tensor_cut", &softplex::tensor_cut, "map"_a, "negated"_a, "takes_alpha"_a, "alpha"_a);
    module.def("loss_cut", &softplex::loss_cut, "map"_a, "negated"_a, "takes_alpha"_a, "alpha"_a);
    module.def("know_tensors", &softplex::know_tensors, "types"_a, "new_like"_a, "large_like"_a, "threads"_a);
    module.def("streaming_copy", &softplex::streaming_copy, "to"_a, "from_"_a, "threads"_a);
    module.def("set_threads", [](int n) { softplex::thread_count.store(n < 1 ? 1 : n); }, "n"_a);
    module.def("assume_cache", [](long long bytes) { softplex::assumed_cache.store(bytes); }, "bytes"_a);
    module.def("formulas_only", [] { return softplex::only_formulas; });
    module.def("set_formulas_only", [](bool value) { softplex::only_formulas = value; }, "value"_a);
    module.def("instruction_set", [] { return softplex::instruction_set(); });
    module.def("choose_instruction_set", &softplex::choose_instruction_set, "name"_a);
    module.def("xla_handler", [] { return nb::capsule(reinterpret_cast<const void*>(&softplex::xla_handler)); });
    module.def("set_bfloat16", &softplex::register_bfloat16, "dtype"_a);
}
