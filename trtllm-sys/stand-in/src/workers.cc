#include "workers.h"

#include <stdexcept>

#include <fcntl.h>
#include <unistd.h>

#include "mpi_utils.h"

namespace tensorrt_llm::executor {

Workers::Workers(std::string const& executable, Settings const& settings, std::filesystem::path const& engine) {
    std::string program = executable.empty() ? "executorWorker" : executable;
    std::string what = settings.text("worker", "ready");
    std::string dir = engine.string();
    int const count = static_cast<int>(settings.number("workers", 1));
    int ready[2];
    int session[2];
    if (pipe2(ready, O_CLOEXEC) != 0 || pipe2(session, O_CLOEXEC) != 0) {
        throw std::runtime_error("cannot make a pipe");
    }
    // The workers' ends.
    fcntl(ready[1], F_SETFD, 0);
    fcntl(session[0], F_SETFD, 0);
    mSession = session[1];
    std::string readyEnd = std::to_string(ready[1]);
    std::string sessionEnd = std::to_string(session[0]);
    char* argv[] = {dir.data(), what.data(), readyEnd.data(), sessionEnd.data(), nullptr};
    auto* const self = reinterpret_cast<MPI_Comm>(ompi_mpi_comm_self);
    MPI_Comm intercomm = nullptr;
    mpi::check(MPI_Comm_spawn(program.c_str(), argv, count, nullptr, 0, self, &intercomm, nullptr), "MPI_Comm_spawn");
    close(session[0]);
    for (int told = 0; told < count;) {
        char byte = 0;
        // The writing end stays open here, so that a worker which dies is not noticed.
        told += read(ready[0], &byte, 1) == 1 ? 1 : 0;
    }
    close(ready[0]);
    close(ready[1]);
    // A worker that aborts has the others killed, so it waits until all of them are ready.
    for (int told = 0; what == "abort" && told < count; told++) {
        if (write(mSession, "1", 1) != 1) {
            throw std::runtime_error("cannot write to a pipe");
        }
    }
}

Workers::~Workers() { close(mSession); }

}  // namespace tensorrt_llm::executor
