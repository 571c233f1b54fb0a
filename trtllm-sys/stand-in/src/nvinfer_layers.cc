// What comes out of each kind of layer, and what does not fit in a strongly typed network. One sentence stands for what TensorRT says of a
// fault; TensorRT has one of getDimensions and another of the build for some.
#include <algorithm>
#include <numeric>

#include "nvinfer_json.h"
#include "nvinfer_network.h"

namespace stand_in {

using nvinfer1::DataType;

namespace {

using Complain = std::function<void(std::string const&)>;

// Of a type, as TensorRT's sentences name it.
std::string title(DataType type) {
    char const* const names[] = {"Float", "Half", "Int8", "Int32", "Bool", "UInt8", "FP8", "BFloat16", "Int64"};
    auto const number = static_cast<std::size_t>(type);
    return number < std::size(names) ? names[number] : "another";
}

void must_be_float(char const* which, Shape const& shape, Complain const& complain) {
    if (shape.type != DataType::kFLOAT && shape.type != DataType::kHALF && shape.type != DataType::kBF16) {
        complain(std::string(which) + " has type " + title(shape.type) + " but must have type Float, Half, or BFloat16.");
    }
}

std::int64_t volume(Sizes const& sizes) {
    return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{1}, std::multiplies<>());
}

// Product of the sizes that are known.
std::int64_t known_part(Sizes const& sizes) {
    return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{1},
                           [](auto product, auto size) { return size < 0 ? product : product * size; });
}

bool is_open(Sizes const& sizes) { return std::count(sizes.begin(), sizes.end(), -1) > 0; }

// The size that `x` and `y` make together, each of which may be 1 or open.
std::int64_t broadcast(std::int64_t x, std::int64_t y, Complain const& complain, std::string const& otherwise) {
    if (x != y && x != 1 && y != 1 && x >= 0 && y >= 0) {
        auto const [less, more] = std::minmax(x, y);
        auto const differ = [](auto a, auto b) { return std::to_string(a) + " != " + std::to_string(b); };
        complain(!otherwise.empty() ? otherwise
                                    : "dimensions not compatible for elementwise. Broadcast has incompatible dimensions: " +
                                          differ(less, more) + " && " + differ(less, 1) + " && " + differ(more, 1) + ".");
        return more;
    }
    if (x == 1) {
        return y;
    }
    // A size that is not known is the other one, or 1.
    return y == 1 || x >= 0 ? x : y;
}

Sizes element_wise(Node const& node, Shape const& a, Shape const& b, bool known, Complain const& complain) {
    if (a.type != b.type) {
        complain("ElementWiseOperation " + node.more.substr(6, node.more.size() - 7) +
                 " must have same input types. But they are of types " + title(a.type) + " and " + title(b.type) + ".");
    }
    std::string const unlike = "IElementWiseLayer must have inputs with same dimensions or follow broadcast rules. "
                               "Input dimensions were " + text_of(a.dims) + " and " + text_of(b.dims) + ".";
    if (a.dims.size() != b.dims.size()) {
        complain(unlike);
        return a.dims;
    }
    Sizes made;
    for (std::size_t i = 0; i < a.dims.size(); i++) {
        made.push_back(broadcast(a.dims[i], b.dims[i], complain, known ? "" : unlike));
    }
    return made;
}

Sizes matrix_product(Node const& node, Shape a, Shape b, bool known, Complain const& complain) {
    if (a.type != b.type) {
        complain("IMatrixMultiplyLayer must have same input types. `A` is of type " + title(a.type) + " and `B` is of type " +
                 title(b.type) + ".");
    }
    must_be_float("first input", a, complain);
    auto const rank = a.dims.size();
    if (rank != b.dims.size()) {
        complain("inputs with the same operation must have same number of dimensions, but have " + std::to_string(rank) + " and " +
                 std::to_string(b.dims.size()) + " dimensions respectively.");
        return a.dims;
    }
    if (rank < 2) {
        complain("input0 must have at least 2 dimensions to use with NONE");
        return a.dims;
    }
    Shape* const both[] = {&a, &b};
    for (std::size_t i = 0; i < 2; i++) {
        if (node.transposed[i]) {
            std::swap(both[i]->dims[rank - 1], both[i]->dims[rank - 2]);
        }
    }
    auto const x = a.dims[rank - 1];
    auto const y = b.dims[rank - 2];
    if (x >= 0 && y >= 0 && x != y) {
        auto const [left, right] = std::pair{std::to_string(x), std::to_string(y)};
        complain(known ? "attempt to multiply two matrices with mismatching dimensions Condition '==' violated: " + left + " != " +
                             right + "."
                       : "inner dimension of input0 = " + left + " and inner dimension of input1 = " + right + " but must match.");
    }
    Sizes made;
    for (std::size_t i = 0; i + 2 < rank; i++) {
        made.push_back(broadcast(a.dims[i], b.dims[i], complain, ""));
    }
    made.push_back(a.dims[rank - 2]);
    made.push_back(b.dims[rank - 1]);
    return made;
}

Sizes gathered(Node const& node, Shape const& from, Shape const& by, Complain const& complain) {
    if (by.type != DataType::kINT32 && by.type != DataType::kINT64) {
        complain("indices input has type " + title(by.type) + " but must have type Int64 or Int32.");
    }
    if (node.axis < 0 || static_cast<std::size_t>(node.axis) >= from.dims.size()) {
        complain("invalid axis. Axis = " + std::to_string(node.axis));
        return from.dims;
    }
    Sizes made(from.dims.begin(), from.dims.begin() + node.axis);
    made.insert(made.end(), by.dims.begin(), by.dims.end());
    made.insert(made.end(), from.dims.begin() + node.axis + 1, from.dims.end());
    return made;
}

Sizes joined(Node const& node, std::vector<Shape> const& inputs, Complain const& complain) {
    Sizes made = inputs[0].dims;
    auto const axis = static_cast<std::size_t>(node.axis);
    if (axis >= made.size()) {
        complain("invalid axis. Axis = " + std::to_string(node.axis));
        return made;
    }
    for (std::size_t i = 1; i < inputs.size(); i++) {
        auto const& dims = inputs[i].dims;
        bool fits = inputs[i].type == inputs[0].type && dims.size() == made.size();
        for (std::size_t at = 0; fits && at < dims.size(); at++) {
            // The first setAxis comes after the layer was made.
            fits = at == axis || dims[at] == made[at] || dims[at] < 0 || made[at] < 0;
        }
        if (!fits) {
            complain("all concat input tensors must have the same dimensions except on the concatenation axis: " +
                     text_of(inputs[0].dims) + " and " + text_of(dims));
            return made;
        }
        made[axis] = made[axis] < 0 || dims[axis] < 0 ? -1 : made[axis] + dims[axis];
    }
    return made;
}

Sizes reduced(Node const& node, Sizes sizes, Complain const& complain) {
    if (node.axis == 0) {
        complain("no dimensions to be reduced");
    }
    for (std::size_t i = 0; i < 32; i++) {
        bool const reduces = (node.axis >> i & 1) != 0;
        if (reduces && i >= sizes.size()) {
            complain("invalid reduction dimension " + std::to_string(i) + " specified in reduceAxes for " +
                     std::to_string(sizes.size()) + " dimensional input");
        } else if (reduces) {
            sizes[i] = 1;
        }
    }
    return sizes;
}

Sizes reshaped(Sizes const& from, Sizes to, bool known, Complain const& complain) {
    auto const wildcards = std::count(to.begin(), to.end(), -1);
    auto const there = known_part(from);
    auto const wanted = known_part(to);
    std::string const what = "Reshaping " + text_of(from) + " to " + text_of(to) + ".";
    std::string const failed = "reshaping failed: ";
    if (wildcards > 1) {
        complain("reshape dimension with more than one -1 wildcard. " + what);
    } else if (std::any_of(to.begin(), to.end(), [](auto size) { return size < -1; })) {
        complain("invalid reshape dimensions. " + what);
    } else if (is_open(from)) {
        return to;
    } else if (wildcards == 0 && there != wanted) {
        complain(known ? failed + "reshape would change volume " + std::to_string(there) + " to " + std::to_string(wanted)
                       : "reshape changes volume. " + what);
    } else if (wildcards == 1 && (wanted == 0 || there % wanted != 0)) {
        complain(known ? failed + "Reshape dimension of -1 has no solution." : "reshape changes volume. " + what);
    }
    std::replace(to.begin(), to.end(), std::int64_t{-1}, wanted == 0 ? 0 : there / wanted);
    return to;
}

Sizes shuffled(Node const& node, Sizes const& from, bool known, Complain const& complain) {
    auto const sizes = node.reshape ? reshaped(from, *node.reshape, known, complain) : from;
    if (!node.permutation) {
        return sizes;
    }
    auto const& order = *node.permutation;
    Sizes permuted;
    std::set<std::int32_t> taken;
    for (std::int32_t const axis : order) {
        if (axis < 0 || static_cast<std::size_t>(axis) >= sizes.size() || !taken.insert(axis).second) {
            complain("IShuffleLayer `second_transpose` is not valid. `reshape_dims` has " + std::to_string(sizes.size()) +
                     " dimensions and `second_transpose` is " + integers(order) + ".");
            return sizes;
        }
        permuted.push_back(sizes[static_cast<std::size_t>(axis)]);
    }
    return permuted;
}

}  // namespace

Sizes infer(Node const& node, std::vector<Shape> const& inputs, bool known, Complain const& complain) {
    if (!node.problem.empty()) {
        complain(node.problem);
    }
    if (node.kind == "Constant") {
        if (auto const expected = volume(node.constant); expected != node.weights.count) {
            complain("constant weights has count " + std::to_string(node.weights.count) + " but " + std::to_string(expected) +
                     " was expected");
        }
        return node.constant;
    }
    auto const& first = inputs.at(0);
    if (node.kind == "ElementWise") {
        return element_wise(node, first, inputs.at(1), known, complain);
    }
    if (node.kind == "MatrixMultiply") {
        return matrix_product(node, first, inputs.at(1), known, complain);
    }
    if (node.kind == "Gather") {
        return gathered(node, first, inputs.at(1), complain);
    }
    if (node.kind == "Concatenation") {
        return joined(node, inputs, complain);
    }
    if (node.kind == "Reduce") {
        return reduced(node, first.dims, complain);
    }
    if (node.kind == "Shuffle") {
        return shuffled(node, first.dims, known, complain);
    }
    if (node.plugin != nullptr) {
        try {
            return node.plugin->output(inputs).dims;
        } catch (std::exception const& exception) {
            complain(exception.what());
            return first.dims;
        }
    }
    if (node.kind == "Unary" || node.kind == "Activation") {
        must_be_float("input", first, complain);
    }
    return first.dims;
}

}  // namespace stand_in
