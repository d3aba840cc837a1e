// The Python module softplex.native._cpu: its functions and their arguments. Each is read in a header of its own.
#include <nanobind/nanobind.h>
#include <numpy/arrayobject.h>

#include <stdexcept>
#include <string>

#include "any_call.h"
#include "loss_cuts.h"
#include "short_cuts.h"
#include "tensor_cuts.h"
#include "xla.h"

namespace nb = nanobind;

namespace softplex {
namespace {

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
    module.def("parameter_cut", &softplex::parameter_cut, "map"_a, "negated"_a, "takes_alpha"_a, "alpha"_a);
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
