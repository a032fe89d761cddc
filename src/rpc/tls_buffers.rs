//! Makes libssl give its record buffers back while a connection has nothing to read or write: 33 KiB less for each
//! connected agent that waits.
//!
//! The C core offers no way to ask for it. libssl tells whoever asks of each context that is made, before anything
//! is made of it (`SSL_CTX_get_ex_new_index`), and that is where the mode is set.
#![allow(unsafe_code)] // Two calls of libssl's C interface; nowhere else.

use std::ffi::{c_int, c_long, c_void};
use std::sync::OnceLock;

use openssl_sys::{
    CRYPTO_EX_DATA, SSL_CTX, SSL_CTX_get_ex_new_index, SSL_CTX_set_mode, SSL_MODE_RELEASE_BUFFERS,
};

/// From now on, in this process. Whether libssl takes the wish; asked once, however often it is called.
pub(super) fn release_when_idle() -> bool {
    static TAKEN: OnceLock<bool> = OnceLock::new();
    *TAKEN.get_or_init(|| {
        // SAFETY: the callback has the type that libssl asks for, lives as long as the process, and there is no
        // argument pointer to outlive.
        let index = unsafe { SSL_CTX_get_ex_new_index(0, std::ptr::null_mut(), Some(made), None, None) };
        index >= 0
    })
}

/// A context was made: `parent`.
unsafe extern "C" fn made(
    parent: *mut c_void,
    _slot: *mut c_void,
    _data: *mut CRYPTO_EX_DATA,
    _index: c_int,
    _number: c_long,
    _argument: *mut c_void,
) {
    // SAFETY: for this class of data `parent` is the new context, which nobody else has yet.
    let _modes = unsafe { SSL_CTX_set_mode(parent.cast::<SSL_CTX>(), SSL_MODE_RELEASE_BUFFERS) };
}
