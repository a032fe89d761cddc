//! What this process allocates with, and all the unsafe code there is in the server: OpenSSL's two hooks have no
//! safe form.
//!
//! The server's own allocations and OpenSSL's are mimalloc's. The C core keeps `malloc`: to take its place breaks
//! under preloaded libraries. An idle connection costs 25 KiB less than with `malloc` and buffers that are kept
//! (`bench/README.md`).

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_long, c_void};

use libmimalloc_sys::{mi_free, mi_malloc, mi_realloc};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `CRYPTO_EX_INDEX_SSL_CTX` in `openssl/crypto.h`.
const EX_INDEX_SSL_CTX: c_int = 1;
/// `SSL_CTRL_MODE` in `openssl/ssl.h`.
const CTRL_MODE: c_int = 33;
/// `SSL_MODE_RELEASE_BUFFERS` in `openssl/ssl.h`.
const MODE_RELEASE_BUFFERS: c_long = 0x10;

type Allocate = unsafe extern "C" fn(usize, *const c_char, c_int) -> *mut c_void;
type Reallocate = unsafe extern "C" fn(*mut c_void, usize, *const c_char, c_int) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void, *const c_char, c_int);
type NewExData = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void, c_int, c_long, *mut c_void);

// Of the library that the C core is linked with; unchanged since OpenSSL 1.1.0.
unsafe extern "C" {
    fn CRYPTO_set_mem_functions(allocate: Allocate, reallocate: Reallocate, free: Free) -> c_int;
    fn CRYPTO_get_ex_new_index(
        class: c_int,
        argument: c_long,
        pointer: *mut c_void,
        new: NewExData,
        duplicate: *mut c_void,
        free: *mut c_void,
    ) -> c_int;
    fn SSL_CTX_ctrl(context: *mut c_void, command: c_int, number: c_long, pointer: *mut c_void) -> c_long;
}

/// To be called before OpenSSL is used for the first time. Where it has no effect, a connection needs more memory and
/// all else is the same; so that is said and no error.
pub(crate) fn spare_in_openssl() {
    // SAFETY: the three functions keep to malloc's, realloc's and free's contracts and belong together. OpenSSL
    // refuses them (0) once it has allocated anything, so no block is freed by another allocator than its own.
    if unsafe { CRYPTO_set_mem_functions(allocate, reallocate, free) } != 1 {
        log::warn!("OpenSSL keeps its own allocator: connections need more memory");
    }
    let none = std::ptr::null_mut();
    // SAFETY: without arguments and with a function that lives as long as the process; null stands for "no function".
    if unsafe { CRYPTO_get_ex_new_index(EX_INDEX_SSL_CTX, 0, none, release_buffers, none, none) } < 0 {
        log::warn!("OpenSSL keeps idle connections' buffers: connections need more memory");
    }
}

unsafe extern "C" fn allocate(size: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
    // SAFETY: of any size; null when there is no memory, as OpenSSL expects.
    unsafe { mi_malloc(size) }
}

unsafe extern "C" fn reallocate(
    block: *mut c_void,
    size: usize,
    _file: *const c_char,
    _line: c_int,
) -> *mut c_void {
    // SAFETY: `block` is null or of `allocate`, and OpenSSL's to give.
    unsafe { mi_realloc(block, size) }
}

unsafe extern "C" fn free(block: *mut c_void, _file: *const c_char, _line: c_int) {
    // SAFETY: `block` is null or of `allocate`, and OpenSSL does not use it again.
    unsafe { mi_free(block) }
}

/// Called for each new `SSL_CTX`, the C core's among them, which it gives nobody else access to: connections
/// without anything to read or write then keep no record buffers (2 × 17 KiB).
unsafe extern "C" fn release_buffers(
    context: *mut c_void,
    _pointer: *mut c_void,
    _data: *mut c_void,
    _index: c_int,
    _argument: c_long,
    _extra: *mut c_void,
) {
    // SAFETY: `context` is the `SSL_CTX` that is being made, as this class of index promises, and not shared yet.
    let _ = unsafe { SSL_CTX_ctrl(context, CTRL_MODE, MODE_RELEASE_BUFFERS, std::ptr::null_mut()) };
}
