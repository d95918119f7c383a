#!/usr/bin/env bash
# Would the simulated device and the parity tests notice? Breaks the CUDA kernels in one place at a time, in a copy of
# the tree, and expects a failure: bash tests/cuda/broken_kernels.sh [NUMBER ...]
# Prints a line for each, with the message that caught it, then how many were caught; a survivor is a failure.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$root/build/broken_kernels
source "$root/tests/support/mutation.sh"
start_mutations "$root" "$work" -DSTET_CUDA=SIMULATED "$@"

# KIND: FILE, TEXT -> REPLACEMENT, the tests that must notice.
K=cuda/kernels
mutation $K/block.h $'if (lane == 0) scratch[warp] = value;\n  __syncthreads();' 'if (lane == 0) scratch[warp] = value;' parity_test             # missing barrier
mutation cuda/launch.h 'i < count; i += all_threads()' 'i <= count; i += all_threads()' parity_test                          # off-by-one bound
mutation $K/copy.cu 'tile[x * (kTile + 1) + y];' 'tile[y * (kTile + 1) + x];' parity_test                                    # wrong index
mutation $K/rows.cu 'job.mean[row.number] = mean;' 'atomicAdd(&job.mean[row.number], mean);' fused_test@cuda                 # float atomic
mutation $K/attention.cu 'T value = *out(e) * past[r];' 'T value = *out(e);' attention_parity_test                       # sums of another scale
mutation $K/attention.cu $'past[r] = shrink;\n      }\n    }\n    __syncthreads();' $'past[r] = shrink;\n      }\n    }' attention_parity_test  # missing barrier
mutation $K/sort.cu 'std::int64_t* positions = scratch.as<std::int64_t>();' 'std::int64_t* positions = Scratch(op, count * padded * 8).as<std::int64_t>();' parity_test  # read of freed memory
mutation $K/reduce.cu 'sum = Op::eval(sum, from[row * inner])' 'sum = Op::eval(sum, from[row * (inner + 1)])' parity_test     # wrong stride
mutation $K/layout.h 'if (wide) offsets_as' 'if (false && wide) offsets_as' simulated_index_test  # 32-bit overflow
mutation $K/copy.cu 'if (row0 + x < rows && col0 + y < cols) tile' 'if (row0 + x < rows && col0 + y < cols && x > 0) tile' parity_test  # uninitialised shared memory
mutation cuda/gemm.cu 'layout(job, type, job.k, job.m, job.lda, job.stride_a)' 'layout(job, type, job.k, job.m, job.lda + 1, job.stride_a)' products_parity_test  # wrong leading dimension
mutation $K/reduce.cu 'const T start = start_of<Op, T>(from[0]);' 'const T start = T(0);' parity_test                        # wrong identity
mutation $K/elementwise.cu 'j < count && j < i + width' 'j < i + width' parity_test                                         # missing tail check
mutation $K/reduce.cu $'places[me] = best.at;\n    __syncthreads();' $'places[me] = best.at;\n    if (me == 1) return;\n    __syncthreads();' parity_test  # divergent barrier
mutation $K/block.h 'distance > 0; distance /= 2)' 'distance > 1; distance /= 2)' parity_test                                # half a shuffle
mutation $K/update.cu 'if (bits) return bits[i / 32] >> (i % 32) & 1u;' 'if (bits) return true;' mask_test@cuda         # masked elements written
mutation $K/random.cu 'random_bits64(key, i)' 'random_bits64(key, i + 1)' parity_test                       # other draws
mutation $K/indexing.cu 'if (place > 0 && sorted' 'if (place > 1 && sorted' parity_test                                      # a run added twice
mutation cuda/graph.cu 'for (const auto& work : r.before_replay) work();' 'for (std::size_t i = 0; i + 1 < r.before_replay.size(); ++i) r.before_replay[i]();' step_test  # stale arguments in a replay
mutation cuda/allocator.cu 'mark(data, 0);' 'mark(data, bytes);' simulated_errors_test                                                     # cached blocks look alive
mutation $K/block.h 'blockIdx.x) * blockDim.y + threadIdx.y' 'blockIdx.x) * blockDim.y' parity_test                       # rows of a block that nobody does
mutation $K/update.cu 'begin + kSquaresSpan < e.count ? begin + kSquaresSpan' 'begin + kSpan < e.count ? begin + kSpan' parity_test  # a part of a sum
mutation $K/rows.cu 'const std::int64_t begin = piece * kRowsPerPiece;' 'const std::int64_t begin = piece * kRowThreads;' parity_test  # rows counted twice
mutation cuda/gemm.cu 'done == CUBLASLT_EPILOGUE_BIAS ? nullptr : job.bias' 'job.bias' products_parity_test                                                                 # an epilogue done twice
mutation $K/rows.cu 'if (own_line() >= rows)' 'if (own_line() > rows)' parity_test                                                # warps beyond the last row
mutation cuda/graph.cu 'static_cast<void>(complaint());' '' step_test                                                   # complaints of replays that nobody looks for
finish_mutations
