// What TensorRT-LLM does with MPI before the first engine is opened, and at the start of a worker. Source: mpiUtils.cpp of 1.2.
#pragma once

#include "mpi.h"

namespace tensorrt_llm::mpi {

// Throws where a call of MPI has failed.
void check(int status, char const* call);

// Unless somebody has initialized MPI: does that, with MPI_Finalize at the process's end and handlers for SIGABRT and SIGSEGV that
// abort MPI's job, and in a worker end its parent before.
void initialize(bool forwardAbortToParent);

}  // namespace tensorrt_llm::mpi
