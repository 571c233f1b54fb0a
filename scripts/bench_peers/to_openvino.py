"""Exports a model to OpenVINO by optimum-intel's command line.

    to_openvino.py MODEL_DIR TYPE DIR          TYPE: bf16, int8, int4

int8 is one scale a row; int4 is asymmetric in groups of 128 along a row (or as many of 64 or 32 as divide it), with the
embedding and the head in 8 bits. The exported model computes the logits of every position; as OpenVINO GenAI does, all but
the last one's are cut off before the head.
"""

import os
import shutil
import subprocess
import sys

import openvino
from openvino import opset13

# Weights of bf16 are stored as fp16; the arithmetic is in bf16 all the same.
OPTIONS = {
    "bf16": ["--weight-format", "fp16"],
    "int8": ["--weight-format", "int8"],
    "int4": ["--weight-format", "int4", "--group-size", "128", "--group-size-fallback", "adjust"],
}


def keep_last_logits(model):
    product = model.output("logits").get_node().input_value(0).get_node()
    while product.get_type_name() != "MatMul":
        product = product.input_value(0).get_node()
    hidden = product.input_value(0)
    at = lambda *values: opset13.constant(list(values), openvino.Type.i64)
    last = opset13.slice(hidden, at(-1), at(2**31 - 1), at(1), at(1))
    product.input(0).replace_source_output(last.output(0))
    model.validate_nodes_and_infer_types()


def main(directory, kind, output):
    aside = f"{output}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    exported = os.path.join(aside, "exported")
    command = [os.path.join(os.path.dirname(sys.executable), "optimum-cli"), "export", "openvino"]
    command += ["--model", directory, "--task", "text-generation-with-past", "--library", "transformers"]
    subprocess.run([*command, "--disable-convert-tokenizer", *OPTIONS[kind], exported], check=True)
    model = openvino.Core().read_model(os.path.join(exported, "openvino_model.xml"))
    keep_last_logits(model)
    openvino.save_model(model, os.path.join(aside, "model.xml"), compress_to_fp16=False)
    del model
    shutil.rmtree(exported)
    shutil.rmtree(output, ignore_errors=True)
    os.replace(aside, output)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
