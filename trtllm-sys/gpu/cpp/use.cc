#include "use.h"

#include <cstdlib>
#include <mutex>
#include <string_view>

namespace shim {

namespace {

std::mutex mutex;
int runs = 0;
int builds = 0;

}  // namespace

void begin_use(Purpose purpose) {
    std::lock_guard<std::mutex> const lock(mutex);
    if (purpose == Purpose::kBuild) {
        if (runs > 0) {
            throw Busy(
                "this process has a TensorRT-LLM engine open, which would compute nonsense while another is built in the same "
                "process");
        }
        builds++;
        return;
    }
    if (builds > 0) {
        throw Busy("this process is building a TensorRT engine, and an engine that runs meanwhile would compute nonsense");
    }
    char const* const building = std::getenv("IS_BUILDING");
    if (building != nullptr && std::string_view(building) == "1") {
        throw Busy(
            "the environment has IS_BUILDING=1, with which TensorRT-LLM computes nonsense: unset it, and wait for builds that "
            "this process does without this library");
    }
    runs++;
}

void end_use(Purpose purpose) noexcept {
    std::lock_guard<std::mutex> const lock(mutex);
    (purpose == Purpose::kBuild ? builds : runs)--;
}

}  // namespace shim
