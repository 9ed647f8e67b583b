#pragma once
#include <cstdint>

#ifndef SPARSEC_LIST
#define SPARSEC_LIST
struct sparsec_list {  // a table of draws, int32 [rows, blocks, width]
  const int32_t* entries;
  int64_t first;  // its first query block
  int64_t blocks;
};
#endif

#ifndef SPARSEC_LOOKUP
#define SPARSEC_LOOKUP
struct sparsec_lookup {  // what an input says, contiguous [batch, heads, rows, columns]; batch and heads may be 1
  const void* data;  // int32, or int64 of lists, or uint8 of cells and ancestors
  int64_t batch;
  int64_t heads;
  int64_t rows;
  int64_t columns;
  int64_t first;  // of prefix counts, the first number; of lists, whether they are int64
};
#endif

#ifndef SPARSEC_MARKS
#define SPARSEC_MARKS
struct sparsec_marks {  // what an input says of the keys of a call, [batch, heads, n]; batch and heads may be 1
  const uint8_t* data;
  int64_t stride[3];
  int64_t batch;
  int64_t heads;
};
#endif

#ifndef SPARSEC_KEPT
#define SPARSEC_KEPT
struct sparsec_kept {  // lists of kept keys
  void* keys;  // [rows, D]
  void* values;  // [rows, DV]
  int32_t* entries;  // [1 + words, rows]: positions, then marks
  int64_t rows;
  int64_t room;  // rows that lists may have: those after it may be read
  int32_t* lists;  // [B, G, 3]: base, capacity and count
  const sparsec_marks* marks;  // of each input of kind tokens
};
#endif

#ifndef SPARSEC_CALL
#define SPARSEC_CALL
struct sparsec_call {  // strides in elements; q [B, H, Nq, D], k [B, G, Nk, D]; out, v: DV for D; lse [B, H, Nq]
  const void* q;
  const void* k;
  const void* v;
  void* out;
  float* lse;
  int64_t q_stride[4];
  int64_t k_stride[4];
  int64_t v_stride[4];
  int64_t out_stride[4];
  int64_t lse_stride[3];
  int64_t batch;
  int64_t n_q;
  int64_t n_k;
  int64_t q0;  // the position of the first query
  const sparsec_list* lists;
  const sparsec_lookup* inputs;  // two for each test of an input
  const float* sink;  // [H], for a learned sink
  const float* key_bias;  // [b, x, keys], for a key bias; of b = 1 the stride is 0
  int64_t bias_heads;
  int64_t bias_keys;
  int64_t bias_stride[3];
  const int32_t* cu_seqlens;  // [documents + 1], for documents
  int64_t documents;
  float scale;
  int32_t threads;
};
#endif

#ifndef SPARSEC_BACKWARD_CALL
#define SPARSEC_BACKWARD_CALL
struct sparsec_backward_call {  // strides in elements; shapes as in the forward call; dq, dk, dv are contiguous
  const void* grad_out;
  const void* q;
  const void* k;
  const void* v;
  const void* out;
  const float* lse;
  const float* grad_lse;  // null for zeros
  void* dq;
  void* dk;
  void* dv;
  int64_t grad_out_stride[4];
  int64_t q_stride[4];
  int64_t k_stride[4];
  int64_t v_stride[4];
  int64_t out_stride[4];
  int64_t lse_stride[3];
  int64_t grad_lse_stride[3];
  int64_t batch;
  int64_t n_q;
  int64_t n_k;
  int64_t q0;  // the position of the first query
  const sparsec_list* lists;
  const sparsec_lookup* inputs;  // two for each test of an input
  const float* sink;  // [H], for a learned sink
  const float* key_bias;  // [b, x, keys], for a key bias; of b = 1 the stride is 0
  int64_t bias_heads;
  int64_t bias_keys;
  int64_t bias_stride[3];
  float* dsink;  // [H], likewise
  float* dbias;  // [B, H, Nk], likewise; null: not asked for
  const int32_t* cu_seqlens;  // [documents + 1], for documents
  int64_t documents;
  float scale;
  int32_t threads;
};
#endif

#ifndef SPARSEC_MASS_CALL
#define SPARSEC_MASS_CALL
struct sparsec_mass_call {  // strides in elements; shapes as in the forward call; mass: [B, H, Nk], contiguous
  const void* q;
  const void* k;
  const float* lse;
  float* mass;
  int64_t q_stride[4];
  int64_t k_stride[4];
  int64_t lse_stride[3];
  int64_t batch;
  int64_t n_q;
  int64_t n_k;
  int64_t q0;  // the position of the first query
  const sparsec_list* lists;
  const sparsec_lookup* inputs;  // two for each test of an input
  const float* sink;  // [H], for a learned sink
  const float* key_bias;  // [b, x, keys], for a key bias; of b = 1 the stride is 0
  int64_t bias_heads;
  int64_t bias_keys;
  int64_t bias_stride[3];
  const int32_t* cu_seqlens;  // [documents + 1], for documents
  int64_t documents;
  float scale;
  int32_t threads;
};
#endif

#ifndef SPARSEC_CACHED_CALL
#define SPARSEC_CACHED_CALL
struct sparsec_cached_call {  // strides in elements; q [B, H, N, D], k [B, G, N, D]; out, v: DV for D; lse [B, H, N]
  const void* q;
  const void* k;
  const void* v;
  void* keys;  // the cache, [B, slots, D]
  void* values;  // likewise, [B, slots, DV]
  void* out;  // contiguous, and so are all that have no stride here
  float* lse;
  int64_t q_stride[4];
  int64_t k_stride[4];
  int64_t v_stride[4];
  int64_t batch;
  int64_t n;
  int64_t slots;
  int64_t longest;  // the most tokens of a sequence after the call: tables of draws end there
  int32_t* lengths;  // [B]: tokens in the cache
  const int32_t* counts;  // [B]: those among the call's n, which are the last; null: n each
  int64_t* state;  // [2, B], or null: once stored, tokens are counted here and in lengths
  const int32_t* places;  // [G, regions, 2]: base and capacity of a group's regions
  const sparsec_kept* kept;  // null for a cache without lists of kept keys
  float* mass;  // [B, H, mass_keys], to which the mass of keys is added; null: not asked for
  int64_t mass_keys;
  const uint8_t* mass_groups;  // [G], which groups get it; null: all
  const sparsec_list* lists;
  const sparsec_lookup* inputs;  // two for each test of an input
  const float* sink;  // [H], for a learned sink
  const float* key_bias;  // [b, x, keys], for a key bias; of b = 1 the stride is 0
  int64_t bias_heads;
  int64_t bias_keys;
  int64_t bias_stride[3];
  float scale;
  int32_t threads;
};
#endif

#ifndef SPARSEC_PAGED_CALL
#define SPARSEC_PAGED_CALL
struct sparsec_paged_call {  // strides in elements; q [1, H, tokens, D], k [pages, G, page size, D]; out, v: DV for D
  const void* q;
  const void* k;
  const void* v;
  void* out;  // contiguous, and so are all that have no stride here
  float* lse;  // [tokens, H]
  int64_t q_stride[4];
  int64_t k_stride[4];
  int64_t v_stride[4];
  int64_t tokens;
  int64_t pages;
  int64_t page_size;
  int64_t requests;
  const int32_t* table;  // [requests, most_pages]: any numbers
  int64_t most_pages;
  int64_t longest;  // the most tokens of a request for which there are pages, and draws
  const int32_t* starts;  // [requests + 1]: rows of q
  const int32_t* lengths;  // [requests]: tokens with those of the call, the last ones
  int64_t few;  // the most queries of a request for the kernel of single rows
  const sparsec_list* lists;
  const sparsec_lookup* inputs;  // two for each test of an input
  const float* sink;  // [H], for a learned sink
  const float* key_bias;  // [b, x, keys], for a key bias; of b = 1 the stride is 0
  int64_t bias_heads;
  int64_t bias_keys;
  int64_t bias_stride[3];
  float scale;
  int32_t threads;
};
#endif
