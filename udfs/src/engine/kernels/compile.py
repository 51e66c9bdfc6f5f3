"""Compiles kernels.cu into kernels.ptx, with NVIDIA's run-time compiler from PyPI. Needs no GPU.

    pip install nvidia-cuda-nvrtc==13.0.*
    python3 udfs/src/engine/kernels/compile.py

The driver compiles PTX for the GPU at hand. PTX of CUDA 13.0 is read by each driver that CUDA 13 works with.
"""

import ctypes
import hashlib
import pathlib
import sys

# Ampere: the first GPUs with bfloat16.
ARCHITECTURE = "compute_80"


def compiler():
    folders = [pathlib.Path(path) for path in sys.path]
    found = [lib for folder in folders for lib in folder.glob("nvidia/*/lib/libnvrtc.so.13")]
    if not found:
        sys.exit("there is no libnvrtc.so.13; pip install nvidia-cuda-nvrtc==13.0.*")
    for builtins in found[0].parent.glob("libnvrtc-builtins.so.13*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(found[0]))


def text(nvrtc, program, what):
    """One of the texts that the compiler keeps of a program."""
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return buffer.value.decode()


def main():
    folder = pathlib.Path(__file__).parent
    source = (folder / "kernels.cu").read_bytes()
    nvrtc, program = compiler(), ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None):
        sys.exit("the compiler takes no program")
    options = [f"--gpu-architecture={ARCHITECTURE}".encode(), b"--std=c++17"]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    if failed:
        sys.exit(text(nvrtc, program, "ProgramLog"))
    digest = hashlib.sha256(source).hexdigest()
    ptx = text(nvrtc, program, "PTX")
    if ".entry" not in ptx:
        sys.exit("the compiler returned no kernels")
    (folder / "kernels.ptx").write_text(f"// kernels.cu {digest}\n{ptx}")


if __name__ == "__main__":
    main()
