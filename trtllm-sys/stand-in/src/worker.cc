// executorWorker, as an orchestrator starts it: engine directory, what to do, the file descriptor to say "ready" on, and one that ends
// when the orchestrator closes the engine, and on which a byte says that all workers are ready to one that shall abort.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <dlfcn.h>
#include <unistd.h>

#include "mpi_utils.h"

int main(int argc, char** argv) {
    if (argc != 5) {
        std::fprintf(stderr, "executorWorker: started by an orchestrator only\n");
        return 2;
    }
    // The most frequent failure of the real one.
    if (dlopen("libnvinfer_plugin_tensorrt_llm.so", RTLD_NOW) == nullptr) {
        std::fprintf(stderr, "executorWorker: %s\n", dlerror());
        return 1;
    }
    tensorrt_llm::mpi::initialize(true);
    if (std::strcmp(argv[2], "crash") == 0) {
        std::fprintf(stderr, "executorWorker: told to crash with the engine %s\n", argv[1]);
        return 1;
    }
    std::printf("[TensorRT-LLM][INFO] worker of %s\n", argv[1]);
    std::fflush(stdout);
    if (std::strcmp(argv[2], "hang") != 0 && write(std::atoi(argv[3]), "1", 1) != 1) {
        return 1;
    }
    char byte = 0;
    if (std::strcmp(argv[2], "abort") == 0 && read(std::atoi(argv[4]), &byte, 1) == 1) {
        std::abort();
    }
    while (read(std::atoi(argv[4]), &byte, 1) > 0) {
    }
    return 0;
}
