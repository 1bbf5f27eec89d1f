//! The table of connections: the only place that opens, finds and closes one. A token leads to a connection as long as
//! that is open, and to nothing from then on, whoever gets its entry next. Epoll and the ledger are told here, too.
#![forbid(unsafe_code)]

use super::client::{Client, Token, Watched};
use super::connection::Connection;
use super::exchange::Exchange;
use super::expire::Phase;
use crate::sys::epoll::Interest;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;

/// Serial numbers stay below this, so that no token is one of those that the gate gives to other descriptors.
const SERIALS: u32 = 1 << 31;

/// Every connection of a worker.
pub(super) struct Table {
    exchange: Arc<Exchange>,
    entries: Vec<Entry>,
    /// Entries without a connection; the one that became free last is used next.
    free: Vec<u32>,
    open: usize,
    /// Connections by address, as far as they count.
    addresses: HashMap<IpAddr, usize>,
}

#[derive(Default)]
struct Entry {
    /// Of the connection that is here or comes next.
    serial: u32,
    connection: Option<Connection>,
}

impl Table {
    /// An empty one.
    pub fn new(exchange: Arc<Exchange>) -> Table {
        Table {
            exchange,
            entries: Vec::new(),
            free: Vec::new(),
            open: 0,
            addresses: HashMap::new(),
        }
    }

    /// Takes a connection in. It counts among those of this address, where IPv4 is the same by whichever socket it comes.
    pub fn open(
        &mut self,
        client: Client,
        counted_by: Option<IpAddr>,
        phase: Phase,
        now: u64,
        deadline: u64,
    ) -> Token {
        let index = match self.free.last() {
            Some(index) => *index as usize,
            None => self.entries.len(),
        };
        let serial = self.entries.get(index).map_or(0, |entry| entry.serial);
        let token = Token::new(index, serial);
        let counted_by = counted_by.map(|address| address.to_canonical());
        if let Some(address) = counted_by {
            *self.addresses.entry(address).or_default() += 1;
        }
        let connection = Connection::new(client, phase, now, deadline, counted_by);
        match self.free.pop() {
            Some(_) => self.entries[index].connection = Some(connection),
            None => self.entries.push(Entry {
                serial,
                connection: Some(connection),
            }),
        }
        self.set_open(self.open + 1);
        token
    }

    pub fn get(&self, token: Token) -> Option<&Connection> {
        let entry = self.entries.get(token.index())?;
        let is_it = entry.serial == token.serial();
        entry.connection.as_ref().filter(|_| is_it)
    }

    pub fn get_mut(&mut self, token: Token) -> Option<&mut Connection> {
        let entry = self.entries.get_mut(token.index())?;
        let is_it = entry.serial == token.serial();
        entry.connection.as_mut().filter(|_| is_it)
    }

    /// Has epoll watch the connection's socket for this. Input that is watched for already needs nothing more.
    ///
    /// # Errors
    /// Epoll has no memory for it.
    pub fn arm(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let epoll = &self.exchange.epoll;
        let entry = self.entries.get_mut(token.index());
        let entry = entry.filter(|entry| entry.serial == token.serial());
        let Some(connection) = entry.and_then(|entry| entry.connection.as_mut()) else {
            return Ok(());
        };
        let wanted = match interest {
            Interest::WritableOnce => Watched::Room,
            _ => Watched::Input,
        };
        let client = &*connection.client;
        match (connection.watched, wanted) {
            (Watched::Input, Watched::Input) => return Ok(()),
            // A handler may have been the first to watch it.
            (Watched::No, _) => match epoll.add(client, token.0, interest) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    epoll.modify(client, token.0, interest)?
                }
                added => added?,
            },
            _ => epoll.modify(client, token.0, interest)?,
        }
        connection.watched = wanted;
        if wanted == Watched::Input {
            // Epoll reports now what there is.
            (connection.is_readable, connection.is_ended) = (false, false);
        }
        Ok(())
    }

    /// Lets go of a connection; its socket is closed with what is returned, or when a handler lets go of it, too.
    pub fn close(&mut self, token: Token) -> Option<Connection> {
        self.get(token)?;
        self.leave_out(token);
        let entry = &mut self.entries[token.index()];
        let connection = entry.connection.take()?;
        entry.serial = (entry.serial + 1) % SERIALS;
        let is_shared = Arc::strong_count(&connection.client) > 1;
        if is_shared && (connection.watched != Watched::No || connection.phase == Phase::Lent) {
            // Closing alone does it only for who has the descriptor alone: a handler may still hold it for a moment.
            let _ = self.exchange.epoll.remove(&*connection.client);
        }
        self.free.push(token.index() as u32);
        self.set_open(self.open - 1);
        Some(connection)
    }

    /// Epoll is to know nothing more of a connection, whoever else has its descriptor.
    pub fn forget(&self, token: Token) {
        if let Some(connection) = self.get(token) {
            let _ = self.exchange.epoll.remove(&*connection.client);
        }
    }

    /// How many are open.
    pub fn open_count(&self) -> usize {
        self.open
    }

    /// All that are open.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &Connection)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(index, entry)| {
            let connection = entry.connection.as_ref()?;
            Some((Token::new(index, entry.serial), connection))
        })
    }

    /// How many connections the address of this one has, if it counts.
    pub fn count_beside(&self, token: Token) -> usize {
        let address = self.get(token).and_then(|connection| connection.counted_by);
        let count = address.and_then(|address| self.addresses.get(&address));
        count.copied().unwrap_or(0)
    }

    /// A connection does not count among those of its address any more.
    pub fn leave_out(&mut self, token: Token) {
        let connection = self.get_mut(token);
        let Some(address) = connection.and_then(|connection| connection.counted_by.take()) else {
            return;
        };
        if let Some(count) = self.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
    }

    fn set_open(&mut self, open: usize) {
        self.open = open;
        self.exchange.slot.set_open(open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::SocketAddr;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn client(peer: Option<&str>) -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = peer.map(|peer| peer.parse::<SocketAddr>().unwrap());
        (Client::new(OwnedFd::from(ours), peer), theirs)
    }

    fn table() -> Table {
        Table::new(Exchange::of_nobody())
    }

    fn open(table: &mut Table, peer: &str) -> Token {
        let (client, _) = client(Some(peer));
        let address = client.peer.map(|peer| peer.ip());
        table.open(client, address, Phase::Fresh, 5, 10)
    }

    #[test]
    fn a_token_finds_its_connection_until_that_is_closed_and_never_another() {
        let mut table = table();
        let (first, second) = (open(&mut table, "[::1]:1"), open(&mut table, "[::1]:2"));
        assert_eq!((first.index(), second.index()), (0, 1));
        assert_eq!(table.get(first).unwrap().deadline, 10);
        assert!(table.close(first).is_some() && table.close(first).is_none());
        assert!(table.get(first).is_none() && table.get_mut(first).is_none());
        assert!(table.arm(first, Interest::ReadableEdge).is_ok());
        let third = open(&mut table, "[::1]:3");
        assert_eq!((third.index(), third.serial()), (0, 1));
        assert!(table.get(first).is_none() && table.close(first).is_none());
        let found: Vec<Token> = table.iter().map(|(token, _)| token).collect();
        assert_eq!(found, [third, second]);
        assert!(table.get(Token(u64::MAX)).is_none());
        assert_eq!(table.exchange.slot.count().open, 2);
    }

    #[test]
    fn serials_begin_anew_before_a_token_could_be_one_of_the_gates_own() {
        let mut table = table();
        let token = open(&mut table, "[::1]:1");
        table.close(token);
        table.entries[0].serial = SERIALS - 1;
        let last = open(&mut table, "[::1]:1");
        assert_eq!(last.serial(), SERIALS - 1);
        assert!(last.0 < u64::MAX / 2 && table.close(last).is_some());
        assert_eq!(open(&mut table, "[::1]:1").serial(), 0);
    }

    #[test]
    fn epoll_is_asked_for_what_it_does_not_watch_yet() {
        let mut table = table();
        let (client, _theirs) = client(None);
        let token = table.open(client, None, Phase::Fresh, 0, 0);
        let watched = |table: &Table| table.get(token).unwrap().watched;
        for (interest, wanted) in [
            (Interest::ReadableEdge, Watched::Input),
            (Interest::ReadableEdge, Watched::Input),
            (Interest::WritableOnce, Watched::Room),
            (Interest::ReadableEdge, Watched::Input),
        ] {
            table.arm(token, interest).unwrap();
            assert_eq!(watched(&table), wanted);
        }
        // A handler was faster.
        table.get_mut(token).unwrap().watched = Watched::No;
        table.arm(token, Interest::ReadableEdge).unwrap();
        // Epoll takes no file of a disk: EPERM, epoll_ctl(2).
        let file = File::open("Cargo.toml").unwrap();
        let file = Client::new(file.into(), None);
        let file = table.open(file, None, Phase::Fresh, 0, 0);
        assert!(table.arm(file, Interest::ReadableEdge).is_err());
        table.close(file);
        assert_eq!(table.open_count(), 1);
    }

    #[test]
    fn counts_per_address_fall_as_they_rose() {
        let mut table = table();
        let four = open(&mut table, "192.0.2.1:1");
        let mapped = open(&mut table, "[::ffff:192.0.2.1]:2");
        let other = open(&mut table, "192.0.2.2:1");
        assert_eq!(
            (table.count_beside(four), table.count_beside(other)),
            (2, 1)
        );
        // What is left out before it is closed is not taken off twice.
        table.leave_out(mapped);
        table.leave_out(mapped);
        assert_eq!(table.count_beside(four), 1);
        table.close(mapped);
        assert_eq!(table.count_beside(four), 1);
        table.close(four);
        table.close(other);
        assert!(table.addresses.is_empty());
        let (unix, _theirs) = client(None);
        let unix = table.open(unix, None, Phase::Fresh, 0, 0);
        assert_eq!(table.count_beside(unix), 0);
    }
}
