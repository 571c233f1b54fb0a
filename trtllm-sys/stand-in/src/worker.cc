// executorWorker, as an orchestrator starts it: engine directory, what to do, and the file descriptor to say "ready" on.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <dlfcn.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "executorWorker: started by an orchestrator only\n");
        return 2;
    }
    // MPI ends its processes when the one that spawned them is gone.
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    // The most frequent failure of the real one.
    if (dlopen("libnvinfer_plugin_tensorrt_llm.so", RTLD_NOW) == nullptr) {
        std::fprintf(stderr, "executorWorker: %s\n", dlerror());
        return 1;
    }
    if (std::strcmp(argv[2], "crash") == 0) {
        std::fprintf(stderr, "executorWorker: told to crash with the engine %s\n", argv[1]);
        std::abort();
    }
    std::printf("[TensorRT-LLM][INFO] worker of %s\n", argv[1]);
    std::fflush(stdout);
    if (std::strcmp(argv[2], "hang") != 0 && write(std::atoi(argv[3]), "1", 1) != 1) {
        return 1;
    }
    for (;;) {
        pause();
    }
}
