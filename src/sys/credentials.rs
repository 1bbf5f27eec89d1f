//! Whose a process is, and how it becomes another user's for good: `credentials(7)`.

use super::check;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `setgroups(2)`: the groups beside the main one.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer is to as many ids as the length says, and they live through the call.
    check(unsafe { libc::setgroups(groups.len() as _, groups.as_ptr()) }).map(drop)
}

/// `setresgid(2)`: the real, effective and saved group.
pub fn set_group(gid: u32) -> io::Result<()> {
    // SAFETY: takes numbers and touches no memory.
    check(unsafe { libc::setresgid(gid, gid, gid) }).map(drop)
}

/// `setresuid(2)`: the real, effective and saved user. It clears PR_SET_PDEATHSIG, and for root's process that becomes
/// another's all capabilities (`capabilities(7)`).
pub fn set_user(uid: u32) -> io::Result<()> {
    // SAFETY: takes numbers and touches no memory.
    check(unsafe { libc::setresuid(uid, uid, uid) }).map(drop)
}

/// The real, effective and saved user, and the same of the group: `getresuid(2)`, `getresgid(2)`.
pub fn ids() -> io::Result<([u32; 3], [u32; 3])> {
    let ([mut real, mut effective, mut saved], [mut group, mut acting, mut kept]) =
        ([0; 3], [0; 3]);
    // SAFETY: the pointers are to three different ids that live through the call.
    check(unsafe { libc::getresuid(&mut real, &mut effective, &mut saved) })?;
    // SAFETY: as above.
    check(unsafe { libc::getresgid(&mut group, &mut acting, &mut kept) })?;
    Ok(([real, effective, saved], [group, acting, kept]))
}

/// PR_SET_NO_NEW_PRIVS of `prctl(2)`: no program that this process executes gets more rights than it has, set-user-id
/// or not. Linux 3.5.
pub fn no_new_privileges() -> io::Result<()> {
    // The kernel looks at all four, each as wide as a pointer.
    let (on, zero): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: takes numbers and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, zero, zero, zero) }).map(drop)
}

/// Whether rights to a file are given by a list beside its mode, `acl(5)`, whose mask the mode then shows in the place of
/// the group's bits: `getxattr(2)`.
pub fn has_access_list(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    let name = c"system.posix_acl_access";
    // SAFETY: both strings are NUL-terminated and live through the call, which writes nothing where it has no room.
    check(unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) }).is_ok()
}
