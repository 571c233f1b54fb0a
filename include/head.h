/*
 * trtllm: Mistral and Llama models from Hugging Face to an engine, and in-flight batched generation from it.
 *
 * The shape of it:
 *
 *     trtllm_engine *engine;
 *     trtllm_open_engine(TRTLLM_STR("engine"), NULL, &engine);
 *     trtllm_request request;
 *     trtllm_init_request(&request, sizeof request);
 *     request.prompt = TRTLLM_STR("Jupiter is");
 *     uint64_t id;
 *     trtllm_enqueue(engine, &request, &id);
 *     trtllm_responses *responses;
 *     while (trtllm_await_responses(engine, TRTLLM_WAIT_FOREVER, &responses) == TRTLLM_STATUS_OK) {
 *         const trtllm_response *const *array;
 *         size_t count;
 *         trtllm_view_responses(responses, &array, &count);
 *         ...
 *         trtllm_free_responses(responses);
 *     }
 *     trtllm_close_engine(engine);
 *
 * What holds for every function:
 *
 * - It returns a status (but those that cannot fail). After anything but TRTLLM_STATUS_OK it has done nothing, no
 *   out-parameter was written, and trtllm_last_error() of the same thread says why.
 * - It is thread-safe: any thread may call it at any time, with the same handle too, unless its comment says otherwise. One pair
 *   excludes each other in a process: an engine for a GPU is built, or such engines are open. Who comes second is answered with
 *   TRTLLM_STATUS_BUSY.
 *   Freeing or closing a handle while another thread looks at what was viewed through it is the host's mistake.
 * - A handle (a pointer to a type without members) has one owner, the host, who frees it once with the function that its
 *   comment names. Handles are numbers in the shape of pointers: a NULL, a freed or a foreign one is answered with
 *   TRTLLM_STATUS_INVALID_HANDLE.
 * - Texts are UTF-8, with their length. Numbers of bytes, tokens and elements are size_t, times are in the unit that the
 *   name ends with.
 * - A struct that the host fills begins with struct_size, so that it can grow: initialise it with its trtllm_init_
 *   function. Fields that an older host does not have keep their defaults. New fields begin behind the end that a struct had in
 *   the version before, never in what padded it. So of a struct that the library fills, a field is there where
 *   offsetof(type, field) < struct_size, whatever the library's version.
 * - Callbacks get the user_data that came with them. Nothing may unwind out of one.
 * - Nothing is printed. No signal handler is installed, and no global state of the process is changed, but for Rust's
 *   panic hook, to which one that calls the former is added when the first guide is compiled, and for what engines for a GPU
 *   bring:
 *
 * TensorRT-LLM, for engines for a GPU:
 *
 * - TensorRT-LLM and MPI install signal handlers while they start. All signals do after trtllm_open_engine what they did before.
 *   Do not change a handler while it runs.
 * - MPI is initialized when the first such engine is opened, unless the host has done it, and finalized by a function of atexit().
 *   Close engines before the process exits.
 * - While trtllm_build_engine compiles, the environment variable IS_BUILDING is set. Threads of the host must not read or write
 *   the environment meanwhile (getenv, setenv). Building in a process of its own avoids that: the program build-engine.
 * - A fault in TensorRT-LLM, its plugins or NCCL can end the process: std::terminate(), exit(). An engine that is run by workers
 *   (communication_mode "orchestrator" of trtllm_engine_config.tensorrt_llm) ends these and not the host: docs/embedding.md.
 *
 * The host's threads, and the library's:
 *
 * - A thread that calls the library needs a stack of 256 KiB. Callbacks and logits_post_processors run on threads of the library,
 *   with stacks of 2 MiB.
 * - An engine has threads of its own: trtllm-session, which calls callbacks, and for the CPU executor trtllm-executor and
 *   trtllm-cpu-0 and so on, as many as the configuration's `threads`. Builds have trtllm-build-0 and so on. All names begin with
 *   trtllm-. trtllm_close_engine, trtllm_build_engine and whatever else starts threads return when they have ended
 *   (/proc/self/task may show one for some microseconds longer).
 * - All signals are blocked in them but those that report a fault of the thread itself, such as SIGSEGV, so no handler of the host
 *   runs there.
 * - They run on the processors that the thread which opened the engine may run on, and `threads` 0 counts their cores: to keep an engine
 *   on some processors, set the affinity of the thread that opens it.
 * - Results do not depend on the host's floating-point mode: the library computes in the default mode, and leaves the host's as
 *   it is. Environment variables of rayon are not looked at.
 * - On a CPU with AMX the library asks Linux for the permission to use its tiles, for the whole process and for good. From then on
 *   sigaltstack() refuses stacks that are too small for the tiles' state (getauxval(AT_MINSIGSTKSZ) says how large). With
 *   TRTLLM_CPU_ISA=avx512 in the environment it does not ask.
 *
 * Memory that the system refuses is TRTLLM_STATUS_SYSTEM while an engine is opened, and a failed response of one request later.
 * Where a small allocation of the library's own is refused, the process ends, as with C++'s std::bad_alloc that nobody catches.
 *
 * The library stays loaded after dlclose().
 *
 * Fork before an engine is opened or built. The child of a later fork() has none of the library's threads: there every function
 * is answered with TRTLLM_STATUS_SHUT_DOWN, but for the trtllm_init_ functions and those that cannot fail. It may exit, with
 * destructors that close and free, or exec() another program.
 */
