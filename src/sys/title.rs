//! The name of a process or thread as `ps -o comm` and `top -H` show it: `prctl(2)` PR_SET_NAME, PR_GET_NAME.

use std::ffi::CString;

/// Names the calling thread; for the main thread that is the process. The kernel keeps 15 bytes.
pub fn set_name(name: &str) {
    let bytes: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    let name = CString::new(bytes).unwrap_or_default();
    // SAFETY: the pointer is to a NUL-terminated string that lives through the call, which reads 16 bytes at most.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// The name of the calling thread, which a new one has from the thread that started it.
pub fn name() -> String {
    let mut bytes = [0u8; 16];
    // SAFETY: the pointer is to 16 bytes that live through the call, which writes so many at most.
    unsafe { libc::prctl(libc::PR_GET_NAME, bytes.as_mut_ptr()) };
    let length = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..length.unwrap_or(bytes.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_the_name_that_it_was_given_or_that_of_who_started_it() {
        let started = std::thread::spawn(|| {
            set_name("a name of more than 15 bytes");
            let inherited = std::thread::spawn(name).join().unwrap();
            (name(), inherited)
        });
        let (own, inherited) = started.join().unwrap();
        assert_eq!(
            (own.as_str(), inherited.as_str()),
            ("a name of more ", "a name of more ")
        );
    }
}
