// What tensors of a framework tell about themselves, by DLPack's exchange interface for C (DLPack 1.3): in some 40 ns each,
// without Python. Nothing is owned, copied or computed here.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

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

// The class whose instances are taken for tensors, and how to look at one.
struct Exchange {
    PyTypeObject* type = nullptr;
    int (*look)(void* object, Tensor* tensor) = nullptr;
};

inline Exchange& exchange() {
    static Exchange found;
    return found;
}

// Whether tensors of a class can be looked at from now on.
inline bool know_tensors(nanobind::handle type) {
    const nanobind::object capsule = nanobind::getattr(type, "__dlpack_c_exchange_api__", nanobind::none());
    if (!PyType_Check(type.ptr()) || !PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return false;
    const auto* table = static_cast<const ExchangeTable*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (table->major != DLPACK_MAJOR || table->look == nullptr) return false;
    exchange() = {reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr()), table->look};
    return true;
}

// Whether `object` is a tensor on the CPU that can be looked at: shape and strides are its own, and live as long.
inline bool look_at(PyObject* object, Tensor& tensor) {
    if (exchange().type == nullptr || !PyObject_TypeCheck(object, exchange().type)) return false;
    if (exchange().look(object, &tensor) != 0) {
        PyErr_Clear();  // a tensor without memory of its own
        return false;
    }
    const bool has_strides = tensor.strides != nullptr || tensor.ndim == 0;
    return tensor.device.device_type == nanobind::device::cpu::value && tensor.dtype.lanes == 1 && has_strides;
}

inline bool is_of(const Tensor& tensor, nanobind::dlpack::dtype_code code, int bits) {
    return tensor.dtype.code == static_cast<std::uint8_t>(code) && tensor.dtype.bits == bits;
}

inline char* first_of(const Tensor& tensor) { return static_cast<char*>(tensor.data) + tensor.byte_offset; }

}  // namespace softplex
