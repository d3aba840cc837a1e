// What tensors of a framework tell about themselves, by DLPack's exchange interface for C (DLPack 1.3): in some 40 ns each,
// without Python. What else is asked of the framework, memory for results and how many threads it would take, are functions
// that it gives. Nothing is copied or computed here.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace softplex {

using Tensor = nanobind::dlpack::dltensor;

// The table that a class of tensors has under `__dlpack_c_exchange_api__`; of its functions one is of use here.
struct ExchangeTable {
    std::uint32_t major, minor;
    ExchangeTable* older;
    void (*allocate)();
    void (*give)();
    void (*take)();
    int (*look)(void* object, Tensor* tensor);
    void (*stream)();
};

constexpr std::uint32_t DLPACK_MAJOR = 1;

// The classes whose own instances are taken for tensors, how to look at one, and what the framework is asked for.
struct Exchange {
    std::vector<PyTypeObject*> types;
    int (*look)(void* object, Tensor* tensor) = nullptr;
    PyObject* new_like = nullptr;    // memory like that of a tensor
    PyObject* large_like = nullptr;  // the same for memory that comes new from the system
    PyObject* threads = nullptr;     // how many there may be
};

inline Exchange& exchange() {
    static Exchange found;
    return found;
}

// The table of a class, or null.
inline const ExchangeTable* table_of(nanobind::handle type) {
    const nanobind::object capsule = nanobind::getattr(type, "__dlpack_c_exchange_api__", nanobind::none());
    if (!PyType_Check(type.ptr()) || !PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
    const auto* table = static_cast<const ExchangeTable*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    return table->major == DLPACK_MAJOR && table->look != nullptr ? table : nullptr;
}

// Whether tensors of these classes can be looked at from now on. What is known stays known until the process ends.
inline bool know_tensors(const nanobind::tuple& types, nanobind::callable new_like, nanobind::callable large_like,
                         nanobind::callable threads) {
    Exchange found;
    for (nanobind::handle type : types) {
        const ExchangeTable* table = table_of(type);
        if (table == nullptr || (found.look != nullptr && table->look != found.look)) return false;
        found.look = table->look;
        found.types.push_back(reinterpret_cast<PyTypeObject*>(type.ptr()));
    }
    if (found.look == nullptr) return false;
    for (PyTypeObject* type : found.types) Py_INCREF(reinterpret_cast<PyObject*>(type));
    found.new_like = new_like.release().ptr();
    found.large_like = large_like.release().ptr();
    found.threads = threads.release().ptr();
    exchange() = std::move(found);
    return true;
}

inline bool is_tensor(PyObject* object) {
    const auto& types = exchange().types;
    return std::find(types.begin(), types.end(), Py_TYPE(object)) != types.end();
}

// Whether `object` is a tensor on the CPU that can be looked at: shape and strides are its own, and live as long.
inline bool look_at(PyObject* object, Tensor& tensor) {
    if (!is_tensor(object)) return false;
    if (exchange().look(object, &tensor) != 0) {
        PyErr_Clear();  // a tensor without memory of its own
        return false;
    }
    const bool has_strides = tensor.strides != nullptr || tensor.ndim == 0;
    const bool is_here = tensor.data != nullptr && tensor.device.device_type == nanobind::device::cpu::value;
    return is_here && tensor.dtype.lanes == 1 && has_strides;
}

inline bool is_of(const Tensor& tensor, nanobind::dlpack::dtype_code code, int bits) {
    return tensor.dtype.code == static_cast<std::uint8_t>(code) && tensor.dtype.bits == bits;
}

inline char* first_of(const Tensor& tensor) { return static_cast<char*>(tensor.data) + tensor.byte_offset; }

}  // namespace softplex
