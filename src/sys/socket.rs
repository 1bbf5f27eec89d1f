//! Sockets beyond what std offers: options before `bind`, a backlog of choice, `accept4`, sends that never block or
//! raise SIGPIPE.

use super::process::{Pid, umask};
use super::{check, retry};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The longest path that a Unix socket's address holds, its final NUL left out: `unix(7)`.
pub const UNIX_PATH_MAX: usize = 107;

/// An address in the kernel's own form.
struct Raw {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl Raw {
    fn empty() -> Raw {
        Raw {
            // SAFETY: sockaddr_storage is plain integers, for which all zeros is a value.
            storage: unsafe { zeroed() },
            length: size_of::<libc::sockaddr_storage>() as libc::socklen_t,
        }
    }

    fn of<T>(address: T) -> Raw {
        let mut raw = Raw::empty();
        debug_assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>());
        // SAFETY: sockaddr_storage is at least as large and as strictly aligned as every sockaddr that T stands for.
        unsafe { (&raw mut raw.storage).cast::<T>().write(address) };
        raw.length = size_of::<T>() as libc::socklen_t;
        raw
    }

    fn ip(address: SocketAddr) -> Raw {
        match address {
            SocketAddr::V4(v4) => {
                // SAFETY: sockaddr_in is plain integers, for which all zeros is a value.
                let mut raw: libc::sockaddr_in = unsafe { zeroed() };
                raw.sin_family = libc::AF_INET as libc::sa_family_t;
                raw.sin_port = v4.port().to_be();
                raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                Raw::of(raw)
            }
            SocketAddr::V6(v6) => {
                // SAFETY: sockaddr_in6 is plain integers, for which all zeros is a value.
                let mut raw: libc::sockaddr_in6 = unsafe { zeroed() };
                raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                raw.sin6_port = v6.port().to_be();
                raw.sin6_addr.s6_addr = v6.ip().octets();
                raw.sin6_scope_id = v6.scope_id();
                Raw::of(raw)
            }
        }
    }

    fn unix(path: &OsStr) -> io::Result<Raw> {
        // SAFETY: sockaddr_un is plain integers, for which all zeros is a value.
        let mut raw: libc::sockaddr_un = unsafe { zeroed() };
        raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let bytes = path.as_bytes();
        if bytes.is_empty() || bytes.len() > UNIX_PATH_MAX || bytes.contains(&0) {
            let text = format!(
                "a socket's path holds 1 to {UNIX_PATH_MAX} bytes, this one has {}",
                bytes.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        for (to, from) in raw.sun_path.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        Ok(Raw::of(raw))
    }

    /// A name in the abstract namespace, `unix(7)`: the kernel takes it as long as it is said to be.
    fn abstract_name(name: &str) -> Raw {
        // SAFETY: sockaddr_un is plain integers, for which all zeros is a value.
        let mut raw: libc::sockaddr_un = unsafe { zeroed() };
        raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in raw.sun_path[1..].iter_mut().zip(name.as_bytes()) {
            *to = *from as libc::c_char;
        }
        let mut raw = Raw::of(raw);
        let before = std::mem::offset_of!(libc::sockaddr_un, sun_path) + 1;
        raw.length = (before + name.len().min(UNIX_PATH_MAX)) as libc::socklen_t;
        raw
    }

    fn pointer(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    fn to_ip(&self) -> Option<SocketAddr> {
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that the storage holds a sockaddr_in.
                let raw = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::V4(SocketAddrV4::new(
                    ip,
                    u16::from_be(raw.sin_port),
                )))
            }
            libc::AF_INET6 => {
                // SAFETY: the family says that the storage holds a sockaddr_in6.
                let raw = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
                Some(SocketAddr::V6(SocketAddrV6::new(
                    ip,
                    u16::from_be(raw.sin6_port),
                    0,
                    raw.sin6_scope_id,
                )))
            }
            _ => None,
        }
    }
}

fn stream_socket(family: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes three numbers and touches no memory.
    let fd = check(unsafe {
        libc::socket(
            family,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        )
    })?;
    // SAFETY: the call succeeded, so the number is an open descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: pointer and size describe one int that lives through the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size) })
        .map(drop)
}

fn option(fd: BorrowedFd<'_>, name: i32) -> io::Result<i32> {
    let (mut value, mut size) = (0i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: pointer and size describe one int that lives through the call.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &mut size,
        )
    })?;
    Ok(value)
}

fn bind(fd: &OwnedFd, address: &Raw) -> io::Result<()> {
    // SAFETY: pointer and length describe the address, which lives through the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), address.pointer(), address.length) }).map(drop)
}

fn connect(fd: &OwnedFd, address: &Raw) -> io::Result<()> {
    // SAFETY: pointer and length describe the address, which lives through the call.
    retry(|| check(unsafe { libc::connect(fd.as_raw_fd(), address.pointer(), address.length) }))
        .map(drop)
}

/// `listen(2)`; on a socket that already listens it changes the backlog.
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: takes two numbers and touches no memory.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
}

/// Lets other sockets of this user be bound to the same port, if they have the same option, or no longer:
/// `SO_REUSEPORT` of `socket(7)`.
pub fn share_port(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, i32::from(on))
}

/// A TCP socket bound and listening, non-blocking, close-on-exec, SO_REUSEADDR. An IPv6 wildcard takes IPv4 too.
/// `shared`: beside one that [`share_port`] was called for, and not yet listening. `absent`: also to an address that no
/// interface has yet, IP_FREEBIND of `ip(7)`.
pub fn listen_ip(
    address: SocketAddr,
    backlog: i32,
    shared: bool,
    absent: bool,
) -> io::Result<OwnedFd> {
    let fd = socket_for(address)?;
    set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if address.is_ipv6() {
        let only_v6 = i32::from(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only_v6)?;
    }
    if shared {
        share_port(fd.as_fd(), true)?;
    }
    if absent {
        // It is for IPv6, too.
        set_option(fd.as_fd(), libc::IPPROTO_IP, libc::IP_FREEBIND, 1)?;
    }
    bind(&fd, &Raw::ip(address))?;
    if !shared {
        listen(fd.as_fd(), backlog)?;
    }
    Ok(fd)
}

fn socket_for(address: SocketAddr) -> io::Result<OwnedFd> {
    stream_socket(match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    })
}

/// Whether a socket can be bound to this address at some port: an error if not.
pub fn try_ip(mut address: SocketAddr) -> io::Result<()> {
    address.set_port(0);
    bind(&socket_for(address)?, &Raw::ip(address))
}

/// A path that a Unix socket's address holds: the path itself, or one by way of its directory's descriptor, which is
/// to be kept open meanwhile. Needs /proc for the latter.
pub fn short_path(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() <= UNIX_PATH_MAX {
        return Ok((path.to_owned(), None));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok((path.to_owned(), None));
    };
    let here = parent.as_os_str().is_empty();
    let directory = File::open(if here { Path::new(".") } else { parent })?;
    let way = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    if !way.exists() {
        return Err(io::Error::other(format!(
            "the address of a socket holds {UNIX_PATH_MAX} bytes, a longer path needs /proc; mount it, or choose a shorter path"
        )));
    }
    let short = way.join(name);
    if short.as_os_str().len() > UNIX_PATH_MAX {
        return Ok((path.to_owned(), None));
    }
    Ok((short, Some(directory)))
}

/// A Unix stream socket bound under `path` with exactly this mode before anyone can connect, then listening.
/// The path must not exist.
pub fn listen_unix(path: &Path, mode: u32, backlog: i32) -> io::Result<OwnedFd> {
    let fd = stream_socket(libc::AF_UNIX)?;
    let (short, _directory) = short_path(path)?;
    let address = Raw::unix(short.as_os_str())?;
    // The file gets the mode that the socket has, less the umask. By its path it is never given one: where others may
    // write to the directory, something else could stand there by then.
    // SAFETY: takes two numbers and touches no memory.
    check(unsafe { libc::fchmod(fd.as_raw_fd(), mode as libc::mode_t) })?;
    let umask = umask(0);
    let bound = bind(&fd, &address);
    super::process::umask(umask);
    bound?;
    listen(fd.as_fd(), backlog)?;
    Ok(fd)
}

/// One without a path, at a name that the kernel chooses and nobody is told: it listens for nobody.
pub fn listen_nowhere(backlog: i32) -> io::Result<OwnedFd> {
    let fd = stream_socket(libc::AF_UNIX)?;
    bind(&fd, &Raw::abstract_name(&random_name()))?;
    listen(fd.as_fd(), backlog)?;
    Ok(fd)
}

/// Makes a socket non-blocking, for all who share it.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL take and give ints and touch no memory.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// A connection to a Unix stream socket, non-blocking. A listener whose queue is full is an error at once.
pub fn connect_unix(path: &Path) -> io::Result<OwnedFd> {
    let fd = stream_socket(libc::AF_UNIX)?;
    let (short, _directory) = short_path(path)?;
    connect(&fd, &Raw::unix(short.as_os_str())?)?;
    Ok(fd)
}

/// A Unix stream socket that nobody else can reach, and the one connection that waits in its queue: for who insists on
/// accepting, where a pair would do. Its name is in the abstract namespace of `unix(7)`, so it needs no directory and
/// leaves nothing behind. Anybody may read the name in `/proc/net/unix` and connect, but the queue has room for one, and
/// that is ours, or else the name is given up for another. With SHUT_RD the kernel refuses all who come later.
pub fn private_stream() -> io::Result<(OwnedFd, OwnedFd)> {
    /// How often a stranger may be faster. Who looks for names needs far longer than the two calls between.
    const TRIES: usize = 1000;
    for _ in 0..TRIES {
        let address = Raw::abstract_name(&random_name());
        let listener = stream_socket(libc::AF_UNIX)?;
        bind(&listener, &address)?;
        // A queue of 0 takes one.
        listen(listener.as_fd(), 0)?;
        let stream = stream_socket(libc::AF_UNIX)?;
        match connect(&stream, &address) {
            Ok(()) => {
                shutdown_read(listener.as_fd());
                return Ok((listener, stream));
            }
            // Somebody else is in the queue already.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(
        "somebody connects to every socket before its owner can",
    ))
}

/// 128 random bits in hexadecimal. The keys of a hasher come from where the system has its randomness; a fork shares
/// them, hence the pid.
fn random_name() -> String {
    use std::hash::{BuildHasher, RandomState};
    let state = RandomState::new();
    let word = |half: u8| state.hash_one((std::process::id(), half));
    format!("{:016x}{:016x}", word(0), word(1))
}

/// A pair of connected sockets that keep message boundaries (SOCK_SEQPACKET), non-blocking and close-on-exec.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the pointer is to two ints that live through the call, which writes no more than these.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so both numbers are open descriptors that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// The local address of an IP socket; `None` for a Unix one.
pub fn local_ip(fd: BorrowedFd<'_>) -> io::Result<Option<SocketAddr>> {
    let mut raw = Raw::empty();
    // SAFETY: pointer and length describe the storage, which lives through the call.
    check(unsafe {
        libc::getsockname(
            fd.as_raw_fd(),
            (&raw mut raw.storage).cast(),
            &mut raw.length,
        )
    })?;
    Ok(raw.to_ip())
}

/// The path that a Unix socket is bound to, if it has one.
pub fn local_path(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    let mut raw = Raw::empty();
    // SAFETY: pointer and length describe the storage, which lives through the call.
    check(unsafe {
        libc::getsockname(
            fd.as_raw_fd(),
            (&raw mut raw.storage).cast(),
            &mut raw.length,
        )
    })
    .ok()?;
    if i32::from(raw.storage.ss_family) != libc::AF_UNIX {
        return None;
    }
    // SAFETY: the family says that the storage holds a sockaddr_un.
    let path = unsafe { (*(&raw const raw.storage).cast::<libc::sockaddr_un>()).sun_path };
    let bytes: Vec<u8> = path
        .iter()
        .map(|byte| *byte as u8)
        .take_while(|byte| *byte != 0)
        .collect();
    (!bytes.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(&bytes)))
}

/// Whether this is a stream socket that listens.
pub fn is_listening(fd: BorrowedFd<'_>) -> bool {
    option(fd, libc::SO_TYPE).is_ok_and(|kind| kind == libc::SOCK_STREAM)
        && option(fd, libc::SO_ACCEPTCONN).is_ok_and(|listens| listens == 1)
}

/// `accept4(2)`: the next connection, non-blocking, close-on-exec; and where it comes from, if from IP.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let mut raw = Raw::empty();
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let fd = retry(|| {
        raw.length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // SAFETY: pointer and length describe the storage, which lives through the call.
        check(unsafe {
            libc::accept4(
                listener.as_raw_fd(),
                (&raw mut raw.storage).cast(),
                &mut raw.length,
                flags,
            )
        })
    })?;
    // SAFETY: the call succeeded, so the number is an open descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok((fd, raw.to_ip()))
}

/// `recv(2)` that never blocks; 0 is the end of what the peer sends.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| {
        // SAFETY: pointer and length describe `buffer`, which lives through the call.
        check(unsafe {
            libc::recv(
                fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        })
    })
    .map(|count| count as usize)
}

/// Has the connections of a TCP listener take no more than about so many bytes that the network has not taken on,
/// TCP_NOTSENT_LOWAT of `tcp(7)`. Without it the kernel keeps some megabytes for everyone who does not read.
/// Other sockets, and kernels before 3.12, know nothing of it.
pub fn limit_unsent(listener: BorrowedFd<'_>, bytes: i32) {
    let _ = set_option(listener, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes);
}

/// Has the connections of a TCP listener send at once what they are given, TCP_NODELAY of `tcp(7)`: they take it from their
/// listener. Without it the last segment of an answer may wait for the client's delayed ACK.
pub fn send_at_once(listener: BorrowedFd<'_>) {
    let _ = set_option(listener, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
}

/// Whether a connection waits to be accepted.
pub fn has_waiting(listener: BorrowedFd<'_>) -> bool {
    let mut entry = libc::pollfd {
        fd: listener.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: pointer and count describe the one entry, which lives through the call.
    unsafe { libc::poll(&mut entry, 1, 0) == 1 }
}

/// Bytes that were sent and that the peer has not yet acknowledged, SIOCOUTQ of `tcp(7)` and `unix(7)`.
pub fn unsent(fd: BorrowedFd<'_>) -> Option<u32> {
    let mut count = 0i32;
    // SAFETY: the pointer is to one int that lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &mut count) }).ok()?;
    u32::try_from(count).ok()
}

/// Whether anything waits to be read: data, the end, or an error.
pub fn has_input(fd: BorrowedFd<'_>) -> bool {
    let mut byte = 0u8;
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    // SAFETY: pointer and length describe one byte that lives through the call.
    let result =
        retry(|| check(unsafe { libc::recv(fd.as_raw_fd(), (&raw mut byte).cast(), 1, flags) }));
    !matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether the other end has closed, or shut its sending half, whatever it has sent before (`poll(2)`, POLLRDHUP).
pub fn is_gone(fd: BorrowedFd<'_>) -> bool {
    let mut wait = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: the pointer is to one pollfd that lives through the call.
    let ready = retry(|| check(unsafe { libc::poll(&raw mut wait, 1, 0) }));
    ready.is_ok_and(|count| count > 0)
}

/// `sendmsg(2)` that never blocks and never raises SIGPIPE; may send less than all.
pub fn send(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    send_more(fd, parts, false)
}

/// The same; `more`: the rest follows at once, or the end (`shutdown(2)`), and may share its packet.
pub fn send_more(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
    // SAFETY: msghdr is plain data for which all zeros is a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    // IoSlice is promised to have the layout of iovec; sendmsg(2) only reads it.
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
    // SAFETY: the message points to `parts`, which live through the call.
    retry(|| check(unsafe { libc::sendmsg(fd.as_raw_fd(), &message, flags) }))
        .map(|count| count as usize)
}

/// `sendfile(2)` from a place in a file to a non-blocking socket; 0 is the end of the file. Where the file stands does not
/// matter, and does not change. It waits for the disk.
pub fn send_file(socket: BorrowedFd<'_>, file: &File, at: u64, count: usize) -> io::Result<usize> {
    let (to, from) = (socket.as_raw_fd(), file.as_raw_fd());
    let mut offset = at as libc::off64_t;
    // SAFETY: the pointer is to a number that lives through the call.
    retry(|| check(unsafe { libc::sendfile64(to, from, &raw mut offset, count) }))
        .map(|count| count as usize)
}

/// Whether `sendfile(2)` is not to be had for this file or socket, but reading and writing are.
pub fn cannot_send_file(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS))
}

/// `shutdown(2)` of the sending side: the peer reads what was sent, then the end.
pub fn shutdown_write(fd: BorrowedFd<'_>) {
    // SAFETY: takes two numbers and touches no memory. It fails only where there is nothing left to shut.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
}

/// `shutdown(2)` of the receiving side of a Unix socket. What was sent before can still be received, a connection that
/// waits can still be accepted; whoever sends or connects later is told so at once.
pub fn shutdown_read(fd: BorrowedFd<'_>) {
    // SAFETY: takes two numbers and touches no memory. It fails only where there is nothing left to shut.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RD) };
}

/// Has a Unix listener refuse all who come from now on, and keep those who wait. For TCP there is no such thing.
pub fn close_queue(listener: BorrowedFd<'_>) {
    if matches!(local_ip(listener), Ok(None)) {
        shutdown_read(listener);
    }
}

/// Has the next close of this connection tell the peer that it broke, SO_LINGER of `socket(7)`.
pub fn reset_on_close(fd: BorrowedFd<'_>) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let size = size_of::<libc::linger>() as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_LINGER);
    // SAFETY: pointer and size describe one linger that lives through the call.
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const linger).cast(),
            size,
        )
    };
}

/// Who is at the other end of a Unix socket, SO_PEERCRED of `unix(7)`: the process that connected, or that began to
/// listen, if it has a number here; and its effective user at that time.
pub fn peer(fd: BorrowedFd<'_>) -> io::Result<(Option<Pid>, u32)> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: pointer and size describe one ucred that lives through the call.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut peer).cast(),
            &mut size,
        )
    })?;
    Ok((Pid::from_raw(peer.pid), peer.uid))
}

/// How much of what was sent on a Unix socket its other end has not read yet: SIOCOUTQ, which counts whole buffers.
pub fn unread(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the pointer is to one int that lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Whether the other end of a Unix socket is closed, and not just done with what it has to say: POLLHUP of `poll(2)`.
pub fn has_hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut wait = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: the pointer is to one pollfd that lives through the call, which does not wait.
    let found = unsafe { libc::poll(&mut wait, 1, 0) };
    found == 1 && wait.revents & libc::POLLHUP != 0
}

/// How many connections wait to be accepted on a TCP listener: TCP_INFO of `tcp(7)`, whose field for segments not
/// yet acknowledged has this meaning on a listening socket. `None` on any other socket.
pub fn waiting(fd: BorrowedFd<'_>) -> Option<u32> {
    // SAFETY: tcp_info is plain integers, for which all zeros is a value.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: pointer and size describe one tcp_info that lives through the call; an old kernel fills in less.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut info).cast(),
            &mut size,
        )
    })
    .ok()?;
    Some(info.tcpi_unacked)
}

/// Sends one datagram to a Unix socket: a path, or with a leading `@` a name in the abstract namespace (`unix(7)`).
pub fn send_datagram(to: &OsStr, bytes: &[u8]) -> io::Result<()> {
    let mut address = Raw::unix(to)?;
    // The kernel takes names as long as they are said to be: the final NUL belongs to paths alone.
    address.length =
        (std::mem::offset_of!(libc::sockaddr_un, sun_path) + to.len()) as libc::socklen_t;
    if to.as_bytes()[0] == b'@' {
        // SAFETY: `Raw::unix` filled the storage with a sockaddr_un, whose path has at least one byte.
        unsafe { (*(&raw mut address.storage).cast::<libc::sockaddr_un>()).sun_path[0] = 0 };
    } else {
        address.length += 1;
    }
    // SAFETY: takes three numbers and touches no memory.
    let fd =
        check(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the call succeeded, so the number is an open descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: both pointers and lengths describe what lives through the call.
    let sent = check(unsafe {
        let (data, length) = (bytes.as_ptr().cast(), bytes.len());
        libc::sendto(
            fd.as_raw_fd(),
            data,
            length,
            flags,
            address.pointer(),
            address.length,
        )
    });
    sent.map(drop)
}

/// Room for the control message that carries one descriptor, aligned as `cmsg(3)` asks.
#[repr(C, align(8))]
struct Carrier([u8; 64]);

/// `sendmsg(2)` of a few bytes and, if there is one, a descriptor beside them (SCM_RIGHTS). Never blocks.
pub fn send_with_fd(
    to: BorrowedFd<'_>,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut carrier = Carrier([0; 64]);
    let part = IoSlice::new(bytes);
    // SAFETY: msghdr is plain data for which all zeros is a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = (&raw const part).cast_mut().cast();
    message.msg_iovlen = 1;
    if let Some(fd) = fd {
        message.msg_control = (&raw mut carrier).cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute; the header that CMSG_FIRSTHDR finds lies at the start of
        // `carrier`, which is aligned for it and has room for it and one int.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as _;
            libc::CMSG_DATA(header)
                .cast::<i32>()
                .write_unaligned(fd.as_raw_fd());
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the message points to `part` and `carrier`, which live through the call.
    retry(|| check(unsafe { libc::sendmsg(to.as_raw_fd(), &message, flags) })).map(drop)
}

/// `recvmsg(2)` of a message and the descriptor that may be beside it, which is made close-on-exec; where there is no room
/// for that it is lost. Never blocks.
pub fn receive_with_fd(
    from: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    receive_message(from, buffer, 0).map(|(count, fd, _)| (count, fd))
}

/// Takes the next descriptor that was sent here beside a byte; `None` when there will be no more. Never blocks.
///
/// # Errors
/// `WouldBlock` where there is none for now, EMFILE where there is no room for it: then it stays where it is.
pub fn take_fd(from: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    loop {
        // A look makes a descriptor of its own, and what does not fit into the table is still there (`unix(7)`).
        let (count, fd, is_cut) = receive_message(from, &mut byte, libc::MSG_PEEK)?;
        if count == 0 {
            return Ok(None);
        }
        if fd.is_none() && is_cut {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        receive(from, &mut byte)?;
        if fd.is_some() {
            return Ok(fd);
        }
    }
}

/// Whether the descriptor beside the next message would find no room here.
pub fn has_no_room_for_next(from: BorrowedFd<'_>) -> bool {
    let next = receive_message(from, &mut [0], libc::MSG_PEEK);
    next.is_ok_and(|(_, fd, is_cut)| fd.is_none() && is_cut)
}

/// A message, the descriptor beside it, and whether something beside it found no room.
fn receive_message(
    from: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: i32,
) -> io::Result<(usize, Option<OwnedFd>, bool)> {
    let mut carrier = Carrier([0; 64]);
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: msghdr is plain data for which all zeros is a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut carrier).cast();
    // Room for one descriptor and no padding, which would hold another: the kernel closes what does not fit.
    // SAFETY: CMSG_LEN only computes.
    message.msg_controllen = unsafe { libc::CMSG_LEN(size_of::<i32>() as u32) } as _;
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message points to `buffer` by way of `part`, and to `carrier`; all live through the call.
    let count = retry(|| check(unsafe { libc::recvmsg(from.as_raw_fd(), &mut message, flags) }))?;
    // SAFETY: the kernel filled in `message`, so its first header, if any, lies within `carrier`; a SCM_RIGHTS one
    // holds at least one descriptor that is now open here and owned by nobody yet.
    let fd = unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        let carries = !header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_RIGHTS;
        carries
            .then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<i32>().read_unaligned()))
    };
    Ok((
        count as usize,
        fd,
        message.msg_flags & libc::MSG_CTRUNC != 0,
    ))
}

/// Whether too many descriptors are under way between processes, `unix(7)`.
pub fn is_too_many_refs(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ETOOMANYREFS)
}

/// Where a connection comes from, if from IP.
pub fn peer_ip(fd: BorrowedFd<'_>) -> Option<SocketAddr> {
    let mut raw = Raw::empty();
    // SAFETY: pointer and length describe the storage, which lives through the call.
    check(unsafe {
        libc::getpeername(
            fd.as_raw_fd(),
            (&raw mut raw.storage).cast(),
            &mut raw.length,
        )
    })
    .ok()?;
    raw.to_ip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// Stops the stranger, whatever becomes of the test.
    struct Stop<'a>(&'a AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// Connects to whatever name it finds, all the while.
    fn meddle(stop: &AtomicBool, tried: &AtomicUsize) {
        while !stop.load(Ordering::SeqCst) {
            let table = std::fs::read("/proc/net/unix").unwrap();
            let names = table
                .split(|byte| *byte == b'\n')
                .filter_map(|line| line.rsplit(|byte| *byte == b' ').next()?.strip_prefix(b"@"));
            for name in names {
                if let Ok(address) = SocketAddr::from_abstract_name(name) {
                    tried.fetch_add(1, Ordering::SeqCst);
                    drop(UnixStream::connect_addr(&address));
                }
            }
        }
    }

    #[test]
    fn a_stranger_never_gets_into_a_private_stream() {
        let (stop, tried) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| meddle(&stop, &tried));
            let _stop = Stop(&stop);
            let mut round = 0u32;
            // As many as it takes for the stranger to have tried often.
            while round < 500 || tried.load(Ordering::SeqCst) < 500 {
                let (listener, stream) = private_stream().unwrap();
                let mut stream = UnixStream::from(stream);
                stream.write_all(&round.to_le_bytes()).unwrap();
                let listener = UnixListener::from(listener);
                listener.set_nonblocking(false).unwrap();
                let address = listener.local_addr().unwrap();
                if round % 2 == 0 {
                    UnixStream::connect_addr(&address).expect_err("its queue is shut");
                }
                let (mut accepted, _) = listener.accept().unwrap();
                let mut bytes = [0; 4];
                accepted.read_exact(&mut bytes).unwrap();
                assert_eq!(
                    u32::from_le_bytes(bytes),
                    round,
                    "somebody else's connection"
                );
                UnixStream::connect_addr(&address).expect_err("there is room, and it is shut");
                let error = listener.accept().expect_err("there is nobody else");
                assert!(super::super::is_errno(
                    &error,
                    super::super::Errno::InvalidArgument
                ));
                round += 1;
            }
        });
    }
}
