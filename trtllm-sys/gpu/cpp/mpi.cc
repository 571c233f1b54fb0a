#include "mpi.h"

#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>

#include <dlfcn.h>

namespace shim {

namespace {

// Of mpi.h: MPI_SUCCESS and MPI_THREAD_MULTIPLE are these numbers in Open MPI 4 and 5. Handles are pointers to its objects.
constexpr int kSuccess = 0;
constexpr int kThreadMultiple = 3;

// What TensorRT-LLM was loaded with: RTLD_DEFAULT is the scope of the library that this is in, its own dependencies included.
template <typename Function>
Function symbol(char const* name) {
    return reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

void check(int status, char const* call) {
    if (status != kSuccess) {
        throw std::runtime_error(std::string(call) + " of MPI fails: error " + std::to_string(status));
    }
}

int (*finalize)() = nullptr;

}  // namespace

void initialize_mpi() {
    static std::mutex mutex;
    std::lock_guard<std::mutex> const lock(mutex);
    auto* const is_initialized = symbol<int (*)(int*)>("MPI_Initialized");
    auto* const initialize = symbol<int (*)(int*, char***, int, int*)>("MPI_Init_thread");
    auto* const set_error_handler = symbol<int (*)(void*, void*)>("MPI_Comm_set_errhandler");
    auto* const comm_self = dlsym(RTLD_DEFAULT, "ompi_mpi_comm_self");
    auto* const errors_return = dlsym(RTLD_DEFAULT, "ompi_mpi_errors_return");
    finalize = symbol<int (*)()>("MPI_Finalize");
    if (is_initialized == nullptr || initialize == nullptr || set_error_handler == nullptr || comm_self == nullptr ||
        errors_return == nullptr || finalize == nullptr) {
        return;
    }
    int initialized = 0;
    check(is_initialized(&initialized), "MPI_Initialized");
    if (initialized != 0) {
        return;
    }
    int provided = 0;
    check(initialize(nullptr, nullptr, kThreadMultiple, &provided), "MPI_Init_thread");
    std::atexit([] { finalize(); });
    if (provided < kThreadMultiple) {
        throw std::runtime_error("MPI was built without MPI_THREAD_MULTIPLE, which TensorRT-LLM needs");
    }
    // The communicator that an orchestrator spawns from.
    check(set_error_handler(comm_self, errors_return), "MPI_Comm_set_errhandler");
}

}  // namespace shim
