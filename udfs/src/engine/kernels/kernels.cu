// What lies between two matrix products, in one pass over memory each. `make kernels` compiles this into kernels.ptx.
//
// All values are computed in f32 and rounded once, to the type of the tensors. A thread works on 16 bytes; the caller
// makes sure that the width of a row is a multiple of that. No header is needed: half precision is converted by PTX.

struct half_t {
  unsigned short bits;
};
struct bfloat_t {
  unsigned short bits;
};

__device__ inline float to_float(float x) { return x; }

__device__ inline float to_float(half_t x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

__device__ inline float to_float(bfloat_t x) { return __uint_as_float((unsigned)x.bits << 16); }

__device__ inline void round_to(float& to, float x) { to = x; }

__device__ inline void round_to(half_t& to, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }

__device__ inline void round_to(bfloat_t& to, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }

// 16 bytes, which a thread loads and stores at once.
template <typename T>
struct alignas(16) pack {
  enum { size = 16 / sizeof(T) };
  T values[size];
};

// 1 / (1 + exp(-x)), to 2^-21 of its value
__device__ inline float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

struct silu {
  __device__ static float of(float x) { return x * sigmoid(x); }
};

// GELU by its tanh approximation: 0.5 x (1 + tanh(u)) = x sigmoid(2 u), with u = sqrt(2 / pi) (x + 0.044715 x^3)
struct gelu_tanh {
  __device__ static float of(float x) { return x * sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x)); }
};

struct gelu_erf {
  __device__ static float of(float x) { return 0.5f * x * (1.0f + erff(0.7071067811865476f * x)); }
};

struct identity {
  __device__ static float of(float x) { return x; }
};

// out = activation(gate) * up; `packs` is the number of packs of each tensor.
template <typename T, typename activation>
__device__ inline void gated(const void* gate, const void* up, void* out, unsigned packs) {
  unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= packs) return;
  pack<T> a = ((const pack<T>*)gate)[at];
  pack<T> b = ((const pack<T>*)up)[at];
#pragma unroll
  for (int i = 0; i < pack<T>::size; i++) {
    round_to(a.values[i], activation::of(to_float(a.values[i])) * to_float(b.values[i]));
  }
  ((pack<T>*)out)[at] = a;
}

// out = activation(x + bias); `row` is the number of packs of the bias.
template <typename T, typename activation>
__device__ inline void biased(const void* x, const void* bias, void* out, unsigned packs, unsigned row) {
  unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= packs) return;
  pack<T> a = ((const pack<T>*)x)[at];
  pack<T> b = ((const pack<T>*)bias)[at % row];
#pragma unroll
  for (int i = 0; i < pack<T>::size; i++) {
    round_to(a.values[i], activation::of(to_float(a.values[i]) + to_float(b.values[i])));
  }
  ((pack<T>*)out)[at] = a;
}

// Rotary position embedding, half-split. x is [batch, sequence, heads, 2 * half], cosine and sine are [sequence, half], and
// a token's position is its index in its row. `half` is in packs; a thread has one pack of each half of a head.
template <typename T>
__device__ inline void rotate(const void* x, const void* cosine, const void* sine, void* out, unsigned threads,
                              unsigned sequence, unsigned heads, unsigned half) {
  unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= threads) return;
  unsigned head = at / half, i = at % half;
  unsigned position = head / heads % sequence;
  unsigned first = head * 2 * half + i;
  pack<T> a = ((const pack<T>*)x)[first];
  pack<T> b = ((const pack<T>*)x)[first + half];
  pack<T> c = ((const pack<T>*)cosine)[position * half + i];
  pack<T> s = ((const pack<T>*)sine)[position * half + i];
#pragma unroll
  for (int j = 0; j < pack<T>::size; j++) {
    float p = to_float(a.values[j]), q = to_float(b.values[j]);
    float u = to_float(c.values[j]), v = to_float(s.values[j]);
    round_to(a.values[j], p * u - q * v);
    round_to(b.values[j], q * u + p * v);
  }
  ((pack<T>*)out)[first] = a;
  ((pack<T>*)out)[first + half] = b;
}

#define KERNELS(T, type)                                                                                              \
  extern "C" __global__ void gated_gelu_##type(const void* gate, const void* up, void* out, unsigned packs) {         \
    gated<T, gelu_tanh>(gate, up, out, packs);                                                                        \
  }                                                                                                                   \
  extern "C" __global__ void gated_silu_##type(const void* gate, const void* up, void* out, unsigned packs) {         \
    gated<T, silu>(gate, up, out, packs);                                                                             \
  }                                                                                                                   \
  extern "C" __global__ void add_bias_##type(const void* x, const void* bias, void* out, unsigned packs, unsigned row) { \
    biased<T, identity>(x, bias, out, packs, row);                                                                    \
  }                                                                                                                   \
  extern "C" __global__ void bias_gelu_##type(const void* x, const void* bias, void* out, unsigned packs, unsigned row) { \
    biased<T, gelu_erf>(x, bias, out, packs, row);                                                                    \
  }                                                                                                                   \
  extern "C" __global__ void rotate_##type(const void* x, const void* cosine, const void* sine, void* out,            \
                                           unsigned threads, unsigned sequence, unsigned heads, unsigned half) {      \
    rotate<T>(x, cosine, sine, out, threads, sequence, heads, half);                                                  \
  }

KERNELS(float, f32)
KERNELS(half_t, f16)
KERNELS(bfloat_t, bf16)
