// Open MPI, which TensorRT-LLM uses with one GPU too.
#pragma once

namespace shim {

// Initializes MPI as TensorRT-LLM would when the first engine is opened, unless somebody has: with every thread allowed to call it, and
// MPI_Finalize at the process's end. There are two differences. TensorRT-LLM, which finds MPI initialized, does not install its handlers
// for SIGABRT and SIGSEGV. And a spawn that fails is an error, where MPI's default is to end the process.
//
// Does nothing where MPI is not Open MPI, and leaves all of this to TensorRT-LLM.
void initialize_mpi();

}  // namespace shim
