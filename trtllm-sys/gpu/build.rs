//! Finds TensorRT-LLM and compiles the shim against it. Where there is none, the library is built all the same and says what
//! was missing to whoever opens it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of NVIDIA's container and of `pip install` that may hold TensorRT-LLM.
const USUAL_ROOTS: [&str; 2] = ["/app/tensorrt_llm", "/usr/local/tensorrt_llm"];

const HEADER: &str = "tensorrt_llm/executor/executor.h";
/// TensorRT-LLM's own build writes it, so that headers of its source tree, which NVIDIA's image has, may be without.
const VERSION_HEADER: &str = "tensorrt_llm/executor/version.h";
/// NVIDIA's image has the release in this variable.
const VERSION_VARIABLE: &str = "TRT_LLM_VERSION";
/// In the version of the stand-in.
const STAND_IN: &str = "trtllm-stand-in";

const LIBRARY: &str = "libtensorrt_llm.so";
const PLUGINS: &str = "libnvinfer_plugin_tensorrt_llm.so";

const TENSORRT_HEADER: &str = "NvInfer.h";
/// pip's packages have the second one only.
const TENSORRT_LIBRARIES: [&str; 2] = ["libnvinfer.so", "libnvinfer.so.10"];

fn main() {
    println!("cargo:rustc-check-cfg=cfg(tensorrt_llm)");
    for variable in ["TRTLLM_ROOT", "TENSORRT_ROOT", "CUDA_HOME", "VIRTUAL_ENV", "CXXFLAGS", "CXX", VERSION_VARIABLE] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rerun-if-changed=cpp");
    println!("cargo:rerun-if-changed=../include/trtllm_gpu.h");
    match find() {
        Ok(found) => build(&found),
        Err(missing) => {
            println!("cargo:warning=libtrtllm_gpu.so is built without TensorRT-LLM: {missing}");
            println!("cargo:rustc-env=TRTLLM_GPU_UNAVAILABLE={missing}");
        }
    }
}

/// What the shim is compiled against.
struct Found {
    include: PathBuf,
    /// The release, where the headers do not say it.
    version: Option<String>,
    is_stand_in: bool,
    libraries: PathBuf,
    cuda_include: Option<PathBuf>,
    tensorrt: Option<TensorRt>,
}

/// TensorRT, without which the shim runs engines and builds none.
struct TensorRt {
    include: PathBuf,
    libraries: PathBuf,
    library: &'static str,
}

/// What is there, or what is missing, as a sentence without a full stop.
fn find() -> Result<Found, String> {
    let roots = match env::var_os("TRTLLM_ROOT").filter(|root| !root.is_empty()) {
        Some(root) => vec![PathBuf::from(root)],
        None => USUAL_ROOTS.iter().map(PathBuf::from).chain(site_packages()).collect(),
    };
    let tried = || roots.iter().map(|root| format!("`{}`", root.display())).collect::<Vec<_>>().join(", ");
    let first = |folders: &[&str], file: &str| {
        let places = roots.iter().flat_map(|root| folders.iter().map(move |folder| root.join(folder)));
        places.into_iter().find(|place| place.join(file).is_file())
    };
    let hint = "set TRTLLM_ROOT to a folder that has `include/` and `lib/` of TensorRT-LLM, and build again";
    let include = first(&["include", "cpp/include"], HEADER);
    let include = include.ok_or_else(|| format!("`{HEADER}` is not below {}; {hint}", tried()))?;
    let libraries = first(&["lib", "libs", "tensorrt_llm/libs", "cpp/build/tensorrt_llm"], LIBRARY);
    let libraries = libraries.ok_or_else(|| format!("`{LIBRARY}` is not below {}; {hint}", tried()))?;
    if !libraries.join(PLUGINS).is_file() {
        return Err(format!("`{PLUGINS}` is not in `{}`; {hint}", libraries.display()));
    }
    let said = fs::read_to_string(include.join(VERSION_HEADER)).ok();
    let version = match &said {
        Some(_) => None,
        None => Some(env::var(VERSION_VARIABLE).ok().filter(|version| !version.is_empty()).ok_or_else(|| {
            format!(
                "`{VERSION_HEADER}` is not in `{}`, so that nothing says which release this is; set {VERSION_VARIABLE} to it, for example 1.2.1, and build again",
                include.display()
            )
        })?),
    };
    let is_stand_in = said.is_some_and(|text| text.contains(STAND_IN));
    let types = fs::read_to_string(include.join("tensorrt_llm/executor/types.h")).unwrap_or_default();
    let cuda_include = cuda_include();
    if types.contains("cuda_fp16.h") && cuda_include.is_none() {
        let problem = "`cuda_fp16.h` is not below CUDA_HOME or `/usr/local/cuda`";
        return Err(format!("{problem}; set CUDA_HOME to a CUDA toolkit, and build again"));
    }
    let tensorrt = tensorrt(&include, &libraries, cuda_include.is_some());
    if let Err(missing) = &tensorrt {
        println!("cargo:warning=libtrtllm_gpu.so cannot build engines: {missing}");
    }
    Ok(Found { include, version, is_stand_in, libraries, cuda_include, tensorrt: tensorrt.ok() })
}

/// TensorRT below TENSORRT_ROOT, beside TensorRT-LLM, in the system, or in a Python environment; or what is missing.
fn tensorrt(include: &Path, libraries: &Path, has_cuda: bool) -> Result<TensorRt, String> {
    let named = env::var_os("TENSORRT_ROOT").filter(|root| !root.is_empty()).map(PathBuf::from);
    let is_named = named.is_some();
    let roots: Vec<_> = named.into_iter().chain(["/usr/local/tensorrt", "/usr"].map(PathBuf::from)).collect();
    let below = |folders: &[&str]| {
        roots.iter().flat_map(|root| folders.iter().map(|f| root.join(f)).collect::<Vec<_>>()).collect()
    };
    let mut includes: Vec<PathBuf> = below(&["include", "include/x86_64-linux-gnu"]);
    // What TENSORRT_ROOT names comes first, what lies beside TensorRT-LLM next.
    includes.insert(if is_named { 2 } else { 0 }, include.to_owned());
    let mut libs: Vec<PathBuf> = below(&["lib", "lib/x86_64-linux-gnu", "."]);
    libs.insert(if is_named { 3 } else { 0 }, libraries.to_owned());
    libs.extend(site_packages().iter().filter_map(|root| Some(root.parent()?.join("tensorrt_libs"))));
    let include = includes.into_iter().find(|folder| folder.join(TENSORRT_HEADER).is_file());
    let hint = "set TENSORRT_ROOT to a folder that has `include/` and `lib/` of TensorRT, and build again";
    let include = include.ok_or_else(|| format!("`{TENSORRT_HEADER}` is not found; {hint}"))?;
    let base = fs::read_to_string(include.join("NvInferRuntimeBase.h")).unwrap_or_default();
    if base.contains("cuda_runtime_api.h") && !has_cuda {
        return Err("`cuda_runtime_api.h` is not found; set CUDA_HOME to a CUDA toolkit, and build again".to_owned());
    }
    let library = libs.into_iter().find_map(|folder| {
        let library = TENSORRT_LIBRARIES.into_iter().find(|library| folder.join(library).is_file())?;
        Some((folder, library))
    });
    let (libraries, library) = library.ok_or_else(|| format!("`{}` is not found; {hint}", TENSORRT_LIBRARIES[0]))?;
    Ok(TensorRt { include, libraries, library })
}

/// `tensorrt_llm` of the virtual environment and of the system's Python.
fn site_packages() -> Vec<PathBuf> {
    let venv = env::var_os("VIRTUAL_ENV").map(|root| PathBuf::from(root).join("lib"));
    let libs = venv.into_iter().chain(["/usr/local/lib", "/usr/lib"].map(PathBuf::from));
    let pythons = libs.filter_map(|lib| fs::read_dir(lib).ok()).flatten().flatten().map(|entry| entry.path());
    let pythons =
        pythons.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3")));
    pythons
        .flat_map(|python| ["site-packages", "dist-packages"].map(|folder| python.join(folder).join("tensorrt_llm")))
        .filter(|root| root.is_dir())
        .collect()
}

fn cuda_include() -> Option<PathBuf> {
    let home = env::var_os("CUDA_HOME").map(PathBuf::from);
    let roots = home.into_iter().chain([PathBuf::from("/usr/local/cuda")]);
    let places = roots.flat_map(|root| ["include", "targets/x86_64-linux/include"].map(|folder| root.join(folder)));
    places.into_iter().find(|place| place.join("cuda_fp16.h").is_file())
}

fn build(found: &Found) {
    let mut cmake = cmake::Config::new("cpp");
    cmake.define("TRTLLM_INCLUDE", &found.include).build_target("install");
    cmake.define("TRTLLM_VERSION", found.version.as_deref().unwrap_or_default());
    if let Some(cuda) = &found.cuda_include {
        cmake.define("CUDA_INCLUDE", cuda);
    }
    if let Some(tensorrt) = &found.tensorrt {
        cmake.define("TENSORRT_INCLUDE", &tensorrt.include);
    } else {
        // CMake remembers what an earlier build found.
        cmake.define("TENSORRT_INCLUDE", "");
    }
    let shim = cmake.build();
    println!("cargo:rustc-cfg=tensorrt_llm");
    println!("cargo:rustc-link-search=native={}", shim.join("lib").display());
    println!("cargo:rustc-link-lib=static:+whole-archive=trtllm_gpu_shim");
    println!("cargo:rustc-link-search=native={}", found.libraries.display());
    for library in ["tensorrt_llm", "nvinfer_plugin_tensorrt_llm", "stdc++"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
    let mut folders = vec![found.libraries.clone()];
    match &found.tensorrt {
        Some(tensorrt) => {
            println!("cargo:rustc-link-search=native={}", tensorrt.libraries.display());
            // By the file's name, which need not end as the linker's own names do.
            println!("cargo:rustc-cdylib-link-arg=-l:{}", tensorrt.library);
            folders.push(tensorrt.libraries.clone());
        }
        None => folders.extend(env::var_os("TENSORRT_ROOT").map(|root| Path::new(&root).join("lib"))),
    }
    for folder in folders {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-rpath,{}", folder.display());
    }
    if found.is_stand_in {
        // An RPATH, which comes before LD_LIBRARY_PATH, where a real library may be.
        println!("cargo:rustc-cdylib-link-arg=-Wl,--disable-new-dtags");
    }
    // What NVIDIA's libraries need themselves is found when they are opened.
    println!("cargo:rustc-cdylib-link-arg=-Wl,--allow-shlib-undefined");
}
