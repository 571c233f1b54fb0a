// What TensorRT finds only when it builds, and what a plan says.
#include <array>
#include <cstdlib>
#include <sstream>

#include "nvinfer_builder.h"
#include "nvinfer_json.h"

namespace stand_in {

using nvinfer1::OptProfileSelector;

namespace {

constexpr std::array kSelectors{OptProfileSelector::kMIN, OptProfileSelector::kOPT, OptProfileSelector::kMAX};

[[noreturn]] void refuse(std::string const& what) { throw std::runtime_error("stand-in: " + what); }

std::vector<Shape> shapes_of(Node const& node) {
    std::vector<Shape> shapes;
    for (Tensor const* const input : node.inputs) {
        shapes.push_back(input->mShape);
    }
    return shapes;
}

// The range that a dimension's name has so far.
using Ranges = std::map<std::string, std::array<std::int64_t, 3>>;

void check_profile(Network const& network, Profile const& profile) {
    Ranges ranges;
    for (Tensor const* const input : network.mInputs) {
        auto const found = profile.mShapes.find(input->mName);
        bool const told = found != profile.mShapes.end();
        for (std::size_t axis = 0; axis < input->mShape.dims.size(); axis++) {
            auto const size = input->mShape.dims[axis];
            std::array<std::int64_t, 3> range{size, size, size};
            if (!told && size < 0) {
                refuse("input " + input->mName + " has dynamic dimensions, and no optimization profile has it");
            }
            for (std::size_t which = 0; told && which < range.size(); which++) {
                auto const& shape = found->second.at(kSelectors[which]);
                if (shape.size() != input->mShape.dims.size()) {
                    refuse("the profile of input " + input->mName + " has another rank");
                }
                range[which] = shape[axis];
            }
            if (size >= 0 && (range[0] != size || range[2] != size)) {
                refuse("the profile of input " + input->mName + " changes static dimension " + std::to_string(axis));
            }
            auto const name = input->mDimensions.find(static_cast<std::int32_t>(axis));
            if (name != input->mDimensions.end() && ranges.emplace(name->second, range).first->second != range) {
                refuse("dimension " + name->second + " has another range in input " + input->mName);
            }
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
        refuse("IS_BUILDING is not 1 in the environment: plugins would run while they are timed");
    }
    if (network.mOutputs.empty()) {
        refuse("the network must have at least one output");
    }
    if (config.mProfiles.empty()) {
        check_profile(network, Profile(network.mLogger));
    }
    for (Profile const* const profile : config.mProfiles) {
        check_profile(network, *profile);
    }
    for (Node const& node : network.mNodes) {
        auto const problem = node.plugin == nullptr ? node.output->mProblem : node.plugin->problem(shapes_of(node));
        if (!problem.empty()) {
            refuse(node.name + ": " + problem);
        }
    }
}

std::string plan_header(Network const& network, Config const& config) {
    auto const inputs = list(network.mInputs, [&](Tensor const* input) {
        std::string dims;
        for (auto const& [axis, name] : input->mDimensions) {
            dims += (dims.empty() ? "" : ",") + quote(std::to_string(axis)) + ":" + quote(name);
        }
        std::vector<Profile const*> told;
        for (Profile const* const profile : config.mProfiles) {
            if (profile->mShapes.count(input->mName) > 0) {
                told.push_back(profile);
            }
        }
        auto const profiles = list(told, [&](Profile const* profile) {
            auto const& shapes = profile->mShapes.at(input->mName);
            return "{\"min\":" + integers(shapes.at(OptProfileSelector::kMIN)) +
                   ",\"opt\":" + integers(shapes.at(OptProfileSelector::kOPT)) +
                   ",\"max\":" + integers(shapes.at(OptProfileSelector::kMAX)) + "}";
        });
        return "{\"name\":" + quote(input->mName) + ",\"dtype\":" + quote(name_of(input->mShape.type)) +
               ",\"shape\":" + integers(input->mShape.dims) + ",\"dims\":{" + dims + "},\"profiles\":" + profiles + "}";
    });
    std::size_t offset = 0;
    auto const layers = list(network.mNodes, [&](Node const& node) {
        std::string more = node.more;
        if (node.kind == "Constant") {
            auto const weight = network.mWeights.find(node.weights.values);
            auto const bytes = static_cast<std::size_t>(node.weights.count) * bytes_of(node.weights.type);
            more = "\"of\":" + quote(weight == network.mWeights.end() ? node.name : weight->second) +
                   ",\"offset\":" + std::to_string(offset) + ",\"bytes\":" + std::to_string(bytes);
            offset += bytes;
        }
        return "{\"id\":" + quote(node.output->mId) + ",\"name\":" + quote(node.name) + ",\"kind\":" + quote(node.kind) +
               ",\"in\":" + list(node.inputs, [](Tensor const* input) { return quote(input->mId); }) +
               ",\"dtype\":" + quote(name_of(node.output->mShape.type)) +
               ",\"shape\":" + integers(node.output->mShape.dims) + "," + more + "}";
    });
    auto const outputs = list(network.mOutputs, [](Tensor const* output) {
        return "[" + quote(output->mName) + "," + quote(name_of(output->mShape.type)) + "," +
               integers(output->mShape.dims) + "," + quote(output->mId) + "]";
    });
    auto const json = "{\"name\":" + quote(network.mName) + ",\"flags\":[\"STRONGLY_TYPED\"],\"inputs\":" + inputs +
                      ",\"layers\":" + layers + ",\"outputs\":" + outputs + "}";
    std::string header = "TRTLLM-STAND-IN-PLAN\n";
    for (std::size_t i = 0; i < 8; i++) {
        header += static_cast<char>(json.size() >> (8 * i) & 0xff);
    }
    return header + json;
}

}  // namespace stand_in
