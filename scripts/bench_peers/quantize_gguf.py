"""Quantizes a GGUF file with llama.cpp's own quantizer.

    quantize_gguf.py FILE TYPE OUTPUT          TYPE: Q8_0, Q4_0, Q4_K_M

K-quants need rows of a multiple of 256 weights; llama.cpp gives a matrix that has others a type of its own choice.
"""

import os
import sys

import llama_cpp


def main(path, kind, output):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    aside = f"{output}.partial-{os.getpid()}"
    if llama_cpp.llama_model_quantize(path.encode(), aside.encode(), params) != 0:
        sys.exit(f"llama.cpp could not quantize `{path}` to {kind}")
    os.replace(aside, output)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
