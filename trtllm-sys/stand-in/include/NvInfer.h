// A stand-in for TensorRT's header of this name: what the shim uses of it, with the names, numbers and signatures that
// TensorRT 10.14 has. For machines without TensorRT, in tests and benchmarks only.
#pragma once

#include <cstddef>
#include <cstdint>

#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR 14
#define NV_TENSORRT_PATCH 1
#define NV_TENSORRT_VERSION (NV_TENSORRT_MAJOR * 10000L + NV_TENSORRT_MINOR * 100L + NV_TENSORRT_PATCH)

namespace nvinfer1 {

using AsciiChar = char;
using InterfaceKind = char const*;

enum class DataType : std::int32_t {
    kFLOAT = 0,
    kHALF = 1,
    kINT8 = 2,
    kINT32 = 3,
    kBOOL = 4,
    kUINT8 = 5,
    kFP8 = 6,
    kBF16 = 7,
    kINT64 = 8,
    kINT4 = 9,
    kFP4 = 10,
    kE8M0 = 11,
};

class Dims64 {
public:
    static constexpr std::int32_t MAX_DIMS{8};
    std::int32_t nbDims;
    std::int64_t d[MAX_DIMS];
};
using Dims = Dims64;

class InterfaceInfo {
public:
    InterfaceKind kind;
    std::int32_t major;
    std::int32_t minor;
};

class IVersionedInterface {
public:
    virtual InterfaceInfo getInterfaceInfo() const noexcept = 0;
    virtual ~IVersionedInterface() noexcept = default;
};

class INoCopy {
protected:
    INoCopy() = default;
    virtual ~INoCopy() = default;
    INoCopy(INoCopy const&) = delete;
    INoCopy& operator=(INoCopy const&) = delete;
};

class ILogger {
public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
    virtual void log(Severity severity, AsciiChar const* msg) noexcept = 0;
    ILogger() = default;
    virtual ~ILogger() = default;
};

enum class PluginFieldType : std::int32_t {
    kFLOAT16 = 0,
    kFLOAT32 = 1,
    kFLOAT64 = 2,
    kINT8 = 3,
    kINT16 = 4,
    kINT32 = 5,
    kCHAR = 6,
    kDIMS = 7,
    kUNKNOWN = 8,
};

class PluginField {
public:
    AsciiChar const* name;
    void const* data;
    PluginFieldType type;
    std::int32_t length;

    PluginField(AsciiChar const* const name_ = nullptr, void const* const data_ = nullptr,
                PluginFieldType const type_ = PluginFieldType::kUNKNOWN, std::int32_t const length_ = 0) noexcept
        : name(name_), data(data_), type(type_), length(length_) {}
};

struct PluginFieldCollection {
    std::int32_t nbFields{};
    PluginField const* fields{};
};

class IPluginV2 {
public:
    virtual AsciiChar const* getPluginType() const noexcept = 0;
    virtual AsciiChar const* getPluginVersion() const noexcept = 0;
    virtual void destroy() noexcept = 0;
    virtual IPluginV2* clone() const noexcept = 0;
    virtual AsciiChar const* getPluginNamespace() const noexcept = 0;
    virtual ~IPluginV2() noexcept = default;
};

class IPluginCreatorInterface : public IVersionedInterface {};

class IPluginCreator : public IPluginCreatorInterface {
public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return InterfaceInfo{"PLUGIN CREATOR_V1", 1, 0}; }
    virtual AsciiChar const* getPluginName() const noexcept = 0;
    virtual AsciiChar const* getPluginVersion() const noexcept = 0;
    virtual IPluginV2* createPlugin(AsciiChar const* name, PluginFieldCollection const* fc) noexcept = 0;
};

class IPluginRegistry {
public:
    virtual bool registerCreator(IPluginCreatorInterface& creator, AsciiChar const* const pluginNamespace) noexcept = 0;
    virtual IPluginCreatorInterface* getCreator(AsciiChar const* const pluginName, AsciiChar const* const pluginVersion,
                                                AsciiChar const* const pluginNamespace = "") noexcept = 0;

protected:
    virtual ~IPluginRegistry() noexcept = default;
};

class Weights {
public:
    DataType type;
    void const* values;
    std::int64_t count;
};

class ITensor : public INoCopy {
public:
    virtual void setName(char const* name) noexcept = 0;
    virtual char const* getName() const noexcept = 0;
    virtual Dims getDimensions() const noexcept = 0;
    virtual DataType getType() const noexcept = 0;
    virtual bool isNetworkInput() const noexcept = 0;
    virtual bool isNetworkOutput() const noexcept = 0;
    virtual void setDimensionName(std::int32_t index, char const* name) noexcept = 0;
    virtual char const* getDimensionName(std::int32_t index) const noexcept = 0;
};

class ILayer : public INoCopy {
public:
    virtual void setName(char const* name) noexcept = 0;
    virtual char const* getName() const noexcept = 0;
    virtual std::int32_t getNbOutputs() const noexcept = 0;
    virtual ITensor* getOutput(std::int32_t index) const noexcept = 0;
};

enum class ActivationType : std::int32_t { kRELU = 0, kSIGMOID = 1, kTANH = 2 };
enum class ElementWiseOperation : std::int32_t { kSUM = 0, kPROD = 1, kMAX = 2, kMIN = 3, kSUB = 4, kDIV = 5, kPOW = 6 };
enum class UnaryOperation : std::int32_t { kEXP = 0, kLOG = 1, kSQRT = 2 };
enum class ReduceOperation : std::int32_t { kSUM = 0, kPROD = 1, kMAX = 2, kMIN = 3, kAVG = 4 };
enum class MatrixOperation : std::int32_t { kNONE = 0, kTRANSPOSE = 1, kVECTOR = 2 };
enum class NetworkDefinitionCreationFlag : std::int32_t { kEXPLICIT_BATCH = 0, kSTRONGLY_TYPED = 1 };
enum class ProfilingVerbosity : std::int32_t { kLAYER_NAMES_ONLY = 0, kNONE = 1, kDETAILED = 2 };
enum class OptProfileSelector : std::int32_t { kMIN = 0, kOPT = 1, kMAX = 2 };
using NetworkDefinitionCreationFlags = std::uint32_t;

struct Permutation {
    std::int32_t order[Dims::MAX_DIMS];
};

class IActivationLayer : public ILayer {};
class ICastLayer : public ILayer {};
class IConcatenationLayer : public ILayer {
public:
    virtual void setAxis(std::int32_t axis) noexcept = 0;
};
class IConstantLayer : public ILayer {};
class IElementWiseLayer : public ILayer {};
class IGatherLayer : public ILayer {};
class IIdentityLayer : public ILayer {};
class IMatrixMultiplyLayer : public ILayer {};
class IPluginV2Layer : public ILayer {};
class IReduceLayer : public ILayer {};
class IUnaryLayer : public ILayer {};
class IShuffleLayer : public ILayer {
public:
    virtual void setReshapeDimensions(Dims const& dimensions) noexcept = 0;
    virtual void setSecondTranspose(Permutation permutation) noexcept = 0;
    virtual void setZeroIsPlaceholder(bool zeroIsPlaceholder) noexcept = 0;
};

class INetworkDefinition : public INoCopy {
public:
    virtual ~INetworkDefinition() noexcept = default;
    virtual void setName(char const* name) noexcept = 0;
    virtual char const* getName() const noexcept = 0;
    virtual ITensor* addInput(char const* name, DataType type, Dims const& dimensions) noexcept = 0;
    virtual void markOutput(ITensor& tensor) noexcept = 0;
    virtual IActivationLayer* addActivation(ITensor& input, ActivationType type) noexcept = 0;
    virtual ICastLayer* addCast(ITensor& input, DataType toType) noexcept = 0;
    virtual IConcatenationLayer* addConcatenation(ITensor* const* inputs, std::int32_t nbInputs) noexcept = 0;
    virtual IConstantLayer* addConstant(Dims const& dimensions, Weights weights) noexcept = 0;
    virtual IElementWiseLayer* addElementWise(ITensor& input1, ITensor& input2, ElementWiseOperation op) noexcept = 0;
    virtual IGatherLayer* addGather(ITensor& data, ITensor& indices, std::int32_t axis) noexcept = 0;
    virtual IIdentityLayer* addIdentity(ITensor& input) noexcept = 0;
    virtual IMatrixMultiplyLayer* addMatrixMultiply(ITensor& input0, MatrixOperation op0, ITensor& input1,
                                                    MatrixOperation op1) noexcept = 0;
    virtual IPluginV2Layer* addPluginV2(ITensor* const* inputs, std::int32_t nbInputs, IPluginV2& plugin) noexcept = 0;
    virtual IReduceLayer* addReduce(ITensor& input, ReduceOperation operation, std::uint32_t reduceAxes,
                                    bool keepDimensions) noexcept = 0;
    virtual IShuffleLayer* addShuffle(ITensor& input) noexcept = 0;
    virtual IUnaryLayer* addUnary(ITensor& input, UnaryOperation operation) noexcept = 0;
    virtual bool setWeightsName(Weights weights, char const* name) noexcept = 0;
};

class IOptimizationProfile : public INoCopy {
public:
    virtual bool setDimensions(char const* inputName, OptProfileSelector select, Dims const& dims) noexcept = 0;
    virtual bool isValid() const noexcept = 0;
};

class IHostMemory : public INoCopy {
public:
    virtual ~IHostMemory() noexcept = default;
    virtual void* data() const noexcept = 0;
    virtual std::size_t size() const noexcept = 0;
};

class ITimingCache : public INoCopy {
public:
    virtual ~ITimingCache() noexcept = default;
    virtual IHostMemory* serialize() const noexcept = 0;
};

class IProgressMonitor : public IVersionedInterface {
public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return InterfaceInfo{"IProgressMonitor", 1, 0}; }
    virtual void phaseStart(char const* phaseName, char const* parentPhase, std::int32_t nbSteps) noexcept = 0;
    virtual bool stepComplete(char const* phaseName, std::int32_t step) noexcept = 0;
    virtual void phaseFinish(char const* phaseName) noexcept = 0;
};

class IStreamWriter : public IVersionedInterface {
public:
    InterfaceInfo getInterfaceInfo() const noexcept final { return InterfaceInfo{"IStreamWriter", 1, 0}; }
    virtual std::int64_t write(void const* data, std::int64_t nbBytes) = 0;
};

class IBuilderConfig : public INoCopy {
public:
    virtual ~IBuilderConfig() noexcept = default;
    virtual std::int32_t addOptimizationProfile(IOptimizationProfile const* profile) noexcept = 0;
    virtual void setProfilingVerbosity(ProfilingVerbosity verbosity) noexcept = 0;
    virtual ITimingCache* createTimingCache(void const* blob, std::size_t size) const noexcept = 0;
    virtual bool setTimingCache(ITimingCache const& cache, bool ignoreMismatch) noexcept = 0;
    virtual ITimingCache const* getTimingCache() const noexcept = 0;
    virtual void setProgressMonitor(IProgressMonitor* monitor) noexcept = 0;
};

class IBuilder : public INoCopy {
public:
    virtual ~IBuilder() noexcept = default;
    virtual IBuilderConfig* createBuilderConfig() noexcept = 0;
    virtual INetworkDefinition* createNetworkV2(NetworkDefinitionCreationFlags flags) noexcept = 0;
    virtual IOptimizationProfile* createOptimizationProfile() noexcept = 0;
    virtual IHostMemory* buildSerializedNetwork(INetworkDefinition& network, IBuilderConfig& config) noexcept = 0;
    virtual bool buildSerializedNetworkToStream(INetworkDefinition& network, IBuilderConfig& config,
                                                IStreamWriter& writer) noexcept = 0;
};

}  // namespace nvinfer1

extern "C" std::int32_t getInferLibVersion() noexcept;
extern "C" nvinfer1::IPluginRegistry* getPluginRegistry() noexcept;
extern "C" void* createInferBuilder_INTERNAL(void* logger, std::int32_t version) noexcept;

namespace nvinfer1 {
inline IBuilder* createInferBuilder(ILogger& logger) noexcept {
    return static_cast<IBuilder*>(createInferBuilder_INTERNAL(&logger, NV_TENSORRT_VERSION));
}
}  // namespace nvinfer1
