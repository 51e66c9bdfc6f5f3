// What lies between two matrix products, in one pass over memory each. `make kernels` compiles this into kernels.ptx.
//
// All values are computed in f32 and rounded once, to the type of the tensors. A tensor is packs of 16 bytes, which a thread
// loads and stores at once; a thread works on two packs. The caller makes sure that the width of a row is a multiple of a
// pack. No header is needed: half precision is converted by PTX.

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

// 1 / (1 + exp(-x)). The exponential is off by about (|x| + 4) 2^-23 of its value, which is noticeable only where the result is
// next to nothing.
__device__ inline float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

struct silu {
  __device__ static float of(float x) { return x * sigmoid(x); }
};

// GELU by its tanh approximation: 0.5 x (1 + tanh(u)) = x sigmoid(2 u), with u = sqrt(2 / pi) (x + 0.044715 x^3)
struct gelu_tanh {
  __device__ static float of(float x) { return x * sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x)); }
};

// GELU by the error function: 0.5 x (1 + erf(x / sqrt(2))), where erf is within 1.5e-7. A tenth faster than erff, which keeps
// the kernel waiting for arithmetic rather than for memory.
// (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26)
struct gelu_erf {
  __device__ static float of(float x) {
    float z = 0.7071067811865476f * fabsf(x);
    float t = __fdividef(1.0f, 1.0f + 0.3275911f * z);
    float series = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    float erf = 1.0f - series * __expf(-z * z);
    return 0.5f * (x + fabsf(x) * erf);
  }
};

struct identity {
  __device__ static float of(float x) { return x; }
};

// The packs of a thread: a block apart, so that the threads of a block read consecutive packs. All are loaded before the
// first is stored.
enum { PACKS = 2 };

template <typename T>
struct thread_packs {
  unsigned first, count;
  pack<T> packs[PACKS] = {};

  __device__ thread_packs(unsigned total) : first(blockIdx.x * PACKS * blockDim.x + threadIdx.x), count(total) {}

  __device__ unsigned at(unsigned i) const { return first + i * blockDim.x; }

  __device__ void load(const void* from) {
#pragma unroll
    for (unsigned i = 0; i < PACKS; i++) {
      if (at(i) < count) packs[i] = ((const pack<T>*)from)[at(i)];
    }
  }

  __device__ void store(void* to) const {
#pragma unroll
    for (unsigned i = 0; i < PACKS; i++) {
      if (at(i) < count) ((pack<T>*)to)[at(i)] = packs[i];
    }
  }
};

// out = activation(gate) * up; each tensor has `total` packs.
template <typename T, typename activation>
__device__ inline void gated(const void* gate, const void* up, void* out, unsigned total) {
  thread_packs<T> a(total), b(total);
  a.load(gate);
  b.load(up);
#pragma unroll
  for (unsigned i = 0; i < PACKS; i++) {
#pragma unroll
    for (int j = 0; j < pack<T>::size; j++) {
      T& value = a.packs[i].values[j];
      round_to(value, activation::of(to_float(value)) * to_float(b.packs[i].values[j]));
    }
  }
  a.store(out);
}

// out = activation(x + bias); the bias has `row` packs.
template <typename T, typename activation>
__device__ inline void biased(const void* x, const void* bias, void* out, unsigned total, unsigned row) {
  thread_packs<T> a(total);
  a.load(x);
#pragma unroll
  for (unsigned i = 0; i < PACKS; i++) {
    pack<T> b = ((const pack<T>*)bias)[a.at(i) % row];
#pragma unroll
    for (int j = 0; j < pack<T>::size; j++) {
      T& value = a.packs[i].values[j];
      round_to(value, activation::of(to_float(value) + to_float(b.values[j])));
    }
  }
  a.store(out);
}

// Rotary position embedding, half-split. x is [batch, sequence, heads, 2 * half], cosine and sine are [positions, half], at
// least `sequence` of them, and a token's position is its index in its row. `half` is in packs; a thread has one pack of each half of a head.
template <typename T>
__device__ inline void rotate(const void* x, const void* cosine, const void* sine, void* out, unsigned total,
                              unsigned sequence, unsigned heads, unsigned half) {
  unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= total / 2) return;
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
  extern "C" __global__ void gated_gelu_##type(const void* gate, const void* up, void* out, unsigned total) {         \
    gated<T, gelu_tanh>(gate, up, out, total);                                                                        \
  }                                                                                                                   \
  extern "C" __global__ void gated_silu_##type(const void* gate, const void* up, void* out, unsigned total) {         \
    gated<T, silu>(gate, up, out, total);                                                                             \
  }                                                                                                                   \
  extern "C" __global__ void add_bias_##type(const void* x, const void* bias, void* out, unsigned total, unsigned row) { \
    biased<T, identity>(x, bias, out, total, row);                                                                    \
  }                                                                                                                   \
  extern "C" __global__ void bias_gelu_##type(const void* x, const void* bias, void* out, unsigned total, unsigned row) { \
    biased<T, gelu_erf>(x, bias, out, total, row);                                                                    \
  }                                                                                                                   \
  extern "C" __global__ void rotate_##type(const void* x, const void* cosine, const void* sine, void* out,            \
                                           unsigned total, unsigned sequence, unsigned heads, unsigned half) {        \
    rotate<T>(x, cosine, sine, out, total, sequence, heads, half);                                                    \
  }

KERNELS(float, f32)
KERNELS(half_t, f16)
KERNELS(bfloat_t, bf16)
