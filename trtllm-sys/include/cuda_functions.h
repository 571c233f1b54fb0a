/* The functions of CUDA's driver that describe devices, as types: the library is opened at run time. Needs cuda.h. */
#include <cuda.h>

typedef __typeof__(cuInit) *fn_cuInit;
typedef __typeof__(cuGetErrorString) *fn_cuGetErrorString;
typedef __typeof__(cuDriverGetVersion) *fn_cuDriverGetVersion;
typedef __typeof__(cuDeviceGetCount) *fn_cuDeviceGetCount;
typedef __typeof__(cuDeviceGet) *fn_cuDeviceGet;
typedef __typeof__(cuDeviceGetName) *fn_cuDeviceGetName;
typedef __typeof__(cuDeviceTotalMem_v2) *fn_cuDeviceTotalMem_v2;
typedef __typeof__(cuDeviceGetAttribute) *fn_cuDeviceGetAttribute;
typedef __typeof__(cuDeviceGetPCIBusId) *fn_cuDeviceGetPCIBusId;
