// What each method of a map takes and gives, for every binding alike. No array is read here.
#pragma once

#include "call.h"

namespace softplex {

enum class Element { of_type, float64, int64, boolean };
enum class Shape { none, entries, rows };

// What a method takes and gives beside x.
struct Layout {
    Shape operand;
    Shape index;
    Shape result;
    Element element;
};

inline Layout layout_of(Map map, Method method) {
    const Shape of_map = map == Map::maxout ? Shape::rows : Shape::entries;
    switch (method) {
        case Method::value: return {Shape::none, Shape::none, of_map, Element::of_type};
        case Method::vjp: return {of_map, Shape::none, Shape::entries, Element::of_type};
        case Method::jvp: return {Shape::entries, Shape::none, of_map, Element::of_type};
        case Method::residual_of_index: return {Shape::none, Shape::rows, Shape::entries, Element::of_type};
        case Method::backward:
        case Method::residual: return {Shape::entries, Shape::none, Shape::entries, Element::of_type};
        case Method::loss_of_index: return {Shape::none, Shape::rows, Shape::rows, Element::float64};
        case Method::of_temperature:
        case Method::of_alpha:
        case Method::of_sink:
        case Method::loss: return {Shape::entries, Shape::none, Shape::rows, Element::float64};
        case Method::of_temperature_from_gradient:
        case Method::conjugate_by_alpha:
        case Method::smooth_max: return {Shape::none, Shape::none, Shape::rows, Element::float64};
        case Method::support_size:
        case Method::winner: break;
    }
    return {Shape::none, Shape::none, Shape::rows, Element::int64};
}

// Maxout has values, derivatives and a winner; a log map values, derivatives, and the cross-entropy against a distribution
// with its gradient.
inline bool has_method(Map map, Method method) {
    const bool is_basic = method == Method::value || method == Method::vjp || method == Method::jvp;
    if (map == Map::maxout) return is_basic || method == Method::winner;
    if (method == Method::of_alpha || method == Method::conjugate_by_alpha) return map == Map::entmax;
    if (method == Method::of_sink) return map == Map::softmax || map == Map::log_softmax;
    const bool is_crossed = method == Method::loss || method == Method::residual;
    if (map == Map::log_softmax) return is_basic || is_crossed || takes_results(method);
    return method != Method::winner;
}

// From weights alone nobody knows what was masked, nor what a sink weighs, which maps with slopes of their own ask for.
inline bool is_known_from_weights(const Call& call) {
    const bool needs_sink = call.has_sink && call.map != Map::softmax && call.map != Map::log_softmax;
    return !takes_results(call.method) || (call.mask.data == nullptr && !needs_sink);
}

inline bool takes_scores(Method method) {
    return method == Method::of_temperature || method == Method::of_sink || method == Method::of_temperature_from_gradient;
}

// Residuals alone are multiplied by a scale.
inline bool takes_scale(Method method) { return method == Method::residual || method == Method::residual_of_index; }

inline bool is_scaled(const Call& call) { return call.scale.rows.data != nullptr || call.scale.fixed != 1.0; }

}  // namespace softplex
