// SentencePiece models through its own library, where the build found it (STET_SENTENCEPIECE).
#include <utility>

#include <stet/data/tokenizers/formats.h>

#ifdef STET_SENTENCEPIECE
#include <sentencepiece_processor.h>
#endif

namespace stet::data::tokenizers {

#ifdef STET_SENTENCEPIECE

namespace {

class SentencePiece final : public Tokenizer {
 public:
  SentencePiece(const std::filesystem::path& path, Marks marks) {
    const auto status = processor_.LoadFromSerializedProto(read_bytes(path, kLoad));
    check(status.ok(), kLoad, path.string(), ": found no SentencePiece model: ", status.ToString());
    if (marks.begin && processor_.bos_id() >= 0) before_ = {processor_.bos_id()};
    if (marks.end && processor_.eos_id() >= 0) after_ = {processor_.eos_id()};
    for (int id = 0; id < processor_.GetPieceSize() && anchor_ < 0; ++id)
      if (is_plain(id) && processor_.IdToPiece(id).find("▁") == std::string::npos) anchor_ = id;
  }

  std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions& options) const override {
    std::vector<int> pieces;
    const auto status = processor_.Encode(text, &pieces);
    check(status.ok(), "encode", "SentencePiece: ", status.ToString());
    std::vector<std::int64_t> ids(pieces.begin(), pieces.end());
    if (!options.add_special_tokens) return ids;
    ids.insert(ids.begin(), before_.begin(), before_.end());
    ids.insert(ids.end(), after_.begin(), after_.end());
    return ids;
  }

  /// The library puts U+FFFD for bytes that are not whole characters; here they stay what they are.
  std::string decode(std::span<const std::int64_t> ids, const DecodeOptions& options) const override {
    std::string text;
    std::vector<int> words;
    bool at_start = true;
    const auto write = [&](std::string_view more) {
      if (!words.empty()) text += text_of(words, std::exchange(at_start, false));
      words.clear();
      text += more;
    };
    for (std::size_t i = 0; i < ids.size(); ++i) {
      check(ids[i] >= 0 && ids[i] < vocab_size(), "decode", "ids[", i, "]: found ", ids[i], ", expected 0 to ",
            vocab_size() - 1);
      const int id = static_cast<int>(ids[i]);
      if (processor_.IsByte(id)) {  // "<0x0A>"
        write(std::string(1, static_cast<char>(std::stoi(processor_.IdToPiece(id).substr(3, 2), nullptr, 16))));
        at_start = false;
      } else if (!processor_.IsControl(id)) {
        words.push_back(id);
      } else if (!options.skip_special_tokens) {
        write(processor_.IdToPiece(id));
      }
    }
    write("");
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
  bool is_plain(int id) const {
    return !processor_.IsControl(id) && !processor_.IsUnknown(id) && !processor_.IsUnused(id) && !processor_.IsByte(id);
  }

  /// Pieces without bytes. The space before a first word goes; elsewhere a piece in front of it, taken away again,
  /// keeps it.
  std::string text_of(std::vector<int> pieces, bool at_start) const {
    const bool anchored = !at_start && anchor_ >= 0;
    if (anchored) pieces.insert(pieces.begin(), anchor_);
    std::string text;
    const auto status = processor_.Decode(pieces, &text);
    check(status.ok(), "decode", "SentencePiece: ", status.ToString());
    return anchored ? text.substr(processor_.IdToPiece(anchor_).size()) : text;
  }

  sentencepiece::SentencePieceProcessor processor_;
  std::vector<std::int64_t> before_, after_;
  int anchor_ = -1;  // a piece without a space
};

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file, Marks marks) {
  return std::make_unique<SentencePiece>(file, marks);
}

#else

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file, Marks) {
  fail(kLoad, file.string(), ": found a SentencePiece model, but this build of stet has no SentencePiece: ",
       "install libsentencepiece-dev and configure anew");
}

#endif

}  // namespace stet::data::tokenizers
