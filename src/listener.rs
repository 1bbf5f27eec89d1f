//! Binds the address that the settings name, and knows under which name people reach it.
#![forbid(unsafe_code)]

use crate::address::Address;
use crate::error::{Error, Result};
use crate::sys::process::Pid;
use crate::sys::{Errno, is_errno, socket};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Connections that wait to be accepted; the kernel's `net.core.somaxconn` may allow fewer.
const BACKLOG: i32 = 1024;
/// The mode of a Unix socket: whoever may pass its directory and is in its group may connect.
const UNIX_MODE: u32 = 0o660;

/// How an address is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Try {
    /// One that no interface has yet will do: at a boot the service may be up before the network is.
    Absent,
    /// It must be there: a restart does not leave an address that works for one that may never come.
    Plain,
    /// Beside a socket of this process with the same port.
    Shared,
}

/// A bound socket that listens, until [`Listener::close`].
pub struct Listener {
    fd: Option<OwnedFd>,
    /// As asked for; `None` for a socket that was passed in.
    address: Option<Address>,
    local: Option<SocketAddr>,
}

impl Listener {
    /// Binds.
    ///
    /// # Errors
    /// That of [`refused`].
    pub fn bind(address: &Address) -> Result<Listener> {
        let fd = open(address, Try::Absent).map_err(|error| refused(address, &error))?;
        Listener::of(fd, address)
    }

    /// Binds another address while this one is served, for a restart. `None` when it is this very one, written in
    /// another way, unless it is the path of a Unix socket that does not lead here any more. Two addresses may share their port, as `:80` and `127.0.0.1:80` do: both are bound then, and the new
    /// one listens when its first worker serves, see [`listen`]. It would take connections of the old one before.
    /// [`Listener::keep_port`] ends that.
    pub fn bind_beside(&self, address: &Address) -> Result<Option<Listener>> {
        let is_same = |own: &Address| own.is_same(address);
        if self.address.as_ref().is_some_and(is_same) && self.is_found() {
            return Ok(None);
        }
        // Its words would cost a look at every socket there is, and may not be needed.
        let error = match open(address, Try::Plain) {
            Err(error) => error,
            Ok(fd) => return Listener::of(fd, address).map(Some),
        };
        // It may be hade's own socket that is in the way.
        let share = |listener: &Listener, on| {
            let fd = listener.fd.as_ref().filter(|_| listener.local.is_some());
            fd.is_some_and(|fd| socket::share_port(fd.as_fd(), on).is_ok())
        };
        if !share(self, true) {
            return Err(refused(address, &error));
        }
        let new = open(address, Try::Shared).map_err(|_| refused(address, &error));
        if new.is_err() {
            self.keep_port();
        }
        new.and_then(|fd| Listener::of(fd, address)).map(Some)
    }

    /// Whether its address leads here. The file of a Unix socket may have been removed, or the base directory be another
    /// one by now.
    fn is_found(&self) -> bool {
        let Some(path) = self.path() else {
            return true;
        };
        match who_listens_at(&path) {
            Ok(pid) => pid == Some(Pid::own()),
            // Its queue is full: somebody listens there.
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// The port is nobody else's any more. (The kernel goes on to let programs of the same user share it that ask for
    /// that, until all its sockets are closed.)
    pub fn keep_port(&self) {
        let fd = self.fd.as_ref().filter(|_| self.local.is_some());
        let _ = fd.map(|fd| socket::share_port(fd.as_fd(), false));
    }

    fn of(fd: OwnedFd, address: &Address) -> Result<Listener> {
        let local = socket::local_ip(fd.as_fd()).map_err(|error| refused(address, &error))?;
        Ok(Listener {
            fd: Some(fd),
            address: Some(address.clone()),
            local,
        })
    }

    /// Takes a socket that came from outside: from before an exec, or from whoever started this process.
    pub fn adopt(fd: OwnedFd, address: Option<Address>) -> Result<Listener> {
        let wrong =
            |error: io::Error| Error::failed(format!("the socket that was passed in: {error}"));
        if !socket::is_listening(fd.as_fd()) {
            return Err(wrong(io::Error::other(
                "it is not a stream socket that listens",
            )));
        }
        let local = socket::local_ip(fd.as_fd()).map_err(wrong)?;
        // Whoever made it may have left it blocking; workers that race for a connection must not wait for the next.
        socket::set_nonblocking(fd.as_fd()).map_err(wrong)?;
        Ok(Listener {
            fd: Some(fd),
            address,
            local,
        })
    }

    /// One that should have come through an exec and did not: nobody new can listen until it is bound again.
    pub fn lost(address: Option<Address>) -> Listener {
        Listener {
            fd: None,
            address,
            local: None,
        }
    }

    /// Binds one that was lost, once nobody else holds its address any more.
    pub fn bind_again(&mut self) -> io::Result<()> {
        if self.fd.is_some() {
            return Ok(());
        }
        let lost = "the listener did not come through the restart";
        let again = match &self.address {
            // Of those with port 0 each is another one.
            Some(address) if !address.is_any_port() => Listener::bind(address),
            _ => return Err(io::Error::other(lost)),
        };
        *self = again.map_err(|error| io::Error::other(format!("{lost}; {error}")))?;
        Ok(())
    }

    /// What [`is_not_there_yet`] has to say of it.
    pub fn is_not_there_yet(&self) -> Option<String> {
        is_not_there_yet(self.address.as_ref()?)
    }

    /// The address as asked for; `None` for a socket that was passed in.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// Connections that wait to be accepted, where the kernel tells.
    pub fn waiting(&self) -> Option<u32> {
        socket::waiting(self.fd.as_ref()?.as_fd())
    }

    /// An address to connect to from this machine: `127.0.0.1:8888` or `unix:/run/http.sock`; empty once it is closed.
    pub fn reachable(&self) -> String {
        match self.local.filter(|_| self.fd.is_some()) {
            // The IPv6 wildcard takes IPv4 too.
            Some(local) if local.ip().is_unspecified() => format!("127.0.0.1:{}", local.port()),
            Some(local) => local.to_string(),
            None => {
                let path = self.fd.as_ref().and_then(|_| self.path());
                let path = path.or_else(|| self.bound_path());
                path.map_or_else(String::new, |path| format!("unix:{}", path.display()))
            }
        }
    }

    /// A second descriptor of the same socket.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.descriptor()?.try_clone_to_owned()
    }

    /// The socket, while it is open.
    pub fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        let fd = self.fd.as_ref().map(AsFd::as_fd);
        fd.ok_or_else(|| io::Error::other("the listener is closed"))
    }

    /// Where a person finds it: a URL, or the Unix socket's path.
    pub fn url(&self) -> String {
        let port = self.local.map_or(0, |local| local.port());
        match (&self.address, self.local) {
            (Some(Address::Any { .. } | Address::Localhost { .. }), _) => {
                format!("http://localhost:{port}")
            }
            (Some(Address::Name { host, .. }), _) => format!("http://{host}:{port}"),
            (None, Some(local)) if local.ip().is_unspecified() => {
                format!("http://localhost:{port}")
            }
            (_, Some(local)) => format!("http://{local}"),
            (Some(address), None) => address.to_string(),
            (None, None) => match self.bound_path() {
                Some(path) => format!("unix:{}", path.display()),
                None => "a socket that was passed in".to_owned(),
            },
        }
    }

    /// The same in a sentence that begins with "on": nobody is to take a service that the whole network reaches for one
    /// of this machine alone.
    pub fn whereabouts(&self) -> String {
        let is_any = self.local.is_some_and(|local| local.ip().is_unspecified());
        match is_any {
            true => format!("every interface, {} here", self.url()),
            false => self.url(),
        }
    }

    /// Closes this process's descriptor of it; its file, if it has one, goes with it, unless it leads to somebody else's
    /// socket by now.
    pub fn close(&mut self) {
        let path = self.path().filter(|path| !is_anothers(path));
        if let (Some(_), Some(path)) = (self.fd.take(), path) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// The same beside one that may have its path by now, however that is written.
    pub fn close_beside(&mut self, new: &Listener) {
        let is_same = match (&self.address, &new.address) {
            (Some(own), Some(new)) => own.is_same(new),
            _ => false,
        };
        match is_same {
            true => drop(self.fd.take()),
            false => self.close(),
        }
    }

    /// Where a Unix socket that was passed in is bound.
    fn bound_path(&self) -> Option<PathBuf> {
        socket::local_path(self.fd.as_ref()?.as_fd())
    }

    /// The socket's own file, to be removed at the end.
    fn path(&self) -> Option<PathBuf> {
        match &self.address {
            Some(Address::Unix(path)) => std::path::absolute(path).ok(),
            _ => None,
        }
    }
}

/// Whether somebody else listens at the path of a Unix socket. Where that cannot be told, for it is not to be connected to,
/// say, nobody does.
fn is_anothers(path: &Path) -> bool {
    who_listens_at(path).is_ok_and(|pid| pid != Some(Pid::own()))
}

/// Who listens at the path of a Unix socket; `None` for a process of another namespace.
fn who_listens_at(path: &Path) -> io::Result<Option<Pid>> {
    let fd = socket::connect_unix(path)?;
    socket::peer(fd.as_fd()).map(|(pid, _)| pid)
}

/// What is to be said of an address that can be listened on, and that nobody can connect to before an interface of this
/// machine has it.
pub fn is_not_there_yet(address: &Address) -> Option<String> {
    let Address::Ip(address) = address else {
        return None;
    };
    // A port of the kernel's choice, or whatever address there is. The loopback need not be up.
    if address.port() == 0 || address.ip().is_unspecified() {
        return None;
    }
    let tried = socket::try_ip(*address);
    let is_absent = tried.is_err_and(|error| is_errno(&error, Errno::AddressNotAvailable));
    is_absent.then(|| format!("{} is not on this machine yet", address.ip()))
}

/// Whether somebody listens at an address, who may be about to leave it.
pub fn is_taken(address: &Address) -> bool {
    let tried = open(address, Try::Plain);
    tried.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// What of an address can be found out without binding it: whether a name is known, and whether the directory of a Unix
/// socket is there or among those that a start makes.
pub fn check(address: &Address, made: &[&Path]) -> Result<()> {
    let found = match address {
        Address::Name { host, port } => addresses_of(host, *port).map(drop),
        Address::Unix(path) => {
            let directory = path.parent().unwrap_or(path);
            let is_made = made.iter().any(|made| made.starts_with(directory));
            match is_made || directory.as_os_str().is_empty() {
                true => Ok(()),
                // To be entered, not to be listed.
                false => directory.join(".").metadata().map(drop),
            }
        }
        _ => Ok(()),
    };
    found.map_err(|error| refused(address, &error))
}

fn addresses_of(host: &str, port: u16) -> io::Result<impl Iterator<Item = SocketAddr>> {
    (host, port).to_socket_addrs().map_err(|error| {
        io::Error::other(format!(
            "{error}; where there is no resolver, give the number instead of the name"
        ))
    })
}

/// Binds an address for a moment: whether it can be had.
pub fn try_bind(address: &Address) -> io::Result<()> {
    open(address, Try::Absent)?;
    match address {
        Address::Unix(path) => fs::remove_file(path),
        _ => Ok(()),
    }
}

/// Sees to it that a listener listens, which one that shares its port does not before it is to be served.
pub fn listen(listener: BorrowedFd<'_>) -> io::Result<()> {
    match socket::is_listening(listener) {
        true => Ok(()),
        false => socket::listen(listener, BACKLOG),
    }
}

fn open(address: &Address, how: Try) -> io::Result<OwnedFd> {
    let shared = how == Try::Shared;
    let listen_ip = |address| socket::listen_ip(address, BACKLOG, shared, false);
    let v4 = |ip: Ipv4Addr, port: u16| listen_ip(SocketAddr::from((ip, port)));
    let v6 = |ip: Ipv6Addr, port: u16| listen_ip(SocketAddr::from((ip, port)));
    match address {
        Address::Any { port } => or_else(v6(Ipv6Addr::UNSPECIFIED, *port), || {
            v4(Ipv4Addr::UNSPECIFIED, *port)
        }),
        Address::Localhost { port } => or_else(v4(Ipv4Addr::LOCALHOST, *port), || {
            v6(Ipv6Addr::LOCALHOST, *port)
        }),
        // One that an interface gets later, from DHCP or from whoever is the master of a pair of machines.
        Address::Ip(address) => match listen_ip(*address) {
            Err(error)
                if how == Try::Absent
                    && is_errno(&error, Errno::AddressNotAvailable)
                    && address.port() != 0 =>
            {
                socket::listen_ip(*address, BACKLOG, false, true).map_err(|_| error)
            }
            result => result,
        },
        Address::Name { host, port } => {
            let addresses = addresses_of(host, *port)?;
            let mut last = io::Error::other("the name has no address");
            for address in addresses {
                match listen_ip(address) {
                    Ok(fd) => return Ok(fd),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        Address::Unix(path) => {
            remove_stale(path)?;
            socket::listen_unix(path, UNIX_MODE, BACKLOG)
        }
    }
}

/// The second try is for kernels without the first one's address family, or with it switched off.
fn or_else(
    first: io::Result<OwnedFd>,
    second: impl Fn() -> io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    match first {
        Err(error)
            if is_errno(&error, Errno::AddressFamily)
                || is_errno(&error, Errno::AddressNotAvailable) =>
        {
            second()
        }
        result => result,
    }
}

/// A socket file that nobody listens on any more is in the way; anything else is somebody's.
pub(crate) fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it exists and is not a socket",
        )),
        Ok(_) => match socket::connect_unix(path) {
            // Removing follows no link, whatever stands there by now.
            Err(error) if is_errno(&error, Errno::ConnectionRefused) => fs::remove_file(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // A full queue: somebody listens, if slowly.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(in_use(None)),
            Err(error) => Err(error),
            Ok(fd) => Err(in_use(socket::peer(fd.as_fd()).ok())),
        },
    }
}

/// The words of the kernel, and who listens there.
fn in_use(peer: Option<(Option<Pid>, u32)>) -> io::Error {
    let error = io::Error::from_raw_os_error(Errno::AddressInUse as i32);
    match peer {
        Some((Some(pid), uid)) => {
            let text = format!("{error}: pid {pid} of uid {uid} listens there");
            io::Error::new(io::ErrorKind::AddrInUse, text)
        }
        _ => error,
    }
}

/// The error names the address, the reason and the way out.
pub fn refused(address: &Address, error: &io::Error) -> Error {
    let way_out = match error.kind() {
        io::ErrorKind::AddrInUse => match holder_of(address) {
            Some((pid, name)) if is_master(&name) => &format!(
                "; pid {pid} serves there, a master of this kind; end it, or choose another with --address"
            ),
            Some((pid, name)) => {
                &format!("; pid {pid} ({name}) has it; choose another with --address")
            }
            None => "; choose another with --address",
        },
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        io::ErrorKind::PermissionDenied if !matches!(address, Address::Unix(_)) => {
            "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
        }
        _ => "",
    };
    Error::failed(format!("cannot listen on {address}: {error}{way_out}"))
}

/// Who is in the way of an address, a master rather than another, and its name, where `/proc` shows it to this user: one
/// whose files in `run/` are gone, say, or a child of a program that was executed here, which has the socket from it. It is
/// for people to read and for nothing else.
fn holder_of(address: &Address) -> Option<(Pid, String)> {
    let in_way: Vec<_> = wanted(address).iter().flat_map(in_the_way_of).collect();
    let has_it = |pid: &Pid| {
        let theirs = descriptors_of(*pid).unwrap_or_default();
        in_way.iter().any(|(_, socket)| theirs.contains(socket))
    };
    let names = fs::read_dir("/proc").ok()?.flatten();
    let pids = names.filter_map(|name| Pid::parse(name.file_name().to_str()?));
    let holders: Vec<Pid> = pids.filter(has_it).collect();
    let named = holders.iter().map(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        (*pid, text.trim_end().replace(char::is_control, "?"))
    });
    // Of those that are no master, one whose parent has none of it: the others are its children, or gone by now, as a
    // program that it has just started. Numbers begin anew, so that these need not come after their parent's.
    let is_child = |pid: Pid| parent_of(pid).is_none_or(|parent| holders.contains(&parent));
    named.min_by_key(|(pid, name)| (!is_master(name), is_child(*pid)))
}

/// By `proc_pid_stat(5)`.
fn parent_of(pid: Pid) -> Option<Pid> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Pid::parse(rest.split(' ').nth(1)?)
}

/// By the name that a master has.
fn is_master(name: &str) -> bool {
    name.ends_with(" app")
}

/// Of an address that is taken: whether it will be free once this process has left it, which has all the sockets that are in
/// its way, as far as `/proc` tells.
pub fn is_freed_by(address: &Address, pid: Pid) -> bool {
    if let Address::Unix(path) = address {
        return who_listens_at(path).is_ok_and(|listens| listens == Some(pid));
    }
    let Ok(own) = descriptors_of(pid) else {
        return true;
    };
    wanted(address).iter().any(|wanted| {
        let mut in_way = in_the_way_of(wanted);
        // What listens at every address of IPv6 beside one of IPv4 is for IPv6 alone, or it would not be there.
        let is_beside = in_way
            .iter()
            .any(|(is_v6, socket)| !is_v6 && own.contains(socket));
        if is_beside && wanted.0.is_some_and(|ip| ip.is_ipv4()) {
            in_way.retain(|(is_v6, _)| !is_v6);
        }
        !in_way.is_empty() && in_way.iter().all(|(_, socket)| own.contains(socket))
    })
}

/// What is bound for an address, of a name one of these; without an IP address it is every one, IPv6 and IPv4.
fn wanted(address: &Address) -> Vec<(Option<IpAddr>, u16)> {
    match address {
        Address::Any { port } => vec![(None, *port)],
        Address::Localhost { port } => vec![(Some(Ipv4Addr::LOCALHOST.into()), *port)],
        Address::Ip(address) => {
            let ip = Some(address.ip()).filter(|ip| *ip != Ipv6Addr::UNSPECIFIED);
            vec![(ip, address.port())]
        }
        Address::Name { host, port } => {
            let found = addresses_of(host, *port).into_iter().flatten();
            found.map(|found| (Some(found.ip()), *port)).collect()
        }
        Address::Unix(_) => vec![],
    }
}

/// The names of sockets that may listen where nobody else can then, by `proc_net(5)`, and whether they are of IPv6, which at
/// every address of it may stand for IPv4 as well.
fn in_the_way_of((ip, port): &(Option<IpAddr>, u16)) -> Vec<(bool, OsString)> {
    let mut found = Vec::new();
    for (table, is_v6) in [("tcp", false), ("tcp6", true)] {
        let text = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
        // "sl local_address rem_address st ... inode": 0A is LISTEN, the tenth field the inode.
        for line in text.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let Some((its_ip, its_port)) = fields.get(1).and_then(|local| local.split_once(':'))
            else {
                continue;
            };
            let is_every = its_ip.bytes().all(|digit| digit == b'0');
            let is_it = ip.is_none_or(|ip| match ip.is_ipv6() == is_v6 {
                true => is_every || ip.is_unspecified() || in_words(ip) == its_ip,
                false => is_v6 && is_every,
            });
            if let (Some(&"0A"), Some(inode)) = (fields.get(3), fields.get(9)) {
                if is_it && its_port == format!("{port:04X}") {
                    found.push((is_v6, format!("socket:[{inode}]").into()));
                }
            }
        }
    }
    found
}

/// What the descriptors of a process lead to.
fn descriptors_of(pid: Pid) -> io::Result<Vec<OsString>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(targets.map(PathBuf::into_os_string).collect())
}

/// An address as `/proc/net/tcp` has it.
fn in_words(ip: IpAddr) -> String {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = bytes
        .chunks_exact(4)
        .map(|word| word.try_into().map_or(0, u32::from_ne_bytes));
    words.map(|word| format!("{word:08X}")).collect()
}
