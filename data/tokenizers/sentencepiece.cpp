// SentencePiece models through its own library, where the build found it (STET_SENTENCEPIECE).
#include <stet/data/tokenizers/formats.h>
#include <stet/tensor/json_file.h>

#ifdef STET_SENTENCEPIECE
#include <sentencepiece_processor.h>
#endif

namespace stet::data::tokenizers {

#ifdef STET_SENTENCEPIECE

namespace {

class SentencePiece final : public Tokenizer {
 public:
  explicit SentencePiece(const std::filesystem::path& path) {
    const auto status = processor_.LoadFromSerializedProto(read_bytes(path, kLoad));
    check(status.ok(), kLoad, path.string(), ": found no SentencePiece model: ", status.ToString());
  }

  std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions& options) const override {
    std::vector<int> pieces;
    const auto status = processor_.Encode(text, &pieces);
    check(status.ok(), "encode", "SentencePiece: ", status.ToString());
    std::vector<std::int64_t> ids(pieces.begin(), pieces.end());
    // As Llama, T5 and their like use it: the tokens that the model has, one before and none after.
    if (options.add_special_tokens && processor_.bos_id() >= 0) ids.insert(ids.begin(), processor_.bos_id());
    return ids;
  }

  std::string decode(std::span<const std::int64_t> ids, const DecodeOptions&) const override {
    std::vector<int> pieces;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      check(ids[i] >= 0 && ids[i] < vocab_size(), "decode", "ids[", i, "]: found ", ids[i], ", expected 0 to ",
            vocab_size() - 1);
      pieces.push_back(static_cast<int>(ids[i]));
    }
    std::string text;
    const auto status = processor_.Decode(pieces, &text);
    check(status.ok(), "decode", "SentencePiece: ", status.ToString());
    return text;
  }

  std::int64_t vocab_size() const override { return processor_.GetPieceSize(); }

  std::optional<std::int64_t> id_of(std::string_view token) const override {
    const int id = processor_.PieceToId(token);  // the unknown piece's for one that is not there
    if (processor_.IdToPiece(id) != token) return {};
    return id;
  }

  std::string token_of(std::int64_t id) const override {
    check(id >= 0 && id < vocab_size(), "token_of", "found id ", id, ", expected 0 to ", vocab_size() - 1);
    return processor_.IdToPiece(static_cast<int>(id));
  }

  std::vector<SpecialToken> special_tokens() const override {
    std::vector<SpecialToken> tokens;
    for (int id = 0; id < processor_.GetPieceSize(); ++id)
      if (processor_.IsControl(id) || processor_.IsUnknown(id)) tokens.push_back({processor_.IdToPiece(id), id});
    return tokens;
  }

 private:
  sentencepiece::SentencePieceProcessor processor_;
};

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file) {
  return std::make_unique<SentencePiece>(file);
}

#else

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file) {
  fail(kLoad, file.string(), ": found a SentencePiece model, but this build of stet has no SentencePiece: ",
       "install libsentencepiece-dev and configure anew");
}

#endif

}  // namespace stet::data::tokenizers
