// Asks a builder of TensorRT for each of the networks of a table (small_networks.txt), and compares what it says with what the table
// has. Compiled against TensorRT's headers and linked with its library: a real one, or the stand-in.
//
//     small_networks TABLE [COMPUTE-CAPABILITY]      e.g. 8.0; of TensorRT for RTX only
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "NvInfer.h"

// TensorRT 11 takes no other networks, and marks the flag as going away.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace {

using namespace nvinfer1;
using Words = std::vector<std::string>;

struct Log : ILogger {
    void log(Severity severity, char const* message) noexcept override {
        // Where there is no GPU, each call that fails says that, too.
        bool const no_gpu = std::strstr(message, "cudaError") || std::strstr(message, "checkMacros");
        if (severity <= Severity::kWARNING && !no_gpu) {
            said.push_back((severity == Severity::kWARNING ? "warning: " : "error: ") + std::string(message));
        }
    }
    std::vector<std::string> said;
};

struct Small {
    std::string name;
    std::vector<Words> lines;
};

std::map<std::string, DataType> const kTypes{{"fp32", DataType::kFLOAT}, {"bf16", DataType::kBF16},
                                             {"int32", DataType::kINT32}, {"int64", DataType::kINT64}};
std::map<std::string, ElementWiseOperation> const kElementWise{
    {"sum", ElementWiseOperation::kSUM}, {"prod", ElementWiseOperation::kPROD}, {"sub", ElementWiseOperation::kSUB},
    {"div", ElementWiseOperation::kDIV}, {"pow", ElementWiseOperation::kPOW}};

// `[-1,4]`
Dims dims_of(std::string const& text) {
    std::istringstream sizes(text.substr(1, text.size() - 2));
    Dims dims{};
    for (std::string size; std::getline(sizes, size, ',');) {
        dims.d[dims.nbDims++] = std::stoll(size);
    }
    return dims;
}

std::string text_of(Dims const& dims) {
    if (dims.nbDims < 0) {
        return "invalid";
    }
    std::string text;
    for (int i = 0; i < dims.nbDims; i++) {
        text += (i == 0 ? "" : ",") + std::to_string(dims.d[i]);
    }
    return "[" + text + "]";
}

// `a*5000` is that many.
std::string name_of(std::string const& word) {
    auto const star = word.find('*');
    return star == std::string::npos ? word : std::string(std::stoul(word.substr(star + 1)), word[0]);
}

// One network of the table, as far as it is made.
class Asked {
public:
    explicit Asked(IBuilder& builder)
        : mBuilder(builder),
          mNetwork(builder.createNetworkV2(1U << static_cast<int>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED))),
          mProfile(builder.createOptimizationProfile()) {}

    // One line of the table.
    void line(Words const& words) {
        std::string const& what = words[0];
        if (what == "is") {
            return expect(words);
        }
        if (what == "no-profile") {
            mUsesProfile = false;
        } else if (what == "profile-invalid") {
            mProfileIsValid = false;
        } else if (what == "input") {
            input(words);
        } else if (what == "profile") {
            profile(words[1], dims_of(words[2]), dims_of(words[3]), dims_of(words[4]));
        } else if (what == "constant") {
            constant(words);
        } else if (what == "name-layer") {
            auto& layer = *mLayers.at(words[1]);
            layer.setName(name_of(words[2]).c_str());
            named(words, layer.getName());
        } else if (what == "name-dimension") {
            mTensors.at(words[1])->setDimensionName(std::stoi(words[2]), name_of(words[3]).c_str());
        } else if (what == "name-weights") {
            bool const took = mNetwork->setWeightsName(mWeights.at(words[1]), name_of(words[2]).c_str());
            check(took == (words.size() == 3), "setWeightsName says " + std::to_string(took));
        } else if (auto* const tensor = find(words[1]); what == "output" && tensor != nullptr) {
            tensor->setName(name_of(words[2]).c_str());
            named(words, tensor->getName());
            mNetwork->markOutput(*tensor);
        } else if (what == "mark") {
            mNetwork->markOutput(*tensor);
            check(tensor->isNetworkOutput() == (words.size() == 2), "isNetworkOutput is " + std::to_string(tensor->isNetworkOutput()));
        } else if (what != "output") {
            keep(words[1], layer(words));
        }
    }

    // Builds, and gives whether there is a plan.
    bool build(char const* capability) {
        std::unique_ptr<IBuilderConfig> const config(mBuilder.createBuilderConfig());
#ifdef TRT_MAJOR_RTX
        auto const number = static_cast<ComputeCapability>(std::lround(std::atof(capability) * 10));
        config->setNbComputeCapabilities(1);
        check(config->setComputeCapability(number, 0), "the compute capability is refused");
#else
        static_cast<void>(capability);
#endif
        if (mUsesProfile) {
            check(mProfile->isValid() == mProfileIsValid, "the profile's isValid is " + std::to_string(!mProfileIsValid));
            int const index = config->addOptimizationProfile(mProfile);
            check(index == (mProfileIsValid ? 0 : -1), "addOptimizationProfile says " + std::to_string(index));
        }
        std::unique_ptr<IHostMemory> const plan(mBuilder.buildSerializedNetwork(*mNetwork, *config));
        return plan != nullptr;
    }

    void check(bool holds, std::string const& otherwise) {
        if (!holds) {
            wrong.push_back(otherwise);
        }
    }

    std::vector<std::string> wrong;

private:
    ITensor* find(std::string const& name) const {
        auto const found = mTensors.find(name);
        return found == mTensors.end() ? nullptr : found->second;
    }

    void keep(std::string const& name, ILayer* layer) {
        mLayers[name] = layer;
        mTensors[name] = layer == nullptr ? nullptr : layer->getOutput(0);
    }

    // `is NAME TYPE DIMS`, `is NAME none`
    void expect(Words const& words) {
        auto const* const tensor = find(words[1]);
        if (words[2] == "none" || tensor == nullptr) {
            return check((words[2] == "none") == (tensor == nullptr), words[1] + (tensor ? " is there" : " is null"));
        }
        auto const dims = text_of(tensor->getDimensions());
        check(tensor->getType() == kTypes.at(words[2]) && dims == words[3],
              words[1] + " is " + dims + " of type " + std::to_string(static_cast<int>(tensor->getType())));
    }

    // A fourth word `kept`: the name is not taken, and the old one stays.
    void named(Words const& words, char const* now) {
        bool const took = name_of(words[2]) == now;
        check(took == (words.size() == 3), words[1] + " is called " + now);
    }

    void input(Words const& words) {
        auto const dims = dims_of(words[3]);
        auto* const added = mNetwork->addInput(name_of(words[1]).c_str(), kTypes.at(words[2]), dims);
        mTensors.emplace(words[1], added);
        if (words.size() == 5 && words[4] == "refused") {
            return check(added == nullptr, "a second input " + words[1] + " is there");
        }
        if (std::find(dims.d, dims.d + dims.nbDims, -1) == dims.d + dims.nbDims || words.size() == 5) {
            return;
        }
        Dims three[3] = {dims, dims, dims};
        std::int64_t const usual[3] = {1, 4, 8};
        for (std::size_t i = 0; i < 3; i++) {
            auto const size = words.size() > 4 ? std::stoll(words[4 + i]) : usual[i];
            std::replace(three[i].d, three[i].d + dims.nbDims, std::int64_t{-1}, static_cast<std::int64_t>(size));
        }
        profile(words[1], three[0], three[1], three[2]);
    }

    void profile(std::string const& name, Dims const& least, Dims const& best, Dims const& greatest) {
        bool const took = mProfile->setDimensions(name.c_str(), OptProfileSelector::kMIN, least) &
                          mProfile->setDimensions(name.c_str(), OptProfileSelector::kOPT, best) &
                          mProfile->setDimensions(name.c_str(), OptProfileSelector::kMAX, greatest);
        check(took, "setDimensions of " + name + " says false");
    }

    // `constant NAME TYPE DIMS [COUNT | null | odd | same-as NAME]`
    void constant(Words const& words) {
        auto const dims = dims_of(words[3]);
        std::int64_t count = 1;
        std::for_each(dims.d, dims.d + dims.nbDims, [&](std::int64_t size) { count *= size; });
        std::string const more = words.size() > 4 ? words[4] : "";
        bool const counted = !more.empty() && std::isdigit(static_cast<unsigned char>(more[0])) != 0;
        count = counted ? std::stoll(more) : count;
        mBytes.emplace_back(static_cast<std::size_t>(count) * 8 + 1);
        Weights weights{kTypes.at(words[2]), mBytes.back().data() + (more == "odd" ? 1 : 0), count};
        weights.values = more == "null" ? nullptr : weights.values;
        weights = more == "same-as" ? mWeights.at(words[5]) : weights;
        mWeights[words[1]] = weights;
        if (more != "unused") {
            keep(words[1], mNetwork->addConstant(dims, weights));
        }
    }

    ILayer* layer(Words const& words) {
        auto* const first = find(words[2]);
        if (first == nullptr) {
            return nullptr;
        }
        std::string const& what = words[0];
        auto const element_wise = kElementWise.find(what);
        if (element_wise != kElementWise.end()) {
            return mNetwork->addElementWise(*first, *mTensors.at(words[3]), element_wise->second);
        }
        if (what == "matmul") {
            auto const second = words.size() > 4 ? MatrixOperation::kTRANSPOSE : MatrixOperation::kNONE;
            return mNetwork->addMatrixMultiply(*first, MatrixOperation::kNONE, *mTensors.at(words[3]), second);
        }
        if (what == "gather") {
            return mNetwork->addGather(*first, *mTensors.at(words[3]), std::stoi(words[4]));
        }
        if (what == "cast") {
            return mNetwork->addCast(*first, kTypes.at(words[3]));
        }
        if (what == "mean") {
            return mNetwork->addReduce(*first, ReduceOperation::kAVG, static_cast<std::uint32_t>(std::stoul(words[3])), true);
        }
        if (what == "sqrt") {
            return mNetwork->addUnary(*first, UnaryOperation::kSQRT);
        }
        if (what == "sigmoid") {
            return mNetwork->addActivation(*first, ActivationType::kSIGMOID);
        }
        if (what == "shuffle") {
            auto* const shuffle = mNetwork->addShuffle(*first);
            shuffle->setZeroIsPlaceholder(false);
            shuffle->setReshapeDimensions(dims_of(words[3]));
            if (words.size() > 4) {
                Permutation order{};
                auto const axes = dims_of(words[4]);
                std::copy_n(axes.d, axes.nbDims, order.order);
                shuffle->setSecondTranspose(order);
            }
            return shuffle;
        }
        throw std::runtime_error("the table has a line `" + what + "`");
    }

    IBuilder& mBuilder;
    std::unique_ptr<INetworkDefinition> mNetwork;
    IOptimizationProfile* mProfile;
    bool mUsesProfile = true;
    bool mProfileIsValid = true;
    std::map<std::string, ITensor*> mTensors;
    std::map<std::string, ILayer*> mLayers;
    std::map<std::string, Weights> mWeights;
    std::vector<std::vector<char>> mBytes;
};

std::vector<Small> read(char const* path) {
    std::ifstream file(path);
    std::vector<Small> all;
    for (std::string line; std::getline(file, line);) {
        if (line.empty() || line[0] == '#') {
            continue;
        }
        if (line[0] != ' ') {
            all.push_back({line, {}});
            continue;
        }
        std::istringstream stream(line);
        Words words;
        for (std::string word; stream >> word;) {
            words.push_back(word);
        }
        if (words[0] == "says") {
            words = {"says", line.substr(line.find("says ") + 5)};
        }
        all.at(all.size() - 1).lines.push_back(words);
    }
    return all;
}

// What is other than the table has it.
std::vector<std::string> differences(IBuilder& builder, Log& log, Small const& small, char const* capability) {
    log.said.clear();
    Asked asked(builder);
    std::string verdict;
    std::vector<std::string> fragments;
    for (Words const& words : small.lines) {
        if (words[0] == "builds" || words[0] == "refused") {
            verdict = words[0];
        } else if (words[0] == "says") {
            fragments.push_back(words[1]);
        } else {
            asked.line(words);
        }
    }
    std::string const found = asked.build(capability) ? "builds" : "refused";
    asked.check(found == verdict, "it is `" + found + "`, and not `" + verdict + "`");
    for (std::string const& fragment : fragments) {
        bool const said = std::any_of(log.said.begin(), log.said.end(), [&](std::string const& line) {
            return line.find(fragment) != std::string::npos;
        });
        asked.check(said, "nothing says `" + fragment + "`");
    }
    asked.check(!fragments.empty() || log.said.empty(), "something is said");
    return asked.wrong;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::cerr << "usage: small_networks TABLE [COMPUTE-CAPABILITY]\n";
        return 2;
    }
    // What the shim sets when it builds.
    setenv("IS_BUILDING", "1", 1);
    Log log;
    std::unique_ptr<IBuilder> const builder(createInferBuilder(log));
    if (builder == nullptr) {
        std::cerr << "no builder\n";
        return 1;
    }
    auto const all = read(argv[1]);
    std::size_t others = 0;
    for (Small const& small : all) {
        auto const wrong = differences(*builder, log, small, argc > 2 ? argv[2] : "8.0");
        if (wrong.empty() && std::getenv("VERBOSE") == nullptr) {
            continue;
        }
        others += wrong.empty() ? 0 : 1;
        std::cout << small.name << "\n";
        for (std::string const& line : wrong) {
            std::cout << "    " << line << "\n";
        }
        for (std::string const& line : log.said) {
            std::cout << "        " << line.substr(0, 400) << "\n";
        }
    }
    std::cout << all.size() << " networks, " << others << " other than recorded\n";
    return others == 0 && !all.empty() ? 0 : 1;
}
