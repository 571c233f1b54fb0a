#if TRTLLM_GPU_TENSORRT

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <optional>
#include <stdexcept>

#include <dlfcn.h>

#include "guard.h"
#include "network.h"
#include "plugins.h"

#ifdef TRT_MAJOR_RTX
// TensorRT for RTX counts its versions from 1.
#define TRTLLM_GPU_STREAMS 1
#else
#define TRTLLM_GPU_STREAMS (NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 1013)
#endif

namespace shim {

namespace {

constexpr std::size_t kPiece = std::size_t{16} << 20;

// IS_BUILDING=1, by which TensorRT-LLM's plugins know that they must not run: attention would read what is not there, and
// collectives would wait for other processes.
class Building {
public:
    Building() {
        std::lock_guard<std::mutex> const lock(mutex());
        if (count()++ == 0) {
            char const* const value = std::getenv(kName);
            before() = value == nullptr ? std::nullopt : std::optional<std::string>(value);
            setenv(kName, "1", 1);
        }
    }
    ~Building() {
        std::lock_guard<std::mutex> const lock(mutex());
        if (--count() > 0) {
            return;
        }
        if (before()) {
            setenv(kName, before()->c_str(), 1);
        } else {
            unsetenv(kName);
        }
    }
    Building(Building const&) = delete;
    Building& operator=(Building const&) = delete;

private:
    static constexpr char const* kName = "IS_BUILDING";
    static std::mutex& mutex() {
        static std::mutex one;
        return one;
    }
    static int& count() {
        static int one = 0;
        return one;
    }
    static std::optional<std::string>& before() {
        static std::optional<std::string> one;
        return one;
    }
};

class Progress : public nvinfer1::IProgressMonitor {
public:
    explicit Progress(trtllm_gpu_build const& build) : mBuild(build) {}

    void phaseStart(char const* phase, char const* parent, std::int32_t steps) noexcept override {
        guarded(nullptr, [&] {
            std::lock_guard<std::mutex> const lock(mMutex);
            Phase const started{parent == nullptr ? std::nullopt : std::optional<std::string>(parent), 0, steps};
            say(phase, mPhases[phase] = started);
        });
    }

    bool stepComplete(char const* phase, std::int32_t step) noexcept override {
        guarded(nullptr, [&] {
            std::lock_guard<std::mutex> const lock(mMutex);
            auto const found = mPhases.find(phase);
            if (found != mPhases.end()) {
                found->second.step = std::min(step + 1, found->second.steps);
                say(phase, found->second);
            }
        });
        return !mStopped;
    }

    void phaseFinish(char const* phase) noexcept override {
        guarded(nullptr, [&] {
            std::lock_guard<std::mutex> const lock(mMutex);
            auto const found = mPhases.find(phase);
            if (found != mPhases.end()) {
                if (found->second.step != found->second.steps) {
                    found->second.step = found->second.steps;
                    say(phase, found->second);
                }
                mPhases.erase(found);
            }
        });
    }

    [[nodiscard]] bool stopped() const { return mStopped; }

private:
    struct Phase {
        std::optional<std::string> parent;
        std::int32_t step;
        std::int32_t steps;
    };

    void say(char const* name, Phase const& phase) {
        char const* const parent = phase.parent ? phase.parent->c_str() : nullptr;
        if (!mStopped && mBuild.progress != nullptr &&
            !mBuild.progress(mBuild.user_data, name, parent, phase.step, phase.steps)) {
            mStopped = true;
        }
    }

    trtllm_gpu_build const& mBuild;
    std::mutex mMutex;
    std::map<std::string, Phase> mPhases;
    std::atomic<bool> mStopped{false};
};

bool write_pieces(trtllm_gpu_build_write write, void* userData, void const* data, std::size_t size) {
    auto const* const bytes = static_cast<unsigned char const*>(data);
    for (std::size_t at = 0; at < size; at += kPiece) {
        if (!write(userData, bytes + at, std::min(kPiece, size - at))) {
            return false;
        }
    }
    return true;
}

#if TRTLLM_GPU_STREAMS
// The plan, handed on as TensorRT writes it.
class Plan : public nvinfer1::IStreamWriter {
public:
    explicit Plan(trtllm_gpu_build const& build) : mBuild(build) {}

    std::int64_t write(void const* data, std::int64_t size) noexcept override {
        if (size < 0 || !write_pieces(mBuild.write_plan, mBuild.user_data, data, static_cast<std::size_t>(size))) {
            mRefused = true;
            return -1;
        }
        return size;
    }

    [[nodiscard]] bool refused() const { return mRefused; }

private:
    trtllm_gpu_build const& mBuild;
    bool mRefused = false;
};
#endif

template <typename Function>
Function symbol(void* library, char const* name) {
    return reinterpret_cast<Function>(dlsym(library, name));
}

// Makes the GPU's primary context the thread's, which every CUDA runtime in the process then uses, linked statically or not.
// Whether there is a driver for that.
bool choose_by_driver(std::int32_t device) {
    auto* const driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (driver == nullptr) {
        return false;
    }
    auto* const init = symbol<int (*)(unsigned int)>(driver, "cuInit");
    auto* const get = symbol<int (*)(int*, int)>(driver, "cuDeviceGet");
    auto* const retain = symbol<int (*)(void**, int)>(driver, "cuDevicePrimaryCtxRetain");
    auto* const make_current = symbol<int (*)(void*)>(driver, "cuCtxSetCurrent");
    int number = 0;
    void* context = nullptr;
    return init != nullptr && get != nullptr && retain != nullptr && make_current != nullptr && init(0) == 0 &&
           get(&number, device) == 0 && retain(&context, number) == 0 && make_current(context) == 0;
}

void add_profiles(trtllm_gpu_network& network, nvinfer1::IBuilderConfig& config) {
    using nvinfer1::OptProfileSelector;
    std::size_t count = 0;
    for (auto const& input : network.inputs) {
        count = std::max(count, input.profiles.size());
    }
    for (std::size_t i = 0; i < count; i++) {
        auto const which = "profile " + std::to_string(i);
        // The builder's own, freed with it.
        auto* const profile = network.builder->createOptimizationProfile();
        if (profile == nullptr) {
            network.log->fail("TensorRT makes no " + which);
        }
        for (auto const& input : network.inputs) {
            if (i >= input.profiles.size()) {
                if (input.dynamic) {
                    throw std::runtime_error("input `" + input.name + "` has no " + which);
                }
                continue;
            }
            auto const& shapes = input.profiles[i];
            if (!profile->setDimensions(input.name.c_str(), OptProfileSelector::kMIN, shapes[0]) ||
                !profile->setDimensions(input.name.c_str(), OptProfileSelector::kOPT, shapes[1]) ||
                !profile->setDimensions(input.name.c_str(), OptProfileSelector::kMAX, shapes[2])) {
                network.log->fail("input `" + input.name + "` does not take its " + which);
            }
        }
        if (!profile->isValid()) {
            network.log->fail(which + " is not valid");
        }
        if (config.addOptimizationProfile(profile) < 0) {
            network.log->fail(which + " does not fit the network");
        }
    }
}

std::unique_ptr<nvinfer1::ITimingCache> set_timing_cache(trtllm_gpu_network& network, trtllm_gpu_build const& build,
                                                         nvinfer1::IBuilderConfig& config) {
    std::unique_ptr<nvinfer1::ITimingCache> cache;
    if (build.timing_cache_len > 0) {
        cache.reset(config.createTimingCache(build.timing_cache, build.timing_cache_len));
        if (cache && config.setTimingCache(*cache, false)) {
            return cache;
        }
        network.log->log(nvinfer1::ILogger::Severity::kWARNING,
                         "the timing cache is of another TensorRT or another GPU, and is left out");
        network.log->forget();
    }
    cache.reset(config.createTimingCache(nullptr, 0));
    if (!cache || !config.setTimingCache(*cache, false)) {
        network.log->fail("TensorRT makes no timing cache");
    }
    return cache;
}

void write_timing_cache(trtllm_gpu_network& network, trtllm_gpu_build const& build,
                        nvinfer1::IBuilderConfig const& config) {
    auto const* const cache = config.getTimingCache();
    std::unique_ptr<nvinfer1::IHostMemory> const bytes(cache == nullptr ? nullptr : cache->serialize());
    if (!bytes) {
        network.log->fail("TensorRT does not give its timing cache");
    }
    if (!write_pieces(build.write_timing_cache, build.user_data, bytes->data(), bytes->size())) {
        throw std::runtime_error("the timing cache was not kept");
    }
}

}  // namespace

void choose_device(std::int32_t device) {
    auto* const set = symbol<int (*)(int)>(RTLD_DEFAULT, "cudaSetDevice");
    if (set == nullptr) {
        if (device != 0 && !choose_by_driver(device)) {
            throw std::runtime_error("no CUDA is loaded that chooses GPU " + std::to_string(device) +
                                     ": let CUDA_VISIBLE_DEVICES name one GPU");
        }
        return;
    }
    if (int const status = set(device); status != 0) {
        throw std::runtime_error("CUDA does not choose GPU " + std::to_string(device) + ": error " +
                                 std::to_string(status));
    }
}

void build_network(trtllm_gpu_network& network, trtllm_gpu_build const& build) {
    choose_device(network.device);
    Progress progress(build);
    std::unique_ptr<nvinfer1::IBuilderConfig> const config(network.builder->createBuilderConfig());
    if (!config) {
        network.log->fail("TensorRT makes no configuration");
    }
    config->setProfilingVerbosity(nvinfer1::ProfilingVerbosity::kLAYER_NAMES_ONLY);
    config->setProgressMonitor(&progress);
#if TRTLLM_GPU_REFEREE
    set_target(network, *config);
#endif
    add_profiles(network, *config);
    auto const cache = set_timing_cache(network, build, *config);
    Building const building;
    auto const check = [&](bool built, bool kept) {
        if (progress.stopped()) {
            throw Cancelled();
        }
        if (!kept) {
            throw std::runtime_error("the plan was not kept");
        }
        if (!built) {
            network.log->fail("TensorRT builds no engine");
        }
    };
#if TRTLLM_GPU_STREAMS
    Plan plan(build);
    bool const built = network.builder->buildSerializedNetworkToStream(*network.network, *config, plan);
    check(built, !plan.refused());
#else
    std::unique_ptr<nvinfer1::IHostMemory> const plan(
        network.builder->buildSerializedNetwork(*network.network, *config));
    check(plan != nullptr, true);
    check(true, write_pieces(build.write_plan, build.user_data, plan->data(), plan->size()));
#endif
    if (build.write_timing_cache != nullptr) {
        write_timing_cache(network, build, *config);
    }
}

}  // namespace shim

#endif  // TRTLLM_GPU_TENSORRT
