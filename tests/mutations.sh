#!/usr/bin/env bash
# Can the tests fail? Breaks kernels, derivatives, engine, optimizers, Fisher and readers by hand, one place at a
# time, in a copy of the tree, and expects the suite to notice each: bash tests/mutations.sh [NUMBER ...]
# Prints a line per mutation, then how many were caught; a survivor is a failure. Takes about half an hour.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
source "$root/tests/support/mutation.sh"
start_mutations "$root" "$root/build/mutations" -DSTET_CUDA=OFF "$@"

# Kernels.
mutation tensor/cpu/kernels/reduce.cpp 'r = row + 1; r < end' 'r = row + 2; r < end' elementwise_test
mutation tensor/cpu/kernels/reduce.cpp 'constexpr std::int64_t kLongLine = 65536;' '#define kLongLine (65536 / threads())' threads_test
mutation tensor/cpu/kernels/reduce.cpp '(better || now != now) && !(old != old)' 'better' elementwise_test
mutation tensor/cpu/kernels/rows.cpp 'const T scale = T(1) / reduce_tree' 'const T scale = T(1.0001) / reduce_tree' gradcheck_test
mutation tensor/cpu/kernels/rows.cpp 'gw[i]) - normalized(i) * b' 'gw[i]) + normalized(i) * b' gradcheck_test
mutation tensor/cpu/kernels/rows.cpp 'const T at_target = seed * (rest(t) - hit)' 'const T at_target = seed * rest(t) - hit' gradcheck_test
mutation tensor/cpu/kernels/tree.h '((a > b) | (a != a))' '(a > b)' elementwise_test
mutation tensor/cpu/kernels/tree.h 'lane[l] = x[i + l];' 'lane[l] = x[i];' elementwise_test
mutation tensor/cpu/kernels/gemm.cpp 'outer_tile<R, 1, true>(a, ra, pa, b + col, job.ldb, c + col' 'outer_tile<R, 1, true>(a, ra, pa, b + col, job.ldb, c + col + (col > 32)' elementwise_test
mutation tensor/cpu/gemm.cpp 'static_cast<const T*>(job.bias) + col' 'static_cast<const T*>(job.bias)' elementwise_test
mutation tensor/cpu/kernels/packed.cpp 'job.accumulate || k > 0' 'k > 0' elementwise_test
mutation tensor/cpu/kernels/packed.cpp 'k + depth == job.k ? bias_alone' 'k >= 0 ? bias_alone' elementwise_test
mutation tensor/cpu/kernels/packed.cpp 'deep - slice * depth)' 'deep - slice * depth + 1)' elementwise_test
mutation tensor/cpu/kernels/packed.cpp 'static_cast<const float*>(job.bias) + col' 'static_cast<const float*>(job.bias)' elementwise_test
mutation tensor/cpu/kernels/turn.h 'i + r < rows ? from[r * stride + c] * scale : 0.0f' '0.0f' elementwise_test
mutation tensor/cpu/kernels/tile.h 'if (bias) sum += at(bias + v.value * kLanes);' 'if (bias) sum += at(bias);' elementwise_test
mutation tensor/cpu/kernels/gemm.cpp '(acc[0] + acc[1]) + (acc[2] + acc[3])' '(acc[0] + acc[1]) + acc[2]' elementwise_test
mutation tensor/cpu/indexing.cpp 'if (job.descending ? before(b, a) : before(a, b)) return true;' 'if (before(a, b)) return true;' elementwise_test
mutation tensor/cpu/kernels/update.cpp 'if (first_[middle] <= number) low = middle;' 'if (first_[middle] < number) low = middle;' optimizer_test
mutation tensor/cpu/kernels/update.cpp 'word >> (j - i) & 1u' 'word >> (j - i) >= 1u' optimizer_test mask_test
mutation tensor/cpu/kernels/update.cpp 'g = g + lambda * importance[i] * (value - anchor[i])' 'g = g + lambda * importance[i] * (anchor[i] - value)' optimizer_test
mutation tensor/cpu/kernels/attention.cpp 'sum[i] = sum[i] * past[i] + total' 'sum[i] = sum[i] + total' attention_test
mutation tensor/cpu/kernels/attention_tiles.h 'job.rows - job.window)' 'job.rows - job.window + 1)' attention_test
mutation tensor/cpu/kernels/attention.cpp 'hide_from(di, seen_by(job, at, i), T(0));' '' attention_test
mutation tensor/cpu/kernels/attention.cpp 'math::log(running.sum[i]) * kUnits<T>' 'math::log(running.sum[i])' attention_test
mutation tensor/cpu/kernels/attention_tiles.h 'at_most(most, math::detail::at_least(-most, x))' 'at_most(most, x)' attention_test
mutation tensor/cpu/kernels/attention_tiles.h 'v = keep ? v :' 'v = !keep ? v :' attention_test
mutation tensor/cpu/kernels/attention_tiles.h 'at.key + j + job.rows - job.keys - at.row' 'at.key + j + 1 + job.rows - job.keys - at.row' attention_test
mutation tensor/cpu/kernels/attention_tiles.h 'in_units(bias[j * job.bias.stride[3]])' 'bias[j * job.bias.stride[3]]' attention_test
mutation tensor/cpu/kernels/attention.cpp 'const T shift = high[i] == none ? T(0) : high[i];' 'const T shift = high[i];' attention_test
mutation tensor/cpu/kernels/attention_tiles.h 'job.window == 0 && keys_seen' 'job.window == 0 || keys_seen' attention_test
mutation tensor/cpu/kernels/attention.cpp 'if (!parts.more_kv) clear_from(at.keys);' '' attention_test
# Derivatives and engine.
mutation autograd/attention.cpp 'dp = dp * factor;' ';' attention_test
mutation autograd/attention.cpp 'to_q && to_kv && lie_side_by_side(q_, k_, v_)' 'false' attention_test
mutation autograd/ops_shape.cpp 'g.impl().offset == range.begin * strides[range.axis]' 'g.impl().offset >= range.begin * 0' engine_test attention_test
mutation autograd/ops_shape.cpp 'if (!pass.needs(0)) return;' '' engine_test
mutation autograd/ops_shape.cpp 'pieces->gradients.assign(pieces->ranges.size(), Tensor());' 'pieces->gradients.resize(pieces->ranges.size());' engine_test
mutation autograd/derivatives.h 'g * (1.0 - y * y)' 'g * (1.0 + y * y)' gradcheck_test
mutation autograd/derivatives.h 'static Tensor of(T g, T y) { return relu_grad(g, y); }' 'static Tensor of(T g, T y) { return relu_grad(g, y) * 0.0; }' gradcheck_test
mutation autograd/ops_reduce.cpp 'where(equal(zeros, one), expand(scaled' 'where(equal(zeros, zero), expand(scaled' gradcheck_test
mutation autograd/ops_matrix.cpp 'pass.give(2, sum(as_rows(g), {0}))' 'pass.give(2, mean(as_rows(g), {0}))' gradcheck_test
mutation autograd/engine.cpp 'check(output.impl().storage->version() == node->output_version' 'check(true || output.impl().storage->version() == node->output_version' engine_test
mutation autograd/node.cpp 't.impl().unique() && t.impl().storage->unique() && ' '' engine_test
mutation autograd/ops_shape.cpp 'expand(zeros({}, own.options())' 'expand(ones({}, own.options())' engine_test
mutation autograd/ops_shape.cpp 'compute::index_add_into(sum, g, 0, flat);' '(void)sum;' engine_test
mutation autograd/squared.cpp 'survey_.uses(leaf) > 1' 'survey_.uses(leaf) > 100' squared_test
mutation autograd/squared.cpp 'for (const bool set : {false, true}) {' 'for (const bool set : {false}) {' squared_test
mutation autograd/node.cpp 'input->is_leaf() || grad_enabled() || !owned(' 'input->is_leaf() || !owned(' engine_test
# Transformers.
mutation nn/checkpoint.cpp 'draws.put_back(*block);' ';' checkpoint_test
mutation autograd/derivatives.h '- x * t * (slope * slope)' '+ x * t * (slope * slope)' gradcheck_test
mutation nn/sequence.cpp 'slice(labels, 1, 1),' 'slice(labels, 1, 0, last),' transformer_test
mutation nn/attention.cpp 'slice(at.k, 2, at.length, length).copy_(k);' 'slice(at.k, 2, 0, k.shape()[2]).copy_(k);' transformer_test
mutation nn/attention.cpp 'if (used > 0) slice(fresh' 'if (used < 0) slice(fresh' transformer_test
mutation nn/checkpoint.cpp '~Restore() { now.put_back(block); }' '~Restore() {}' checkpoint_test
mutation nn/checkpoint.cpp 'modules[i]->train(training[i]);' ';' checkpoint_test
mutation nn/checkpoint.cpp 'for (const Saved& p : frozen) pass.get(p);' '(void)pass;' checkpoint_test
mutation nn/checkpoint.cpp 'for (const Parameter* p : block.parameters()) all.push_back(p->stand_in());' '' checkpoint_test
mutation nn/attention.cpp 'cache_->layers_[i].length = lengths_[i];' ';' transformer_test
mutation nn/models/llama.cpp 'last = std::min(last, width - 1);' '' transformer_test
# Released weights, text.
mutation nn/pretrained.cpp 'if (!file->same(' 'if (false && !file->same(' pretrained_corrupt_test
mutation nn/pretrained.cpp 'check(listed == held' 'check(true || listed == held' pretrained_corrupt_test
mutation nn/weight_file.h 'first + i * row' 'first + i' pretrained_memory_test
mutation nn/weight_file.cpp 'kPieceBytes / size' 'target.numel()' pretrained_memory_test
mutation nn/weight_file.cpp '- 0x1p-14f' '- 0x1p-15f' safetensors_test
mutation nn/pretrained_save.cpp 'turn ? Gpt2::transposed(state) : state' 'turn ? state : state' pretrained_test
mutation nn/pretrained_save.cpp '{"attn_pdrop", c.attn_pdrop}' '{"attn_pdrop", c.resid_pdrop}' pretrained_config_test
mutation nn/generate.cpp 'options, made.size());' 'options, 0);' generate_test
mutation nn/generate.cpp 'kept < options.top_p * total' 'kept < options.top_p' generate_test
mutation nn/generate.cpp 'if (std::find(stops.begin(), stops.end(), token) != stops.end()) break;' '(void)stops;' generate_test
mutation data/text.cpp 'i * room / (count - 1)' 'i * room / count' text_test
mutation data/tokenizers/split.cpp 'llama3_end(text, at, 1)' 'llama3_end(text, at, 3)' split_test
mutation data/tokenizers/added_tokens.cpp 'at += entry ? entry->text.size() : 1;' 'at += 1;' tokenizer_json_test
mutation data/tokenizers/train_bpe.cpp 'top.count < options_.min_frequency' 'top.count <= options_.min_frequency' train_bpe_test
# Adapters.
mutation continual/adapters/lora.cpp 'linear(linear(in, lora_A) * numbers_.scale(), lora_B)' 'linear(linear(in, lora_A), lora_B)' adapters_test
mutation continual/adapters/lora.cpp 'embedding(lora_embedding_A, index) * numbers_.scale()' 'embedding(lora_embedding_A, index)' adapter_embeddings_test
mutation continual/adapters/lora.cpp 'if (head_) refuse_untied(*this, *head_);' '' adapter_embeddings_test
mutation continual/adapters/ia3.cpp '!feedforward_ ? bias * flatten(ia3_l) : bias' 'true ? bias : bias' adapters_test
mutation continual/adapters/bottleneck.cpp 'Bottleneck::parallel ? x : y' 'Bottleneck::parallel ? y : x' adapter_rules_test
mutation continual/adapters/adapters.cpp 'p->set_trainable(false);' ';' adapters_test
mutation continual/adapters/adapter.cpp 'c.original->set_stand_in(c.parameter.get())' '(void)c' adapter_copies_test
mutation continual/adapters/adapter.cpp 'else if (now == c.parameter.get()) c.original' 'else if (!now) c.original' adapter_copies_test
mutation continual/adapters/adapters.cpp 'options.bias == LoraBias::all' 'options.bias == LoraBias::lora_only' adapter_copies_test
mutation continual/adapters/lora.cpp 'options.bias != LoraBias::none && base.bias' 'options.bias == LoraBias::all && base.bias' adapter_copies_test
mutation continual/adapters/peft_files.cpp 'turn ? contiguous(transpose(value)) : value' 'turn ? value : value' adapter_files_test
mutation continual/adapters/peft_files.cpp 'keys.size() > 1 && !(' 'keys.empty() && !(' adapter_copies_test
mutation nn/layers.h ': table_.weight.value()' ': table_.weight' adapter_copies_test
mutation continual/feature_cache.cpp 'key.values.emplace_back(*p);' ';' feature_cache_test
mutation continual/feature_cache.cpp 'if (!(now == key_)) rows_.clear();' ';' feature_cache_test
mutation continual/adapters/adapter.h 'return {merged_ ? &*merged_ : nullptr};' 'return {};' feature_cache_test
mutation continual/tradeoff.cpp 'std::min(*least, here)' 'here' tradeoff_test
# Optimizers.
mutation optim/optimizers.cpp 'u.correction2 = 1 - std::pow(o.beta2, t)' 'u.correction2 = 1 - std::pow(o.beta2, t + 1)' optim_golden_test
mutation optim/step.cpp 'clip_norm_ / (last_norm_ + 1e-6)' 'last_norm_ * 0.0 + clip_norm_' optimizer_test
mutation optim/step.cpp 'slot.mask_ = m && !m->is_all() ? m : nullptr' 'slot.mask_ = m && m->is_all() ? m : nullptr' optimizer_test
mutation optim/optimizer.cpp 'tensors[i].clone();' 'tensors[i];' optimizer_parameters_test
# Fisher, memory, metrics.
mutation continual/importance.cpp 'seeds.push_back(weight * (hit - p))' 'seeds.push_back(hit - p)' fisher_test
mutation continual/importance.cpp '1.0 / static_cast<double>(chosen.size())' '1.0 / static_cast<double>(chosen.size() - 1)' fisher_test
mutation continual/memory.cpp '0, seen_ + 1)' '0, 2 * seen_ + 1)' replay_test
mutation continual/metrics.cpp 'total += best - at(r.back(), j)' 'total += at(r[j], j) - at(r.back(), j)' metrics_test
mutation continual/diagnostics.cpp 'return wide - mean(wide, {0}, true);' 'return wide;' diagnostics_test
mutation continual/diagnostics.cpp 'product / std::sqrt(left * right)' 'product / std::max(left, right)' diagnostics_test
mutation continual/diagnostics.cpp 'static_cast<double>(keys - rows)' '0.0' diagnostics_test
# Resuming.
mutation continual/learner.cpp 'standing_.position, loader.state()' '0, loader.state()' resume_test
mutation continual/learner.cpp 'if (midway) put(' 'if (midway && tasks < 0) put(' resume_test
mutation continual/resume.cpp 'default_generator().set_state(' 'Generator().set_state(' resume_test
mutation continual/resume.cpp 'for (const auto& put_back : undo) put_back();' '' resume_test
mutation continual/learner.cpp 'if (standing_.steps + 1 == steps) check_parameters' 'if (steps < 0) check_parameters' learner_test
mutation continual/learner.cpp 'check_loss(loss, "run"' 'if (steps < 0) check_loss(loss, "run"' learner_test
mutation continual/learner.cpp 'std::min(at + kBatch, examples' 'std::min(at + kBatch - 1, examples' learner_test
# Readers and writers.
mutation nn/safetensors.cpp 'flock(file.fd(), LOCK_EX | LOCK_NB) == 0' 'true' safetensors_test
mutation data/loader.cpp 'order_ = indices_;' 'order_ = indices_; if (epoch_ > 0) std::swap(order_.front(), order_.back());' loader_test
mutation data/idx.cpp 'check(size <= room' 'check(size <= room + 1' idx_test
mutation nn/module.cpp 'problems << "\n  unexpected: "' 'if (false) problems << "\n  unexpected: "' module_test

finish_mutations
