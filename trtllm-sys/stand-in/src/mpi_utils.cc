#include "mpi_utils.h"

#include <csignal>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>

#include <unistd.h>

namespace tensorrt_llm::mpi {

void check(int status, char const* call) {
    if (status != MPI_SUCCESS) {
        throw std::runtime_error(std::string("MPI error ") + std::to_string(status) + " in " + call);
    }
}

void initialize(bool forwardAbortToParent) {
    static std::mutex mutex;
    std::lock_guard<std::mutex> const lock(mutex);
    int initialized = 0;
    check(MPI_Initialized(&initialized), "MPI_Initialized");
    if (initialized != 0) {
        return;
    }
    int provided = 0;
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
    std::atexit([] { MPI_Finalize(); });
    for (int signal : {SIGABRT, SIGSEGV}) {
        if (forwardAbortToParent) {
            std::signal(signal, [](int) {
                kill(getppid(), SIGKILL);
                MPI_Abort(nullptr, EXIT_FAILURE);
            });
        } else {
            std::signal(signal, [](int) { MPI_Abort(nullptr, EXIT_FAILURE); });
        }
    }
}

}  // namespace tensorrt_llm::mpi
