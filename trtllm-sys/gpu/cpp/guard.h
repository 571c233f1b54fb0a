// What is thrown, as the table says it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <exception>

#include "settings.h"
#include "trtllm_gpu.h"
#include "use.h"

namespace shim {

// A build whose progress answered false.
struct Cancelled {};

inline void say(trtllm_gpu_error* error, char const* message) {
    if (error != nullptr) {
        std::snprintf(error->message, sizeof error->message, "%s", message);
    }
}

// Runs `body`; what it throws becomes a number and a message.
template <typename Body>
std::int32_t guarded(trtllm_gpu_error* error, Body body) noexcept {
    try {
        body();
        return TRTLLM_GPU_OK;
    } catch (Unsupported const& unsupported) {
        say(error, unsupported.what());
        return TRTLLM_GPU_UNSUPPORTED;
    } catch (Busy const& busy) {
        say(error, busy.what());
        return TRTLLM_GPU_BUSY;
    } catch (Cancelled const&) {
        say(error, "the build was stopped");
        return TRTLLM_GPU_CANCELLED;
    } catch (std::exception const& exception) {
        say(error, exception.what());
        return TRTLLM_GPU_EXCEPTION;
    } catch (...) {
        say(error, "something that is no exception was thrown");
        return TRTLLM_GPU_UNKNOWN_EXCEPTION;
    }
}

}  // namespace shim
