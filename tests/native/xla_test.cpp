// The handler for XLA under test, in a program of its own: frames that no program of XLA makes. In place of the kernels
// stands a function that keeps the call it was given.
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "call.h"
#include "float_mode.h"
#include "settings.h"
#include "xla.h"

namespace softplex {

Call seen;
FloatMode seen_mode;
int calls = 0;
Outcome outcome = Outcome::done;

Outcome run(const Call& call) {
    seen = call;
    seen_mode = float_mode();
    ++calls;
    return outcome;
}

namespace {

int failures = 0;
std::string message;
xla::ErrorCode code;

xla::Error* create_error(xla::ErrorArguments* arguments) {
    message = arguments->message;
    code = arguments->code;
    return reinterpret_cast<xla::Error*>(&message);
}

// A call of softmax on two rows of three, and what points into what.
struct Made {
    std::vector<float> x{1, 2, 3, 4, 5, 6}, result = std::vector<float>(6);
    std::vector<std::int64_t> shape{2, 3}, result_shape{2, 3};
    xla::Buffer x_buffer{sizeof(xla::Buffer), nullptr, xla::DataType::float32, x.data(), 2, shape.data()};
    xla::Buffer result_buffer{sizeof(xla::Buffer), nullptr, xla::DataType::float32, result.data(), 2, result_shape.data()};
    void* x_pointer = &x_buffer;
    void* result_pointer = &result_buffer;
    xla::BufferKind kind = xla::BufferKind::buffer;
    std::map<std::string, std::int64_t> settings{{"axes", 2},   {"empty", 0},  {"given", 0},
                                                 {"map", 0},    {"method", 0}, {"negated", 0}};
    std::vector<xla::Text> texts;
    std::vector<xla::Text*> names;
    std::vector<xla::Scalar> scalars;
    std::vector<void*> values;
    std::vector<xla::AttributeKind> kinds;
    xla::Api api{sizeof(xla::Api), nullptr, {sizeof(xla::Version), nullptr, 0, 3}, nullptr, create_error};
    xla::Frame frame{};

    Made() {
        frame.struct_size = sizeof(xla::Frame);
        frame.api = &api;
        frame.stage = xla::Stage::execute;
        frame.arguments = {sizeof(xla::Buffers), nullptr, 1, &kind, &x_pointer};
        frame.results = {sizeof(xla::Buffers), nullptr, 1, &kind, &result_pointer};
    }
    Made(const Made&) = delete;
    Made& operator=(const Made&) = delete;

    xla::Error* call() {
        for (auto& [name, value] : settings) {
            texts.push_back({name.data(), name.size()});
            scalars.push_back({xla::DataType::int64, &value});
            kinds.push_back(xla::AttributeKind::scalar);
        }
        for (auto& text : texts) names.push_back(&text);
        for (auto& scalar : scalars) values.push_back(&scalar);
        const auto count = static_cast<std::int64_t>(names.size());
        const std::size_t size = frame.attributes.struct_size;
        frame.attributes = {size != 0 ? size : sizeof(xla::Attributes), nullptr,     count, kinds.data(),
                            names.data(),                               values.data()};
        return xla_handler(&frame);
    }
};

void check(bool holds, const std::string& what) {
    if (holds) return;
    std::printf("failed: %s\n", what.c_str());
    ++failures;
}

void refuses(const std::string& why, const std::function<void(Made&)>& change) {
    Made made;
    change(made);
    message.clear();
    const int before = calls;
    const bool is_error = made.call() != nullptr;
    check(is_error && calls == before && code == xla::ErrorCode::invalid_argument, "it refuses: " + why);
    check(message.find(why) != std::string::npos, "the refusal says '" + why + "', not '" + message + "'");
}

void right_frames() {
    Made made;
    thread_count = 7;
    check(made.call() == nullptr && calls == 1, "a right frame is run");
    check(seen.threads == 7, "threads are those set when the call comes");
    check(seen.x.data == reinterpret_cast<char*>(made.x.data()) && seen.batch_axes == 1 && seen.row_axes == 1 &&
              seen.x.strides[0] == 12 && seen.x.strides[1] == 4 && seen.shape[0] == 2 && seen.shape[1] == 3,
          "the call has x as it lies");
    check(seen.is_interrupted == nullptr, "nothing is asked of Python");
    Made first;
    first.settings["axes"] = 1;
    check(first.call() == nullptr && seen.x.strides[0] == 4 && seen.x.strides[1] == 12 && seen.shape[1] == 2,
          "the normalised axis comes last");
    Made larger;
    larger.frame.struct_size += 64;
    larger.x_buffer.struct_size += 8;
    larger.frame.attributes.struct_size = sizeof(xla::Attributes) + 8;
    check(larger.call() == nullptr, "structs with new fields at their end are taken");
}

void modes_of_floats() {
    const FloatMode before = float_mode();
#if defined(__x86_64__)
    const FloatMode flushing = before | 0x8040;
#else
    const FloatMode flushing = before | (FloatMode{1} << 24);
#endif
    set_float_mode(flushing);
    Made made;
    made.call();
    check(seen_mode == USUAL_FLOAT_MODE, "kernels keep subnormals");
    check(float_mode() == flushing, "and the caller's mode comes back");
    set_float_mode(before);
}

void wrong_sizes() {
    refuses("version of XLA's interface", [](Made& made) { made.frame.struct_size = sizeof(xla::Frame) - 8; });
    refuses("version of XLA's interface", [](Made& made) { made.frame.arguments.struct_size += 8; });
    refuses("version of XLA's interface", [](Made& made) { made.frame.results.struct_size += 8; });
    refuses("version of XLA's interface", [](Made& made) { made.frame.attributes.struct_size = 8; });
    refuses("another stage", [](Made& made) { made.frame.stage = static_cast<xla::Stage>(0); });
    refuses("x is not an array", [](Made& made) { made.x_buffer.struct_size -= 8; });
    refuses("x is not an array", [](Made& made) { made.x_pointer = nullptr; });
    refuses("is not an array", [](Made& made) { made.kind = static_cast<xla::BufferKind>(2); });
    refuses("the result is not an array", [](Made& made) { made.result_buffer.struct_size = 0; });
}

void wrong_arrays() {
    refuses("x has no data", [](Made& made) { made.x_buffer.data = nullptr; });
    refuses("the result has no data", [](Made& made) { made.result_buffer.data = nullptr; });
    refuses("x has too many axes", [](Made& made) { made.x_buffer.rank = 65; });
    refuses("x has too many axes", [](Made& made) { made.x_buffer.rank = -1; });
    refuses("axes names no axis", [](Made& made) { made.x_buffer.rank = 0; });
    refuses("x is missing", [](Made& made) { made.frame.arguments.count = 0; });
    refuses("the result is missing", [](Made& made) { made.frame.results.count = 0; });
    refuses("has a size below 0", [](Made& made) { made.shape[0] = -2; });
    refuses("x holds none of", [](Made& made) { made.x_buffer.type = static_cast<xla::DataType>(99); });
}

// XLA can be told of an error by its own means alone.
void no_way_to_say_it() {
    check(xla_handler(nullptr) == nullptr, "no frame");
    const std::function<void(Made&)> changes[] = {
        [](Made& made) { made.frame.api = nullptr; },
        [](Made& made) { made.api.struct_size = 8; },
        [](Made& made) { made.api.create_error = nullptr; },
        [](Made& made) { made.frame.struct_size = 8; },
    };
    for (const auto& change : changes) {
        Made made;
        made.settings.erase("map");
        change(made);
        const int before = calls;
        check(made.call() == nullptr && calls == before, "a wrong frame without a way to say so is not run");
    }
}

void want_of_memory() {
    Made made;
    outcome = Outcome::out_of_memory;
    const bool is_error = made.call() != nullptr;
    outcome = Outcome::done;
    check(is_error && code == xla::ErrorCode::resource_exhausted && message.find("not enough memory") != std::string::npos,
          "want of memory is an error that says so");
}

// The version that the handler names to a runtime of this one.
int version_named_to(int major, int minor, xla::Metadata& metadata) {
    Made made;
    made.api.version.major_version = major;
    made.api.version.minor_version = minor;
    if (major < 0) made.frame.api = nullptr;
    xla::Extension other{sizeof(xla::Extension), static_cast<xla::ExtensionType>(77), nullptr};
    xla::MetadataExtension asked{{sizeof(xla::MetadataExtension), xla::ExtensionType::metadata, nullptr}, &metadata};
    other.next = &asked.base;
    made.frame.extensions = &other;
    const int before = calls;
    check(xla_handler(&made.frame) == nullptr && calls == before, "what asks for the version is no call");
    return metadata.version.minor_version;
}

void handshakes() {
    xla::Metadata metadata{};
    metadata.struct_size = sizeof metadata;
    metadata.version.major_version = 5;
    metadata.traits = 9;
    check(version_named_to(0, 3, metadata) == 3 && metadata.version.major_version == 0, "version 0.3 is spoken");
    check(metadata.traits == 0 && metadata.version.struct_size == sizeof(xla::Version), "no traits");
    check(version_named_to(0, 1, metadata) == 1, "with an older runtime its own version");
    check(version_named_to(0, 9, metadata) == 3, "with a newer one ours");
    check(version_named_to(1, 0, metadata) == 3 && metadata.version.major_version == 0, "of another major version none");
    check(version_named_to(-1, 0, metadata) == 1, "with one that does not tell, the oldest");
    metadata = {};
    metadata.struct_size = 8;
    check(version_named_to(0, 3, metadata) == 0, "nothing is written past the end of a small struct");
}

}  // namespace
}  // namespace softplex

int main() {
    softplex::right_frames();
    softplex::modes_of_floats();
    softplex::wrong_sizes();
    softplex::wrong_arrays();
    softplex::no_way_to_say_it();
    softplex::want_of_memory();
    softplex::handshakes();
    if (softplex::failures == 0) std::printf("every frame was answered as it should be\n");
    return softplex::failures == 0 ? 0 : 1;
}
