//! The name of a process or thread as `ps -o comm` and `top -H` show it: `prctl(2)` PR_SET_NAME.

use std::ffi::CString;

/// Names the calling thread; for the main thread that is the process. The kernel keeps 15 bytes.
pub fn set_name(name: &str) {
    let bytes: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    let name = CString::new(bytes).unwrap_or_default();
    // SAFETY: the pointer is to a NUL-terminated string that lives through the call, which reads 16 bytes at most.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}
