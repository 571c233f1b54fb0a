// The builder of the stand-in's TensorRT, and the functions that its library exports.
#include "nvinfer_builder.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <mutex>
#include <sstream>
#include <thread>
#include <utility>

#include "gpus.h"

namespace stand_in {

using nvinfer1::ILogger;
using nvinfer1::OptProfileSelector;
using Severity = ILogger::Severity;

namespace {

constexpr char const* kCacheMagic = "TRTLLM-STAND-IN-TIMING";
thread_local int chosen = 0;

std::string gpu_name() {
    auto const all = gpus();
    auto const number = static_cast<std::size_t>(chosen);
    return number < all.size() ? all[number].name : "";
}

class Builder : public nvinfer1::IBuilder {
public:
    explicit Builder(ILogger& logger) : mLogger(logger) {}

    nvinfer1::IBuilderConfig* createBuilderConfig() noexcept override { return new Config(mLogger); }

    nvinfer1::INetworkDefinition* createNetworkV2(nvinfer1::NetworkDefinitionCreationFlags flags) noexcept override {
        if (flags != 1U << static_cast<int>(nvinfer1::NetworkDefinitionCreationFlag::kSTRONGLY_TYPED)) {
            say(mLogger, Severity::kERROR, "stand-in: only strongly typed networks are played");
            return nullptr;
        }
        return new Network(mLogger);
    }

    nvinfer1::IOptimizationProfile* createOptimizationProfile() noexcept override {
        mProfiles.push_back(std::make_unique<Profile>(mLogger));
        return mProfiles.back().get();
    }

    nvinfer1::IHostMemory* buildSerializedNetwork(nvinfer1::INetworkDefinition& network,
                                                  nvinfer1::IBuilderConfig& config) noexcept override {
        std::string plan;
        auto const append = [&](void const* data, std::size_t size) {
            plan.append(static_cast<char const*>(data), size);
            return true;
        };
        bool const built = build(static_cast<Network&>(network), static_cast<Config&>(config), append);
        return built ? new HostMemory(std::move(plan)) : nullptr;
    }

    bool buildSerializedNetworkToStream(nvinfer1::INetworkDefinition& network, nvinfer1::IBuilderConfig& config,
                                        nvinfer1::IStreamWriter& writer) noexcept override {
        auto const append = [&](void const* data, std::size_t size) {
            return writer.write(data, static_cast<std::int64_t>(size)) == static_cast<std::int64_t>(size);
        };
        return build(static_cast<Network&>(network), static_cast<Config&>(config), append);
    }

private:
    template <typename Write>
    bool build(Network const& network, Config const& config, Write write) noexcept {
        return guarded(mLogger, false, [&] {
            say(mLogger, Severity::kINFO, "stand-in: builds on GPU " + std::to_string(chosen) + ", " + gpu_name());
            if (gpus().size() <= static_cast<std::size_t>(chosen)) {
                throw std::runtime_error("stand-in: there is no GPU " + std::to_string(chosen));
            }
            check(network, config);
            bool const done = time_layers(network, config);
            if (!done) {
                // An error to TensorRT, though somebody asked for it.
                say_error(mLogger, "IBuilder::buildSerializedNetwork", 7, "BuildCanceled (the build was stopped)");
                return false;
            }
            auto const header = plan_header(network, config);
            if (!write(header.data(), header.size())) {
                throw std::runtime_error("stand-in: the plan cannot be written");
            }
            for (Node const& node : network.mNodes) {
                auto const bytes = static_cast<std::size_t>(node.weights.count) * bytes_of(node.weights.type);
                if (node.kind == "Constant" && bytes > 0 && !write(node.weights.values, bytes)) {
                    throw std::runtime_error("stand-in: the plan cannot be written");
                }
            }
            return true;
        });
    }

    // Whether nobody said to stop.
    bool time_layers(Network const& network, Config const& config) {
        auto const told = Told::now();
        std::vector<Node const*> layers;
        for (Node const& node : network.mNodes) {
            if (node.kind != "Constant") {
                layers.push_back(&node);
            }
        }
        auto const steps = static_cast<std::int32_t>(std::max<std::size_t>(layers.size(), 1));
        auto* const monitor = config.mMonitor;
        if (monitor != nullptr) {
            monitor->phaseStart("Building engine", nullptr, 1);
            monitor->phaseStart("Tactics", "Building engine", steps);
        }
        bool goes_on = true;
        for (std::int32_t step = 0; goes_on && step < steps; step++) {
            std::this_thread::sleep_for(std::chrono::milliseconds(told.build_ms));
            if (config.mTimingCache != nullptr && !layers.empty()) {
                config.mTimingCache->mKinds[layers[static_cast<std::size_t>(step)]->kind] = true;
            }
            goes_on = monitor == nullptr || monitor->stepComplete("Tactics", step);
        }
        if (monitor != nullptr) {
            monitor->phaseFinish("Tactics");
            goes_on = goes_on && monitor->stepComplete("Building engine", 0);
            monitor->phaseFinish("Building engine");
        }
        if (goes_on && told.fail) {
            throw std::runtime_error("stand-in: Error Code 10: Internal Error (Could not find any implementation, as told)");
        }
        return goes_on;
    }

    ILogger& mLogger;
    std::vector<std::unique_ptr<Profile>> mProfiles;
};

class Registry : public nvinfer1::IPluginRegistry {
public:
    bool registerCreator(nvinfer1::IPluginCreatorInterface& creator, char const* const space) noexcept override {
        std::lock_guard<std::mutex> const lock(mMutex);
        auto& one = static_cast<nvinfer1::IPluginCreator&>(creator);
        return mCreators.emplace(Key{one.getPluginName(), one.getPluginVersion(), space}, &creator).second;
    }

    nvinfer1::IPluginCreatorInterface* getCreator(char const* const name, char const* const version,
                                                  char const* const space) noexcept override {
        std::lock_guard<std::mutex> const lock(mMutex);
        auto const found = mCreators.find(Key{name, version, space});
        return found == mCreators.end() ? nullptr : found->second;
    }

private:
    using Key = std::array<std::string, 3>;
    std::mutex mMutex;
    std::map<Key, nvinfer1::IPluginCreatorInterface*> mCreators;
};

}  // namespace

// Whatever they are: isValid looks at them.
bool Profile::setDimensions(char const* inputName, OptProfileSelector select, nvinfer1::Dims const& dims) noexcept {
    mShapes[inputName][select] = to_sizes(dims);
    return true;
}

bool Profile::isValid() const noexcept {
    for (auto const& [name, shapes] : mShapes) {
        Sizes before;
        bool ordered = shapes.size() == 3;
        for (auto const& [_, shape] : shapes) {
            for (std::size_t i = 0; i < std::min(before.size(), shape.size()); i++) {
                ordered = ordered && before[i] <= shape[i];
            }
            before = shape;
        }
        if (!ordered) {
            say_error(mLogger, "IOptimizationProfile::isValid", 4,
                      "API Usage Error (Invalid optimization profiles for input tensors " + name +
                          ", please ensure that the optimization profiles satisfy MIN<=OPT<=MAX.)");
            return false;
        }
    }
    return true;
}

nvinfer1::IHostMemory* TimingCache::serialize() const noexcept {
    std::string text = std::string(kCacheMagic) + "\n" + mGpu + "\n";
    for (auto const& [kind, _] : mKinds) {
        text += kind + "\n";
    }
    return new HostMemory(text);
}

std::int32_t Config::addOptimizationProfile(nvinfer1::IOptimizationProfile const* profile) noexcept {
    if (profile == nullptr || !profile->isValid()) {
        say_error(mLogger, "IBuilderConfig::addOptimizationProfile", 3,
                  "API Usage Error (Parameter check failed, condition: profile->isValid().)");
        return -1;
    }
    mProfiles.push_back(static_cast<Profile const*>(profile));
    return static_cast<std::int32_t>(mProfiles.size()) - 1;
}

nvinfer1::ITimingCache* Config::createTimingCache(void const* blob, std::size_t size) const noexcept {
    auto cache = std::make_unique<TimingCache>();
    if (size == 0) {
        cache->mGpu = gpu_name();
        return cache.release();
    }
    std::istringstream lines(std::string(static_cast<char const*>(blob), size));
    std::string line;
    if (!std::getline(lines, line) || line != kCacheMagic || !std::getline(lines, cache->mGpu)) {
        say(mLogger, Severity::kERROR, "stand-in: these bytes are no timing cache");
        return nullptr;
    }
    while (std::getline(lines, line)) {
        cache->mKinds[line] = true;
    }
    say(mLogger, Severity::kINFO, "stand-in: a timing cache with " + std::to_string(cache->mKinds.size()) + " kinds of layers");
    return cache.release();
}

bool Config::setTimingCache(nvinfer1::ITimingCache const& cache, bool ignoreMismatch) noexcept {
    auto const& given = static_cast<TimingCache const&>(cache);
    if (!ignoreMismatch && given.mGpu != gpu_name()) {
        say(mLogger, Severity::kERROR, "stand-in: the timing cache is of " + given.mGpu);
        return false;
    }
    mTimingCache = const_cast<TimingCache*>(&given);
    return true;
}

}  // namespace stand_in

extern "C" {

std::int32_t getInferLibVersion() noexcept { return NV_TENSORRT_VERSION; }

nvinfer1::IPluginRegistry* getPluginRegistry() noexcept {
    static stand_in::Registry registry;
    return &registry;
}

void* createInferBuilder_INTERNAL(void* logger, std::int32_t version) noexcept {
    auto& log = *static_cast<nvinfer1::ILogger*>(logger);
    if (version != NV_TENSORRT_VERSION) {
        stand_in::say(log, nvinfer1::ILogger::Severity::kERROR, "stand-in: compiled against another TensorRT");
        return nullptr;
    }
    return static_cast<nvinfer1::IBuilder*>(new stand_in::Builder(log));
}

// CUDA's runtime, as far as building needs it.
int cudaSetDevice(int device) {
    constexpr int kInvalidDevice = 101;
    if (device < 0 || static_cast<std::size_t>(device) >= stand_in::gpus().size()) {
        return kInvalidDevice;
    }
    stand_in::chosen = device;
    return 0;
}

}  // extern "C"
