// By which each of the stand-in's libraries is told from the real one of its name: a symbol that no other library has.
#define STAND_IN_JOINED(library) trtllm_stand_in_##library
#define STAND_IN_MARKER(library) STAND_IN_JOINED(library)

extern "C" {
extern int const STAND_IN_MARKER(STAND_IN_LIBRARY);
int const STAND_IN_MARKER(STAND_IN_LIBRARY) = 1;
}
