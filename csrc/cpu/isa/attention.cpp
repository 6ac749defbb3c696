// Forward works on transposed scores, keys x queries: the softmax runs down the columns, lane by lane, and K and V are
// read as they lie. Backward computes the weights again from the kept lse, key block by key block.
#include "attention.h"

#include <cstring>

#include "attention_multiply.h"
#include "vector_math.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int64_t kQ = kAttentionQueries, kK = kAttentionKeys;
constexpr int64_t kFewQueries = 3;  // scores of so few, as in decoding, are cheaper as dot products
constexpr float kInfinity = __builtin_inff();

ULPGRAD_INLINE int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }
ULPGRAD_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// to[p * width + i] = from row i, value p, times scale; zeros up to the width.
static void transpose(const AttentionRows& from, int64_t rows, int64_t size, float scale, float* to, int64_t width) {
  for (int64_t p = 0; p < size; ++p) {
    float* const row = to + p * width;
    for (int64_t i = 0; i < rows; ++i) row[i] = from.data[i * from.row + p] * scale;
    for (int64_t i = rows; i < width; ++i) row[i] = 0;
  }
}

// Rows whose size is a multiple of 16 as they are, others copied with zeros behind them.
static AttentionRows whole_vectors(const AttentionRows& from, int64_t rows, int64_t size, float* memory) {
  const int64_t width = padded(size);
  if (width == size) return from;
  for (int64_t i = 0; i < rows; ++i) {
    memcpy(memory + i * width, from.data + i * from.row, size * sizeof(float));
    memset(memory + i * width + size, 0, (width - size) * sizeof(float));
  }
  return {memory, width};
}

ULPGRAD_INLINE AttentionRows from_row(const AttentionRows& rows, int64_t i) {
  return {rows.data + i * rows.row, rows.row};
}

// allowed ? x : y without a branch: masks are as good as random.
ULPGRAD_INLINE float where(uint8_t allowed, float x, float y) {
  const uint32_t keep = allowed ? ~0u : 0u;
  return vm::as<float>((vm::as<uint32_t>(x) & keep) | (vm::as<uint32_t>(y) & ~keep));
}

// Apply the mask and causality to scores[i * row + j * column] of query `query` + i and key `key` + j.
static void apply_mask(const AttentionHead& head, int64_t query, int64_t queries, int64_t key, int64_t keys,
                       float* scores, int64_t row, int64_t column) {
  const AttentionMask& mask = head.mask;
  if (mask.data) {
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t start = (query + i) * mask.row + key * mask.column;
      float* const to = scores + i * row;
      if (mask.is_bool) {
        const uint8_t* const allowed = static_cast<const uint8_t*>(mask.data) + start;
        for (int64_t j = 0; j < keys; ++j) to[j * column] = where(allowed[j * mask.column], to[j * column], -kInfinity);
      } else {
        const float* const added = static_cast<const float*>(mask.data) + start;
        for (int64_t j = 0; j < keys; ++j) to[j * column] += added[j * mask.column];
      }
    }
  }
  if (head.is_causal && key + keys > query + 1) {
    for (int64_t j = 0; j < keys; ++j) {
      const int64_t hidden = key + j - query;  // queries before it do not see this key
      for (int64_t i = 0; i < least(hidden, queries); ++i) scores[i * row + j * column] = -kInfinity;
    }
  }
}

// x and y over `size` values.
ULPGRAD_INLINE float dot(const float* x, const float* y, int64_t size) {
  Vec<float> products{};
  int64_t p = 0;
  for (; p + kLanes<float> <= size; p += kLanes<float>) products += load(x + p) * load(y + p);
  float total = sum<float>(products);
  for (; p < size; ++p) total += x[p] * y[p];
  return total;
}

static int64_t forward_memory(const AttentionHead& head) {
  return kQ * (head.size + kK + padded(head.value_size) + 4) + kK * padded(head.value_size);
}

// kColumns: lanes that the queries of a block take, 64, or 16 for few queries, as in decoding.
template <int64_t kColumns>
static void forward_block(const AttentionHead& head, int64_t first, int64_t queries, float* y, float* lse,
                          float* memory) {
  const int64_t width = padded(head.value_size);
  float* const q = memory;                          // size x kColumns
  float* const weights = q + head.size * kColumns;  // kK x kColumns
  float* const sums = weights + kK * kColumns;      // kColumns x width
  float* const largest = sums + kColumns * width;
  float* const shift = largest + kColumns;
  float* const total = shift + kColumns;
  float* const factor = total + kColumns;
  float* const values = factor + kColumns;  // kK x width
  transpose(from_row(head.q, first), queries, head.size, head.scale, q, kColumns);
  memset(sums, 0, kColumns * width * sizeof(float));
  for (int64_t i = 0; i < kColumns; ++i) largest[i] = -kInfinity, total[i] = 0;

  const int64_t seen = head.is_causal ? least(head.keys, first + queries) : head.keys;
  for (int64_t key = 0; key < seen; key += kK) {
    const int64_t keys = least(kK, seen - key);
    const AttentionRows k = from_row(head.k, key);
    if (queries <= kFewQueries) {
      memset(weights, 0, keys * kColumns * sizeof(float));
      for (int64_t j = 0; j < keys; ++j) {
        for (int64_t i = 0; i < queries; ++i) {
          const float* const query = head.q.data + (first + i) * head.q.row;
          weights[j * kColumns + i] = dot(query, k.data + j * k.row, head.size) * head.scale;
        }
      }
    } else {
      multiply<false>({keys, kColumns, head.size, k.data, k.row, 1, q, kColumns, weights, kColumns});
    }
    apply_mask(head, first, queries, key, keys, weights, 1, kColumns);
    for (int64_t i = 0; i < kColumns; ++i) shift[i] = largest[i];
    for (int64_t j = 0; j < keys; ++j) {
      const float* const row = weights + j * kColumns;
      for (int64_t i = 0; i < kColumns; ++i) shift[i] = row[i] > shift[i] ? row[i] : shift[i];
    }
    bool grew = false;
    for (int64_t i = 0; i < kColumns; ++i) {
      grew |= shift[i] != largest[i];
      factor[i] = largest[i] == shift[i] ? 1 : vm::exp(largest[i] - shift[i]);
      largest[i] = shift[i];
      shift[i] = shift[i] == -kInfinity ? 0 : shift[i];
      total[i] *= factor[i];
    }
    for (int64_t j = 0; j < keys; ++j) {
      float* const row = weights + j * kColumns;
      for (int64_t i = 0; i < kColumns; ++i) {
        row[i] = vm::exp(row[i] - shift[i]);
        total[i] += row[i];
      }
    }
    if (grew && key > 0) {
      for (int64_t i = 0; i < queries; ++i) {
        for (int64_t e = 0; e < width; ++e) sums[i * width + e] *= factor[i];
      }
    }
    const AttentionRows v = whole_vectors(from_row(head.v, key), keys, head.value_size, values);
    multiply<true>({queries, width, keys, weights, 1, kColumns, v.data, v.row, sums, width});
  }
  for (int64_t i = 0; i < queries; ++i) {
    const float share = total[i] == 0 ? 0 : 1 / total[i];
    for (int64_t e = 0; e < head.value_size; ++e) y[i * head.value_size + e] = sums[i * width + e] * share;
    lse[i] = largest[i] + vm::log(total[i]);
  }
}

static void forward(const AttentionHead& head, int64_t first, float* y, float* lse, float* memory) {
  const int64_t queries = least(kQ, head.queries - first);
  const auto run = queries <= 16 ? forward_block<16> : forward_block<kQ>;
  run(head, first, queries, y, lse, memory);
}

static int64_t backward_memory(const AttentionHead& head) {
  const int64_t width = padded(head.size), value_width = padded(head.value_size);
  return kK * (head.size + head.value_size + 2 * width + value_width) + kQ * (2 * kK + width + value_width) +
         padded(head.queries);
}

static void backward(const AttentionHead& head, const AttentionGradient& x, float* memory) {
  const int64_t size = head.size, value_size = head.value_size, width = padded(size), value_width = padded(value_size);
  float* const k_columns = memory;                    // size x kK
  float* const v_columns = k_columns + size * kK;     // value_size x kK
  float* const k_rows = v_columns + value_size * kK;  // kK x width
  float* const dk = k_rows + kK * width;              // kK x width
  float* const dv = dk + kK * width;                  // kK x value_width
  float* const weights = dv + kK * value_width;       // kQ x kK
  float* const wanted = weights + kQ * kK;            // kQ x kK
  float* const q_rows = wanted + kQ * kK;             // kQ x width
  float* const g_rows = q_rows + kQ * width;          // kQ x value_width
  float* const inner = g_rows + kQ * value_width;     // of g and y, for each query
  for (int64_t i = 0; i < head.queries; ++i) {
    inner[i] = dot(x.g.data + i * x.g.row, x.y.data + i * x.y.row, value_size);
  }

  for (int64_t key = x.begin; key < x.end; key += kK) {
    const int64_t keys = least(kK, x.end - key), columns = padded(keys);
    transpose(from_row(head.k, key), keys, size, head.scale, k_columns, kK);
    transpose(from_row(head.v, key), keys, value_size, 1, v_columns, kK);
    const AttentionRows k = whole_vectors(from_row(head.k, key), keys, size, k_rows);
    memset(dk, 0, kK * width * sizeof(float));
    memset(dv, 0, kK * value_width * sizeof(float));
    for (int64_t query = head.is_causal ? key / kQ * kQ : 0; query < head.queries; query += kQ) {
      const int64_t queries = least(kQ, head.queries - query);
      const AttentionRows q = whole_vectors(from_row(head.q, query), queries, size, q_rows);
      const AttentionRows g = whole_vectors(from_row(x.g, query), queries, value_size, g_rows);
      multiply<false>({queries, columns, size, q.data, q.row, 1, k_columns, kK, weights, kK});
      apply_mask(head, query, queries, key, keys, weights, kK, 1);
      multiply<false>({queries, columns, value_size, g.data, g.row, 1, v_columns, kK, wanted, kK});
      for (int64_t i = 0; i < queries; ++i) {
        float* const p = weights + i * kK;
        float* const w = wanted + i * kK;
        const float lse = x.lse[query + i], shift = lse == -kInfinity ? kInfinity : lse, mean = inner[query + i];
        for (int64_t j = 0; j < columns; ++j) {
          p[j] = vm::exp(p[j] - shift);
          w[j] = p[j] * (w[j] - mean) * head.scale;
        }
      }
      multiply<true>({keys, value_width, queries, weights, 1, kK, g.data, g.row, dv, value_width});
      multiply<true>({keys, width, queries, wanted, 1, kK, q.data, q.row, dk, width});
      multiply<true>({queries, width, keys, wanted, kK, 1, k.data, k.row, x.dq + query * width, width});
    }
    for (int64_t j = 0; j < keys; ++j) {
      memcpy(x.dk + (key + j) * size, dk + j * width, size * sizeof(float));
      memcpy(x.dv + (key + j) * value_size, dv + j * value_width, value_size * sizeof(float));
    }
  }
}

extern const AttentionTable attention_table = {forward, backward, forward_memory, backward_memory};

}  // namespace ulpgrad::ULPGRAD_ISA
