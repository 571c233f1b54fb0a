#if TRTLLM_GPU_TENSORRT

#include <algorithm>
#include <stdexcept>

#include "network.h"

namespace shim {

namespace {

constexpr std::size_t kKept = 3;

std::int32_t severity_of(nvinfer1::ILogger::Severity severity) {
    // kINTERNAL_ERROR and kERROR are both errors.
    return std::max(static_cast<std::int32_t>(severity) - 1, 0);
}

}  // namespace

NetworkLog& NetworkLog::open(trtllm_gpu_log sink, void* userData) {
    static std::mutex opening;
    static auto* const all = new std::vector<std::unique_ptr<NetworkLog>>;
    std::lock_guard<std::mutex> const lock(opening);
    all->push_back(std::unique_ptr<NetworkLog>(new NetworkLog(sink, userData)));
    return *all->back();
}

void NetworkLog::close() {
    std::lock_guard<std::mutex> const lock(mMutex);
    mLog = nullptr;
    mErrors.clear();
}

void NetworkLog::log(Severity severity, char const* message) noexcept {
    try {
        std::string line(message == nullptr ? "" : message);
        line.erase(line.find_last_not_of("\r\n") + 1);
        std::lock_guard<std::mutex> const lock(mMutex);
        if (mLog == nullptr) {
            return;
        }
        mLog(mUserData, severity_of(severity), line.c_str());
        // TensorRT says some errors twice.
        if (severity_of(severity) == 0 && (mErrors.empty() || mErrors.back() != line)) {
            if (mErrors.size() == kKept) {
                mErrors.erase(mErrors.begin());
            }
            mErrors.push_back(std::move(line));
        }
    } catch (...) {
        // Nothing is thrown into TensorRT; a line is lost.
    }
}

void NetworkLog::forget() {
    std::lock_guard<std::mutex> const lock(mMutex);
    mErrors.clear();
}

void NetworkLog::fail(std::string const& what) {
    std::string text = what;
    std::lock_guard<std::mutex> const lock(mMutex);
    for (std::string const& line : mErrors) {
        text += (&line == &mErrors.front() ? ": " : "; ") + line;
    }
    mErrors.clear();
    throw std::runtime_error(text);
}

}  // namespace shim

#endif  // TRTLLM_GPU_TENSORRT
