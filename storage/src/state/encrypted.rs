//! RocksDB's files, encrypted with the keys of a [`Vault`].
//!
//! The one place where RocksDB is met below its crate's interface: its encrypting file system takes
//! a cipher as a C++ object, made in `encrypted_env.cc` from the functions here. Each takes what
//! [`env`] handed over and nothing else.

#![expect(
    unsafe_code,
    reason = "RocksDB offers encryption to C++ alone; every call below is one of four functions \
              that get back the pointer they were registered with"
)]

use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{ptr, slice};

use rocksdb::Env;

use crate::vault::{FileCipher, PREFIX_BYTES, Vault};

/// `menes_cipher` in `encrypted_env.cc`.
#[repr(C)]
struct Cipher {
    vault: *mut c_void,
    new_prefix: extern "C" fn(*mut c_void, *mut c_char, usize) -> c_int,
    open_stream: extern "C" fn(*mut c_void, *const c_char, usize) -> *mut c_void,
    apply: extern "C" fn(*mut c_void, u64, *mut c_char, usize) -> c_int,
    close_stream: extern "C" fn(*mut c_void),
    drop_vault: extern "C" fn(*mut c_void),
    prefix_len: usize,
}

unsafe extern "C" {
    /// Takes the vault over; never null.
    fn menes_encrypted_env(cipher: *const Cipher) -> *mut c_void;
}

/// An environment in which every file is encrypted with keys of `vault`.
pub(super) fn env(vault: &Vault) -> Env {
    let cipher = Cipher {
        vault: Box::into_raw(Box::new(vault.clone())).cast(),
        new_prefix,
        open_stream,
        apply,
        close_stream,
        drop_vault,
        prefix_len: PREFIX_BYTES,
    };
    // SAFETY: the functions fit their declarations; the vault is a box that is given up here and
    // taken back by `drop_vault`, which the environment calls when it ends.
    let env = unsafe { menes_encrypted_env(&raw const cipher) };
    // SAFETY: it is a `rocksdb_env_t` that nobody else has.
    unsafe { Env::from_raw(env.cast()) }
}

extern "C" fn new_prefix(vault: *mut c_void, prefix: *mut c_char, len: usize) -> c_int {
    guarded(0, || {
        // SAFETY: the vault registered in `env`, shared among RocksDB's threads and not changed.
        let vault = unsafe { &*vault.cast::<Vault>() };
        // SAFETY: RocksDB's own buffer of that length, which nobody else uses.
        let prefix = unsafe { slice::from_raw_parts_mut(prefix.cast::<u8>(), len) };
        match vault.new_prefix() {
            Ok(Some(bytes)) if bytes.len() == len => {
                prefix.copy_from_slice(&bytes);
                1
            }
            Ok(_) | Err(_) => 0,
        }
    })
}

extern "C" fn open_stream(vault: *mut c_void, prefix: *const c_char, len: usize) -> *mut c_void {
    guarded(ptr::null_mut(), || {
        if prefix.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: as in `new_prefix`.
        let vault = unsafe { &*vault.cast::<Vault>() };
        // SAFETY: RocksDB read that many bytes to there.
        let prefix = unsafe { slice::from_raw_parts(prefix.cast::<u8>(), len) };
        vault.file_cipher(prefix).map_or(ptr::null_mut(), |cipher| {
            Box::into_raw(Box::new(cipher)).cast()
        })
    })
}

extern "C" fn apply(stream: *mut c_void, offset: u64, data: *mut c_char, len: usize) -> c_int {
    if len == 0 {
        return 1;
    }
    guarded(0, || {
        // SAFETY: a cipher made by `open_stream` and not closed yet; it is shared and not changed.
        let cipher = unsafe { &*stream.cast::<FileCipher>() };
        // SAFETY: RocksDB's own buffer of that length, which nobody else uses meanwhile.
        let data = unsafe { slice::from_raw_parts_mut(data.cast::<u8>(), len) };
        c_int::from(cipher.apply(offset, data))
    })
}

extern "C" fn close_stream(stream: *mut c_void) {
    // SAFETY: a box given up by `open_stream`, closed once.
    drop(unsafe { Box::from_raw(stream.cast::<FileCipher>()) });
}

extern "C" fn drop_vault(vault: *mut c_void) {
    // SAFETY: the box given up by `env`, dropped once, when nothing uses the environment any more.
    drop(unsafe { Box::from_raw(vault.cast::<Vault>()) });
}

/// What `call` returns, or `failed` should it panic: nothing may unwind into C++.
fn guarded<T>(failed: T, call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_shared_among_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Vault>();
        shared::<FileCipher>();
    }
}
