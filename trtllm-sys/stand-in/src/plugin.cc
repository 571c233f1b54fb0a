// The plugin library's one function that the shim calls.
extern "C" bool initTrtLlmPlugins(void*, char const*) { return true; }
