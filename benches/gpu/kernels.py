"""The program's own kernels on tensors of torch, against float64, and the memory traffic that they reach."""

import ctypes

from program import ROOT, synchronize

PTX = ROOT / "udfs" / "src" / "engine" / "kernels" / "kernels.ptx"
BLOCK_THREADS = 256
BLOCK_PACKS = 2 * BLOCK_THREADS
PACK_BYTES = 16
# Relative to the sum of the magnitudes of a result and its operands. Results are rounded once, to half of the last place; erf
# is within 1.5e-7.
ALLOWED = {"f32": 4e-6, "f16": 1.01 * 2**-11, "bf16": 1.01 * 2**-8}
# Rows, tokens and width of the timed tensors: those of m3, of gemma's queries, and of gemma's MLP, 0.54 GB each.
TIMED = {"rotate": (32, 512, 2048), "add_bias": (32, 512, 1024), "bias_gelu": (32, 512, 4096)}
TIMED_GATED = (32, 512, 16384)


class Kernels:
    """The kernels of the driver, launched on torch's current stream."""

    def __init__(self):
        import torch

        torch.zeros(1, device="cuda")  # makes the context
        self.torch, self.driver = torch, ctypes.CDLL("libcuda.so.1")
        self.library = ctypes.c_void_p()
        code = PTX.read_bytes() + b"\0"
        self.check(self.driver.cuLibraryLoadData(ctypes.byref(self.library), code, None, None, 0, None, None, 0))

    def check(self, code):
        if code:
            raise RuntimeError(f"CUDA failure {code}")

    def get(self, name):
        kernel = ctypes.c_void_p()
        self.check(self.driver.cuLibraryGetKernel(ctypes.byref(kernel), self.library, name.encode()))
        return kernel

    def launch(self, kernel, tensors, counts):
        """The first count is the packs of the result."""
        values = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors] + [ctypes.c_uint(count) for count in counts]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values))
        stream = ctypes.c_void_p(self.torch.cuda.current_stream().cuda_stream)
        blocks = -(-counts[0] // BLOCK_PACKS)
        self.check(self.driver.cuLaunchKernel(kernel, blocks, 1, 1, BLOCK_THREADS, 1, 1, 0, stream, pointers, None))


def operands(torch, name, shape, dtype, head_dim):
    """Random operands of an operator, and what it should make of them in float64."""
    batch, sequence, width = shape
    make = lambda *size: (4 * torch.randn(size, device="cuda")).to(dtype)
    x = make(*shape)
    wide = lambda *tensors: [tensor.double() for tensor in tensors]
    gelu = torch.nn.functional.gelu
    if name == "rotate":
        # Tables may be longer than the sequence.
        angles = torch.randn(sequence + 3, head_dim // 2, device="cuda")
        cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)

        def rotated():
            c, s = wide(cosine[:sequence, None], sine[:sequence, None])
            (heads,) = wide(x.view(batch, sequence, -1, head_dim))
            first, second = heads.chunk(2, -1)
            return torch.cat([first * c - second * s, second * c + first * s], -1).view(shape)

        return [x, cosine, sine], rotated
    if name.startswith("gated"):
        up = make(*shape)
        activation = torch.nn.functional.silu if name == "gated_silu" else lambda gate: gelu(gate, approximate="tanh")
        return [x, up], lambda: activation(x.double()) * up.double()
    bias = make(width)
    summed = lambda: x.double() + bias.double()
    return [x, bias], summed if name == "add_bias" else lambda: gelu(summed())


def counts(name, shape, dtype, head_dim):
    batch, sequence, width = shape
    pack = PACK_BYTES // dtype.itemsize
    packs = batch * sequence * width // pack
    if name == "rotate":
        return [packs, sequence, width // head_dim, head_dim // 2 // pack]
    return [packs] if name.startswith("gated") else [packs, width // pack]


def check_kernels(results, device):
    """Checks each kernel on small and odd shapes in each type, and times it on a large one in bf16."""
    if device == "cpu":
        return
    import torch

    try:
        with torch.cuda.device(device):
            run_kernels(torch, results, device)
    except Exception as error:
        results.fail(stage="kernel", refused=f"{type(error).__name__}: {error}"[:400])


def run_kernels(torch, results, device):
    kernels = Kernels()
    types = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
    for name in ["add_bias", "bias_gelu", "gated_gelu", "gated_silu", "rotate"]:
        row = {"stage": "kernel", "kernel": name}
        for suffix, dtype in types.items():
            kernel, worst = kernels.get(f"{name}_{suffix}"), 0.0
            for shape, head_dim in [((1, 1, 16), 16), ((3, 7, 48), 16), ((2, 129, 1024), 64), ((5, 33, 2048), 256)]:
                tensors, expected = operands(torch, name, shape, dtype, head_dim)
                out = torch.full(shape, float("nan"), device="cuda", dtype=dtype)
                kernels.launch(kernel, [*tensors, out], counts(name, shape, dtype, head_dim))
                expected = expected()
                size = expected.abs() + tensors[0].double().abs() + (0 if name == "rotate" else tensors[1].double().abs())
                worst = max(worst, ((out.double() - expected).abs() / size.clamp_min(1e-3)).nan_to_num(float("inf")).max().item())
            row[f"{suffix}_relative_difference"] = worst
            if worst > ALLOWED[suffix]:
                row["wrong"] = f"{suffix} differs by {worst:.1e}"
        shape, dtype = TIMED.get(name, TIMED_GATED), torch.bfloat16
        tensors, _ = operands(torch, name, shape, dtype, 64)
        out, kernel = torch.empty(shape, device="cuda", dtype=dtype), kernels.get(f"{name}_bf16")
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for repeat in range(12):
            if repeat == 2:
                begin.record()
            kernels.launch(kernel, [*tensors, out], counts(name, shape, dtype, 64))
        end.record()
        synchronize(device)
        microseconds = begin.elapsed_time(end) * 100
        row.update(microseconds=microseconds,
                   gigabytes_per_second=sum(tensor.nbytes for tensor in [*tensors, out]) / microseconds / 1e3)  # fmt: skip
        (results.fail if "wrong" in row else results.add)(**row)
