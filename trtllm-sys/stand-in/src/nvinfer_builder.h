// How the stand-in's TensorRT builds.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "nvinfer_network.h"

namespace stand_in {

class Profile : public nvinfer1::IOptimizationProfile {
public:
    explicit Profile(nvinfer1::ILogger& logger) : mLogger(logger) {}
    bool setDimensions(char const* inputName, nvinfer1::OptProfileSelector select,
                       nvinfer1::Dims const& dims) noexcept override;
    bool isValid() const noexcept override;

    nvinfer1::ILogger& mLogger;
    // Least, best and greatest shape; empty: not told.
    std::map<std::string, std::map<nvinfer1::OptProfileSelector, Sizes>> mShapes;
};

class HostMemory : public nvinfer1::IHostMemory {
public:
    explicit HostMemory(std::string bytes) : mBytes(std::move(bytes)) {}
    void* data() const noexcept override { return const_cast<char*>(mBytes.data()); }
    std::size_t size() const noexcept override { return mBytes.size(); }

private:
    std::string mBytes;
};

// What was measured, a line for each kind of layer, on the GPU that it names.
class TimingCache : public nvinfer1::ITimingCache {
public:
    nvinfer1::IHostMemory* serialize() const noexcept override;

    std::string mGpu;
    std::map<std::string, bool> mKinds;
};

class Config : public nvinfer1::IBuilderConfig {
public:
    explicit Config(nvinfer1::ILogger& logger) : mLogger(logger) {}
    std::int32_t addOptimizationProfile(nvinfer1::IOptimizationProfile const* profile) noexcept override;
    void setProfilingVerbosity(nvinfer1::ProfilingVerbosity) noexcept override {}
    nvinfer1::ITimingCache* createTimingCache(void const* blob, std::size_t size) const noexcept override;
    bool setTimingCache(nvinfer1::ITimingCache const& cache, bool ignoreMismatch) noexcept override;
    nvinfer1::ITimingCache const* getTimingCache() const noexcept override { return mTimingCache; }
    void setProgressMonitor(nvinfer1::IProgressMonitor* monitor) noexcept override { mMonitor = monitor; }

    nvinfer1::ILogger& mLogger;
    std::vector<Profile const*> mProfiles;
    nvinfer1::IProgressMonitor* mMonitor = nullptr;
    TimingCache* mTimingCache = nullptr;
};

// Throws what TensorRT refuses only when it builds.
void check(Network const& network, Config const& config);

// The plan without the constants' bytes.
std::string plan_header(Network const& network, Config const& config);

// What TRTLLM_STAND_IN_TENSORRT says: `fail`, `build_ms=N` (between steps), separated by commas.
struct Told {
    bool fail = false;
    int build_ms = 0;
    static Told now();
};

}  // namespace stand_in
