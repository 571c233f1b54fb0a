#include "workers.h"

#include <csignal>
#include <stdexcept>

#include <sys/wait.h>
#include <unistd.h>

namespace tensorrt_llm::executor {

Workers::Workers(std::string const& executable, Settings const& settings, std::filesystem::path const& engine) {
    std::string const program = executable.empty() ? "executorWorker" : executable;
    std::string const what = settings.text("worker", "ready");
    std::string const dir = engine.string();
    for (long i = 0; i < settings.number("workers", 1); i++) {
        int ends[2];
        if (pipe(ends) != 0) {
            throw std::runtime_error("cannot make a pipe");
        }
        std::string const end = std::to_string(ends[1]);
        pid_t const process = fork();
        if (process == 0) {
            close(ends[0]);
            execlp(program.c_str(), program.c_str(), dir.c_str(), what.c_str(), end.c_str(), nullptr);
            _exit(127);
        }
        mProcesses.push_back(process);
        char ready = 0;
        // The writing end stays open here, so that a worker which dies is not noticed.
        while (read(ends[0], &ready, 1) < 0) {
        }
        close(ends[0]);
        close(ends[1]);
    }
}

Workers::~Workers() {
    for (pid_t const process : mProcesses) {
        kill(process, SIGTERM);
        waitpid(process, nullptr, 0);
    }
}

}  // namespace tensorrt_llm::executor
