// The GPUs that the stand-ins play: `NAME:BYTES:CAPABILITY;...` in TRTLLM_STAND_IN_GPUS [one A100].
#pragma once

#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

namespace stand_in {

struct Gpu {
    std::string name;
    std::uint64_t bytes = 0;
    int major = 0;
    int minor = 0;
};

inline std::vector<Gpu> gpus() {
    char const* const told = std::getenv("TRTLLM_STAND_IN_GPUS");
    std::istringstream all(told == nullptr ? "NVIDIA A100-SXM4-80GB:85899345920:8.0" : told);
    std::vector<Gpu> found;
    for (std::string one; std::getline(all, one, ';');) {
        std::istringstream words(one);
        Gpu gpu;
        char point = 0;
        std::string bytes;
        if (std::getline(words, gpu.name, ':') && std::getline(words, bytes, ':') && words >> gpu.major >> point >> gpu.minor) {
            gpu.bytes = std::strtoull(bytes.c_str(), nullptr, 10);
            found.push_back(gpu);
        }
    }
    return found;
}

}  // namespace stand_in
