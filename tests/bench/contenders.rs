//! Hade's example, nginx and plain tiny_http as columns of one table, with room for many connections.

use std::net::SocketAddr;
use std::path::Path;

use crate::servers::{self, Kind, Server, Site};
use crate::throughput::{self, Tiny};
use crate::watch;

/// Handler threads of plain tiny_http.
const TINY_THREADS: &str = "8";

pub enum Contender {
    Server(Server),
    Tiny,
}

/// Those that can be run here, hade first; says which cannot.
pub fn present(hade: Option<&Path>, alone: bool) -> Vec<Contender> {
    let mut found = Vec::from_iter(throughput::demo(hade).map(Contender::Server));
    if !alone {
        let nginx = servers::installed("nginx", "nginx", Kind::Nginx, servers::find("nginx"));
        found.extend(nginx.map(Contender::Server));
        found.push(Contender::Tiny);
    }
    found
}

impl Contender {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Server(server) => server.name,
            Self::Tiny => "tiny_http",
        }
    }

    pub fn is_hade(&self) -> bool {
        matches!(self, Self::Server(server) if server.kind == Kind::Demo)
    }

    pub fn server(&self) -> Option<&Server> {
        match self {
            Self::Server(server) => Some(server),
            Self::Tiny => None,
        }
    }

    /// What answers with a few bytes.
    pub fn path(&self) -> &'static str {
        self.server().map_or("/hello", Server::path)
    }

    pub fn download(&self, size: usize) -> String {
        match self {
            Self::Server(server) => server.download(size),
            Self::Tiny => format!("/bytes?n={size}"),
        }
    }

    /// The same as a file, where the server has files.
    pub fn file(&self, size: usize) -> String {
        match self {
            Self::Server(server) => server.file(size),
            Self::Tiny => self.download(size),
        }
    }

    /// Starts it; the settings are hade's.
    pub fn start(&self, root: &Path, settings: &[&str]) -> Result<Running<'_>, String> {
        let started = match self {
            Self::Server(server) => Site::for_many(server, root, settings).and_then(|mut site| {
                site.start()?;
                // nginx's master writes its pid before it forks.
                match watch::wait_until(|| site.family().len() > 1) {
                    true => Ok(Running::Site(site)),
                    false => Err("no worker within the cap".to_string()),
                }
            }),
            Self::Tiny => Tiny::start(TINY_THREADS).map(Running::Tiny),
        };
        started.map_err(|reason| format!("{}: {reason}", self.name()))
    }
}

/// It ends when this is dropped.
pub enum Running<'a> {
    Site(Site<'a>),
    Tiny(Tiny),
}

impl Running<'_> {
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Site(site) => site.address,
            Self::Tiny(tiny) => tiny.address,
        }
    }

    /// The process that has the connections.
    pub fn worker(&self) -> Option<u32> {
        match self {
            Self::Site(site) => site.worker(),
            Self::Tiny(tiny) => Some(tiny.pid()),
        }
    }
}
