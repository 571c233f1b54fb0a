// What TensorRT finds only when it builds, in its words: faults of layers and profiles, and of sizes at the profiles' shapes.
//
// Simpler than TensorRT: of several faults the first is told, broadcasts are not evaluated at the least sizes, and the ranges of
// dimensions are those that follow from the least and greatest shapes.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <sstream>

#include "nvinfer_builder.h"

namespace stand_in {

using nvinfer1::OptProfileSelector;
using Severity = nvinfer1::ILogger::Severity;

namespace {

constexpr std::array kSelectors{OptProfileSelector::kMIN, OptProfileSelector::kOPT, OptProfileSelector::kMAX};
constexpr std::array kSelectorNames{"kMIN", "kOPT", "kMAX"};

[[noreturn]] void refuse(std::string const& what, char const* kind = "API Usage") {
    throw std::runtime_error(std::string("stand-in: IBuilder::buildSerializedNetwork: Error Code 4: ") + kind + " Error (" + what + ")");
}

bool is_open(Tensor const& input) {
    return std::count(input.mShape.dims.begin(), input.mShape.dims.end(), -1) > 0;
}

void check_layers(Network const& network) {
    for (Node const& node : network.mNodes) {
        if (!node.output->mProblem.empty()) {
            refuse(node.output->mProblem);
        }
        if (node.kind == "Constant" && node.weights.count > 0 && node.weights.values == nullptr) {
            refuse("Null, non-empty weights require BuilderFlag::kSTRIP_PLAN.");
        }
        std::vector<Shape> shapes;
        for (Tensor const* const input : node.inputs) {
            shapes.push_back(input->mShape);
        }
        if (auto const problem = node.plugin == nullptr ? "" : node.plugin->problem(shapes); !problem.empty()) {
            refuse(node.name + ": " + problem);
        }
    }
}

// The shapes of each input in a profile: least, best and greatest.
using Shapes = std::map<Tensor const*, std::array<Sizes, 3>>;

Shapes shapes_in(Network const& network, Profile const& profile, std::string const& number) {
    Shapes shapes;
    for (Tensor const* const input : network.mInputs) {
        auto const& dims = input->mShape.dims;
        auto const found = profile.mShapes.find(input->mName);
        if (found == profile.mShapes.end()) {
            if (is_open(*input)) {
                refuse("Dynamic input tensor " + input->mName + " is missing dimensions in profile " + number + ".");
            }
            shapes[input] = {dims, dims, dims};
            continue;
        }
        auto& three = shapes[input];
        for (std::size_t which = 0; which < three.size(); which++) {
            three[which] = found->second.at(kSelectors[which]);
            auto const& given = three[which];
            if (is_open(*input) && given.size() != dims.size()) {
                refuse("Dynamic-shaped input tensor " + input->mName + " has " + std::to_string(dims.size()) +
                       " dimensions but profile " + number + " has " + std::to_string(given.size()) + " dimensions.");
            }
            if (!is_open(*input) && given != dims) {
                refuse("Input tensor " + input->mName + " has static dimensions that don't match " + kSelectorNames[which] +
                       " dimensions in profile index " + number + ". Input dimensions are " + text_of(dims) +
                       " but profile dimensions are " + text_of(given) + ".");
            }
        }
        for (std::size_t axis = 0; axis < dims.size(); axis++) {
            auto const at = [&, axis](std::size_t which) { return three[which][axis]; };
            if (dims[axis] >= 0 && (at(0) != dims[axis] || at(1) != dims[axis] || at(2) != dims[axis])) {
                refuse("Dimension mismatch for tensor " + input->mName + " and profile " + number + ". At dimension axis " +
                       std::to_string(axis) + ", profile has min=" + std::to_string(at(0)) + ", opt=" + std::to_string(at(1)) +
                       ", max=" + std::to_string(at(2)) + " but tensor has " + std::to_string(dims[axis]) + ".");
            }
        }
    }
    return shapes;
}

// One name is one size: open dimensions of it have one best size, and a range in common, which is theirs from then on.
void unite_names(Shapes& shapes) {
    struct Place {
        std::array<Sizes, 3>* three;
        std::size_t axis;
        std::int64_t& at(std::size_t which) const { return (*three)[which][axis]; }
    };
    std::map<std::string, std::vector<Place>> named;
    for (auto& [input, three] : shapes) {
        for (auto const& [axis, name] : input->mDimensions) {
            if (input->mShape.dims.at(static_cast<std::size_t>(axis)) < 0) {
                named[name].push_back({&three, static_cast<std::size_t>(axis)});
            }
        }
    }
    for (auto const& [name, places] : named) {
        auto least = places[0].at(0);
        auto greatest = places[0].at(2);
        for (Place const& place : places) {
            least = std::max(least, place.at(0));
            greatest = std::min(greatest, place.at(2));
        }
        if (least > greatest) {
            refuse(name + ": Input dimensions with this name have different constant values or have contradictory "
                          "IOptimizationProfile kMIN/kMAX constraints.");
        }
        for (Place const& place : places) {
            if (place.at(1) != places[0].at(1)) {
                refuse("Profile kOPT values are not self-consistent. Dimensions with name " + name +
                           " must be equal. Condition '==' violated: " + std::to_string(places[0].at(1)) + " != " +
                           std::to_string(place.at(1)) + ".",
                       "Internal");
            }
            place.at(0) = least;
            place.at(2) = greatest;
        }
    }
}

// The sizes of every tensor where inputs have those of `which`. The first layer that cannot be there is in `problem`.
std::map<Tensor const*, Sizes> sizes_at(Network const& network, Shapes const& inputs, std::size_t which, std::string& problem) {
    std::map<Tensor const*, Sizes> sizes;
    for (auto const& [input, three] : inputs) {
        sizes[input] = three[which];
    }
    for (Node const& node : network.mNodes) {
        std::vector<Shape> shapes;
        for (Tensor const* const input : node.inputs) {
            shapes.push_back({input->mShape.type, sizes.at(input)});
        }
        sizes[node.output] = infer(node, shapes, true, [&](std::string const& what) {
            if (problem.empty() && !(which == 0 && node.kind == "ElementWise")) {
                problem = node.name + ": " + what;
            }
        });
    }
    return sizes;
}

// Whether two ranges have a size in common, or one of them has 1.
bool may_meet(std::array<std::int64_t, 2> a, std::array<std::int64_t, 2> b) {
    auto const has_one = [](auto const& range) { return range[0] <= 1 && range[1] >= 1; };
    return has_one(a) || has_one(b) || (a[0] <= b[1] && b[0] <= a[1]);
}

void check_sizes(Network const& network, Shapes const& shapes, std::string const& number) {
    std::array<std::string, 3> problems;
    std::array<std::map<Tensor const*, Sizes>, 3> sizes;
    for (std::size_t which = 0; which < sizes.size(); which++) {
        sizes[which] = sizes_at(network, shapes, which, problems[which]);
    }
    for (Node const& node : network.mNodes) {
        for (std::size_t axis = 0; node.kind == "ElementWise" && axis < node.output->mShape.dims.size(); axis++) {
            auto const range = [&](Tensor const* tensor) {
                return std::array{sizes[0].at(tensor)[axis], sizes[2].at(tensor)[axis]};
            };
            if (!may_meet(range(node.inputs[0]), range(node.inputs[1]))) {
                refuse("IElementWiseLayer " + node.name + ": dimensions not compatible for elementwise.");
            }
        }
    }
    if (!problems[1].empty()) {
        refuse("kOPT values for profile " + number + " violate shape constraints: " + problems[1], "Internal");
    }
    for (std::size_t const which : {0, 2}) {
        if (!problems[which].empty()) {
            say(network.mLogger, Severity::kWARNING,
                std::string("stand-in: Profile ") + kSelectorNames[which] + " values are not self-consistent. " + problems[which]);
        }
    }
}

void warn_of_unread_inputs(Network const& network) {
    std::set<Tensor const*> read;
    for (Node const& node : network.mNodes) {
        read.insert(node.inputs.begin(), node.inputs.end());
    }
    for (Tensor const* const input : network.mInputs) {
        if (read.count(input) == 0) {
            say(network.mLogger, Severity::kWARNING, "stand-in: Unused Input: " + input->mName);
        }
    }
}

}  // namespace

Told Told::now() {
    Told told;
    char const* const text = std::getenv("TRTLLM_STAND_IN_TENSORRT");
    std::istringstream words(text == nullptr ? "" : text);
    for (std::string word; std::getline(words, word, ',');) {
        told.fail = told.fail || word == "fail";
        if (word.rfind("build_ms=", 0) == 0) {
            told.build_ms = std::atoi(word.c_str() + 9);
        }
    }
    return told;
}

void check(Network const& network, Config const& config) {
    char const* const building = std::getenv("IS_BUILDING");
    if (building == nullptr || std::string(building) != "1") {
        throw std::runtime_error("stand-in: IS_BUILDING is not 1 in the environment: plugins would run while they are timed");
    }
    if (network.mOutputs.empty()) {
        refuse("Network must have at least one output.");
    }
    check_layers(network);
    warn_of_unread_inputs(network);
    bool const open = std::any_of(network.mInputs.begin(), network.mInputs.end(), [](auto const* input) { return is_open(*input); });
    if (config.mProfiles.empty() && open) {
        refuse("Network has dynamic or shape inputs, but no optimization profile has been defined.");
    }
    for (std::size_t i = 0; i < config.mProfiles.size(); i++) {
        auto const number = std::to_string(i);
        auto shapes = shapes_in(network, *config.mProfiles[i], number);
        unite_names(shapes);
        check_sizes(network, shapes, number);
    }
}

}  // namespace stand_in
