// A stand-in for CUDA's driver library: the functions that describe devices, with the names, signatures and numbers that
// cuda.h has. For machines without a GPU, in tests only.
#include <cstdio>
#include <cstring>

#include "gpus.h"

namespace {

constexpr int kSuccess = 0;
constexpr int kInvalidValue = 1;
constexpr int kNoDevice = 100;
constexpr int kInvalidDevice = 101;
constexpr int kCapabilityMajor = 75;
constexpr int kCapabilityMinor = 76;

// Runs `body` on the device; there may be none of this number.
template <typename Body>
int with(int device, Body body) {
    auto const all = stand_in::gpus();
    if (device < 0 || static_cast<std::size_t>(device) >= all.size()) {
        return kInvalidDevice;
    }
    return body(all[static_cast<std::size_t>(device)]);
}

}  // namespace

extern "C" {

int cuInit(unsigned int) { return stand_in::gpus().empty() ? kNoDevice : kSuccess; }

int cuGetErrorString(int status, char const** text) {
    *text = status == kNoDevice ? "no CUDA-capable device is detected" : "the stand-in refuses";
    return kSuccess;
}

int cuDriverGetVersion(int* version) {
    *version = 12080;
    return kSuccess;
}

int cuDeviceGetCount(int* count) {
    *count = static_cast<int>(stand_in::gpus().size());
    return kSuccess;
}

int cuDeviceGet(int* device, int ordinal) {
    return with(ordinal, [&](auto const&) {
        *device = ordinal;
        return kSuccess;
    });
}

int cuDeviceGetName(char* name, int size, int device) {
    return with(device, [&](stand_in::Gpu const& gpu) {
        std::snprintf(name, static_cast<std::size_t>(size), "%s", gpu.name.c_str());
        return kSuccess;
    });
}

int cuDeviceTotalMem_v2(std::size_t* bytes, int device) {
    return with(device, [&](stand_in::Gpu const& gpu) {
        *bytes = gpu.bytes;
        return kSuccess;
    });
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
    return with(device, [&](stand_in::Gpu const& gpu) {
        if (attribute != kCapabilityMajor && attribute != kCapabilityMinor) {
            return kInvalidValue;
        }
        *value = attribute == kCapabilityMajor ? gpu.major : gpu.minor;
        return kSuccess;
    });
}

int cuDeviceGetPCIBusId(char* id, int size, int device) {
    return with(device, [&](stand_in::Gpu const&) {
        std::snprintf(id, static_cast<std::size_t>(size), "0000:%02x:00.0", device + 1);
        return kSuccess;
    });
}

}  // extern "C"
