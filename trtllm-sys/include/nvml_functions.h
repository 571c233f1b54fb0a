/* The functions of NVML that say what the driver's do not, as types: the library is opened at run time. Needs nvml.h. */
#include <nvml.h>

typedef __typeof__(nvmlInit_v2) *fn_nvmlInit_v2;
typedef __typeof__(nvmlSystemGetDriverVersion) *fn_nvmlSystemGetDriverVersion;
typedef __typeof__(nvmlDeviceGetHandleByPciBusId_v2) *fn_nvmlDeviceGetHandleByPciBusId_v2;
typedef __typeof__(nvmlDeviceGetMemoryInfo) *fn_nvmlDeviceGetMemoryInfo;
typedef __typeof__(nvmlDeviceGetMigMode) *fn_nvmlDeviceGetMigMode;
