// An encrypting file system for RocksDB whose cipher is given by the caller.
//
// RocksDB writes a prefix of our choice before each file and hands every byte behind it, with its
// offset, to a stream made from that prefix. What the prefix holds and what the stream does is
// decided in Rust; nothing here throws.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>

#include "rocksdb/env.h"
#include "rocksdb/env_encryption.h"

// As in RocksDB's C interface, whose destructor takes it.
struct rocksdb_env_t {
  rocksdb::Env* rep;
  bool is_default;
};

extern "C" {

// What the caller brings. Calls that can fail return 0 or null for it.
struct menes_cipher {
  void* vault;
  int (*new_prefix)(void* vault, char* prefix, size_t len);
  void* (*open_stream)(void* vault, const char* prefix, size_t len);
  int (*apply)(void* stream, uint64_t offset, char* data, size_t len);
  void (*close_stream)(void* stream);
  void (*drop_vault)(void* vault);
  size_t prefix_len;
};
}

namespace {

class Stream final : public rocksdb::BlockAccessCipherStream {
 public:
  Stream(const menes_cipher& cipher, void* stream)
      : cipher_(cipher), stream_(stream) {}
  ~Stream() override { cipher_.close_stream(stream_); }

  size_t BlockSize() override { return 1; }

  rocksdb::Status Encrypt(uint64_t offset, char* data, size_t len) override {
    return Apply(offset, data, len);
  }

  rocksdb::Status Decrypt(uint64_t offset, char* data, size_t len) override {
    return Apply(offset, data, len);
  }

 protected:
  void AllocateScratch(std::string&) override {}

  rocksdb::Status EncryptBlock(uint64_t index, char* data, char*) override {
    return Apply(index, data, 1);
  }

  rocksdb::Status DecryptBlock(uint64_t index, char* data, char*) override {
    return Apply(index, data, 1);
  }

 private:
  rocksdb::Status Apply(uint64_t offset, char* data, size_t len) {
    if (cipher_.apply(stream_, offset, data, len) == 0) {
      return rocksdb::Status::Corruption("the cipher refused");
    }
    return rocksdb::Status::OK();
  }

  const menes_cipher cipher_;
  void* const stream_;
};

class Provider final : public rocksdb::EncryptionProvider {
 public:
  explicit Provider(const menes_cipher& cipher) : cipher_(cipher) {}
  ~Provider() override { cipher_.drop_vault(cipher_.vault); }

  const char* Name() const override { return "menes"; }

  size_t GetPrefixLength() const override { return cipher_.prefix_len; }

  rocksdb::Status CreateNewPrefix(const std::string&, char* prefix,
                                  size_t len) const override {
    if (cipher_.new_prefix(cipher_.vault, prefix, len) == 0) {
      return rocksdb::Status::IOError("no key to write with");
    }
    return rocksdb::Status::OK();
  }

  rocksdb::Status AddCipher(const std::string&, const char*, size_t,
                            bool) override {
    return rocksdb::Status::NotSupported("keys are not given here");
  }

  rocksdb::Status CreateCipherStream(
      const std::string& name, const rocksdb::EnvOptions&,
      rocksdb::Slice& prefix,
      std::unique_ptr<rocksdb::BlockAccessCipherStream>* result) override {
    void* stream =
        cipher_.open_stream(cipher_.vault, prefix.data(), prefix.size());
    if (stream == nullptr) {
      return rocksdb::Status::Corruption(name, "no key opens this file");
    }
    result->reset(new Stream(cipher_, stream));
    return rocksdb::Status::OK();
  }

 private:
  const menes_cipher cipher_;
};

}  // namespace

// Takes the vault over, whatever happens.
extern "C" rocksdb_env_t* menes_encrypted_env(const menes_cipher* cipher) {
  auto provider = std::make_shared<Provider>(*cipher);
  auto* env = rocksdb::NewEncryptedEnv(rocksdb::Env::Default(), provider);
  return new rocksdb_env_t{env, false};
}
