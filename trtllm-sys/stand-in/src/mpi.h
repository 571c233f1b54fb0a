// A stand-in for Open MPI's mpi.h: what TensorRT-LLM's initialization and an orchestrator's spawn ask for.
#pragma once

extern "C" {

struct ompi_communicator_t;
struct ompi_errhandler_t;
struct ompi_info_t;
using MPI_Comm = ompi_communicator_t*;
using MPI_Errhandler = ompi_errhandler_t*;
using MPI_Info = ompi_info_t*;

// Objects of Open MPI's own, of which a program knows the addresses.
extern char ompi_mpi_comm_self[];
extern char ompi_mpi_errors_return[];

constexpr int MPI_SUCCESS = 0;
constexpr int MPI_ERR_SPAWN = 50;
constexpr int MPI_THREAD_MULTIPLE = 3;

int MPI_Get_library_version(char* version, int* length);
int MPI_Initialized(int* flag);
int MPI_Init_thread(int* argc, char*** argv, int required, int* provided);
int MPI_Finalize();
int MPI_Comm_set_errhandler(MPI_Comm comm, MPI_Errhandler handler);
int MPI_Comm_spawn(char const* command, char** argv, int maxprocs, MPI_Info info, int root, MPI_Comm comm,
                   MPI_Comm* intercomm, int* errcodes);
[[noreturn]] int MPI_Abort(MPI_Comm comm, int code);
}
