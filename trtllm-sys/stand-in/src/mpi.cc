// A stand-in for Open MPI 4.1 in a process that nobody's mpirun has started, as that was seen to behave:
//
// - MPI_Init_thread installs handlers for SIGHUP, SIGILL, SIGABRT, SIGBUS, SIGFPE and SIGSEGV.
// - MPI_Comm_spawn starts a daemon, `orted`, which starts the processes and is their parent, each in a process group of its own.
//   With fewer slots than processes (TRTLLM_STAND_IN_SLOTS) it fails: that ends the process with MPI_ERR_SPAWN, unless
//   MPI_COMM_SELF's error handler is MPI_ERRORS_RETURN. A program that is not there, or ends at once, is not noticed.
// - When one process of a job ends with another status than 0, the daemon ends the job. When this process ends, the daemon ends all.
// - When the daemon is killed, this process ends with 195.
//
// Simplified: there is one daemon for each spawn, and processes are ended by SIGKILL at once.
#include "mpi.h"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

std::atomic<bool> initialized{false};
std::atomic<bool> finalized{false};
std::atomic<bool> errorsReturn{false};

// Open MPI prints the stack.
void report(int, siginfo_t*, void*) { _exit(1); }

// A fork, and so every descriptor that is not for a program to be started goes.
void close_own_descriptors() {
    for (int fd = 3; fd < 1024; fd++) {
        int const flags = fcntl(fd, F_GETFD);
        if (flags >= 0 && (flags & FD_CLOEXEC) != 0) {
            close(fd);
        }
    }
}

pid_t start(char const* command, char** argv) {
    std::vector<char*> arguments{const_cast<char*>(command)};
    for (; argv != nullptr && *argv != nullptr; argv++) {
        arguments.push_back(*argv);
    }
    arguments.push_back(nullptr);
    pid_t const process = fork();
    if (process == 0) {
        setpgid(0, 0);
        execvp(command, arguments.data());
        _exit(127);
    }
    return process;
}

[[noreturn]] void run_daemon(char const* command, char** argv, int count, int host) {
    for (int signal : {SIGHUP, SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV}) {
        std::signal(signal, SIG_DFL);
    }
    std::vector<pid_t> job;
    for (int i = 0; i < count; i++) {
        job.push_back(start(command, argv));
    }
    bool aborted = false;
    for (;;) {
        pollfd lifeline{host, POLLIN, 0};
        bool const alone = poll(&lifeline, 1, 5) > 0;
        int status = 0;
        for (pid_t ended = 0; (ended = waitpid(-1, &status, WNOHANG)) > 0;) {
            aborted = aborted || status != 0;
        }
        if (alone || aborted) {
            for (pid_t const process : job) {
                kill(-process, SIGKILL);
            }
            job.clear();
        }
        if (alone) {
            _exit(0);
        }
    }
}

}  // namespace

extern "C" {

char ompi_mpi_comm_self[1];
char ompi_mpi_errors_return[1];

int MPI_Get_library_version(char* version, int* length) {
    *length = std::sprintf(version, "Open MPI v4.1.4-trtllm-stand-in, package: none");
    return MPI_SUCCESS;
}

int MPI_Initialized(int* flag) {
    *flag = initialized ? 1 : 0;
    return MPI_SUCCESS;
}

int MPI_Init_thread(int*, char***, int required, int* provided) {
    initialized = true;
    *provided = required;
    for (int signal : {SIGHUP, SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV}) {
        struct sigaction action {};
        action.sa_sigaction = report;
        action.sa_flags = SA_SIGINFO;
        sigaction(signal, &action, nullptr);
    }
    return MPI_SUCCESS;
}

int MPI_Finalize() {
    finalized = true;
    return MPI_SUCCESS;
}

int MPI_Comm_set_errhandler(MPI_Comm comm, MPI_Errhandler handler) {
    if (reinterpret_cast<char*>(comm) == ompi_mpi_comm_self) {
        errorsReturn = reinterpret_cast<char*>(handler) == ompi_mpi_errors_return;
    }
    return MPI_SUCCESS;
}

int MPI_Comm_spawn(char const* command, char** argv, int maxprocs, MPI_Info, int, MPI_Comm, MPI_Comm*, int*) {
    char const* const slots = std::getenv("TRTLLM_STAND_IN_SLOTS");
    int toDaemon[2];
    int fromDaemon[2];
    bool const full = slots != nullptr && std::atoi(slots) < maxprocs;
    if (full || pipe2(toDaemon, O_CLOEXEC) != 0 || pipe2(fromDaemon, O_CLOEXEC) != 0) {
        std::fprintf(stderr, "There are not enough slots available in the system\n");
        if (!errorsReturn) {
            std::fprintf(stderr, "*** MPI_ERR_SPAWN: could not spawn processes\n*** MPI_ERRORS_ARE_FATAL\n");
            _exit(MPI_ERR_SPAWN);
        }
        return MPI_ERR_SPAWN;
    }
    pid_t const daemon = fork();
    if (daemon == 0) {
        // Above every descriptor that could be anything else.
        int const host = fcntl(toDaemon[0], F_DUPFD, 1000);
        int const lifeline = fcntl(fromDaemon[1], F_DUPFD, 1000);
        close_own_descriptors();
        fcntl(host, F_SETFD, FD_CLOEXEC);
        fcntl(lifeline, F_SETFD, FD_CLOEXEC);
        run_daemon(command, argv, maxprocs, host);
    }
    close(toDaemon[0]);
    close(fromDaemon[1]);
    std::thread([lifeline = fromDaemon[0]] {
        char byte = 0;
        while (read(lifeline, &byte, 1) != 0) {
        }
        if (!finalized) {
            _exit(195);
        }
    }).detach();
    return MPI_SUCCESS;
}

int MPI_Abort(MPI_Comm, int code) { _exit(code); }

}  // extern "C"
