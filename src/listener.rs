//! Binds the address that the settings name, and knows under which name people reach it.
#![forbid(unsafe_code)]

use crate::address::Address;
use crate::error::{Error, Result};
use crate::sys::{Errno, is_errno, socket};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Connections that wait to be accepted; the kernel's `net.core.somaxconn` may allow fewer.
const BACKLOG: i32 = 1024;
/// The mode of a Unix socket: whoever may pass its directory and is in its group may connect.
const UNIX_MODE: u32 = 0o660;

/// A bound socket that listens.
pub struct Listener {
    fd: OwnedFd,
    /// As asked for; `None` for a socket that was passed in.
    address: Option<Address>,
    local: Option<SocketAddr>,
}

impl Listener {
    /// Binds; the error names the address, the reason and the way out.
    pub fn bind(address: &Address) -> Result<Listener> {
        let fd = open(address).map_err(|error| refused(address, &error))?;
        let local = socket::local_ip(fd.as_fd()).map_err(|error| refused(address, &error))?;
        Ok(Listener {
            fd,
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
        Ok(Listener { fd, address, local })
    }

    /// The address as asked for; `None` for a socket that was passed in.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// Connections that wait to be accepted, where the kernel tells.
    pub fn waiting(&self) -> Option<u32> {
        socket::waiting(self.fd.as_fd())
    }

    /// An address to connect to from this machine: `127.0.0.1:8888` or `unix:/run/http.sock`.
    pub fn reachable(&self) -> String {
        match self.local {
            // The IPv6 wildcard takes IPv4 too.
            Some(local) if local.ip().is_unspecified() => format!("127.0.0.1:{}", local.port()),
            Some(local) => local.to_string(),
            None => {
                let path = self.path().or_else(|| socket::local_path(self.fd.as_fd()));
                path.map_or_else(String::new, |path| format!("unix:{}", path.display()))
            }
        }
    }

    /// A second descriptor of the same socket.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
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
            (None, None) => match socket::local_path(self.fd.as_fd()) {
                Some(path) => format!("unix:{}", path.display()),
                None => "a socket that was passed in".to_owned(),
            },
        }
    }

    /// The socket's own file, to be removed at the end.
    pub fn path(&self) -> Option<PathBuf> {
        match &self.address {
            Some(Address::Unix(path)) => std::path::absolute(path).ok(),
            _ => None,
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open(address: &Address) -> io::Result<OwnedFd> {
    let v4 = |ip: Ipv4Addr, port: u16| socket::listen_ip(SocketAddr::from((ip, port)), BACKLOG);
    let v6 = |ip: Ipv6Addr, port: u16| socket::listen_ip(SocketAddr::from((ip, port)), BACKLOG);
    match address {
        Address::Any { port } => or_else(v6(Ipv6Addr::UNSPECIFIED, *port), || {
            v4(Ipv4Addr::UNSPECIFIED, *port)
        }),
        Address::Localhost { port } => or_else(v4(Ipv4Addr::LOCALHOST, *port), || {
            v6(Ipv6Addr::LOCALHOST, *port)
        }),
        Address::Ip(address) => socket::listen_ip(*address, BACKLOG),
        Address::Name { host, port } => {
            let addresses = (host.as_str(), *port).to_socket_addrs().map_err(|error| {
                io::Error::other(format!(
                    "{error}; where there is no resolver, give the number instead of the name"
                ))
            })?;
            let mut last = io::Error::other("the name has no address");
            for address in addresses {
                match socket::listen_ip(address, BACKLOG) {
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
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it exists and is not a socket",
        )),
        Ok(_) => match socket::connect_unix(path) {
            Err(error) if is_errno(&error, Errno::ConnectionRefused) => std::fs::remove_file(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // A full queue: somebody listens, if slowly.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Err(io::Error::from_raw_os_error(Errno::AddressInUse as i32)),
        },
    }
}

fn refused(address: &Address, error: &io::Error) -> Error {
    let way_out = match error.kind() {
        io::ErrorKind::AddrInUse => "; choose another with --address",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        io::ErrorKind::PermissionDenied if !matches!(address, Address::Unix(_)) => {
            "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
        }
        _ => "",
    };
    Error::failed(format!("cannot listen on {address}: {error}{way_out}"))
}
