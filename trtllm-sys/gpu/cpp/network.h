// A network of TensorRT's, as the table has it.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "NvInfer.h"
#include "trtllm_gpu.h"
#include "use.h"

namespace shim {

// Where TensorRT's log goes. TensorRT keeps the first logger of a process for as long as it runs, so none is freed: what ends is
// that it hands lines on.
class NetworkLog : public nvinfer1::ILogger {
public:
    static NetworkLog& open(trtllm_gpu_log sink, void* userData);
    // No line is handed on from then on.
    void close();

    void log(Severity severity, char const* message) noexcept override;
    // Throws `what` with what TensorRT last said was wrong.
    [[noreturn]] void fail(std::string const& what);
    // What was wrong until now is not why something fails later.
    void forget();

private:
    NetworkLog(trtllm_gpu_log sink, void* userData) : mLog(sink), mUserData(userData) {}

    std::mutex mMutex;
    trtllm_gpu_log mLog;
    void* mUserData;
    std::vector<std::string> mErrors;
};

struct CloseLog {
    void operator()(NetworkLog* log) const { log->close(); }
};

// The shapes that one input has in each profile: least, best, greatest.
struct ProfiledInput {
    std::string name;
    bool dynamic;
    std::vector<std::array<nvinfer1::Dims, 3>> profiles;
};

// A name in an error. A long one is cut, so that what was wrong fits behind it.
std::string quoted(char const* name);

// `rank` sizes; throws with `name` where TensorRT has no place for them.
nvinfer1::Dims to_dims(std::int64_t const* sizes, std::size_t rank, std::string const& name);

// Chooses the GPU for this thread, through the CUDA runtime that TensorRT-LLM has loaded, or through the driver: the shim is linked to
// neither.
void choose_device(std::int32_t device);

void build_network(trtllm_gpu_network& network, trtllm_gpu_build const& build);

}  // namespace shim

// Members are freed from the last to the first, as TensorRT asks for.
struct trtllm_gpu_network {
    // Ends last.
    shim::Use use{shim::Purpose::kBuild};
    std::int32_t device;
    std::unique_ptr<shim::NetworkLog, shim::CloseLog> log;
    std::unique_ptr<nvinfer1::IBuilder> builder;
    std::unique_ptr<nvinfer1::INetworkDefinition> network;
    std::vector<nvinfer1::ITensor*> tensors;
    std::vector<shim::ProfiledInput> inputs;
};
