//! Looks at the whole table: what is due, who has been idle the longest, who holds how much memory. Nothing is changed
//! here; who asks acts.
#![forbid(unsafe_code)]

use super::bounds::Bounds;
use super::client::{Loan, Token};
use super::expire::{LOAN_LOOK, Phase, Terms, Verdict};
use super::table::Table;
use std::collections::VecDeque;

/// What is due, connection by connection.
pub(super) struct Due {
    /// When to look again; `u64::MAX` for never.
    pub next: u64,
    pub expired: Vec<Token>,
    pub to_hand_over: Vec<Token>,
    /// Handlers that take too long, and of which the log has not said so.
    pub slow: Vec<Token>,
    /// Those of which it has, and that are done, and when.
    pub done: Vec<(Token, u64)>,
    /// How many take too long, and the milliseconds of the one that takes longest.
    pub overdue: u64,
    pub longest: u64,
    /// An answer waits for its reader.
    pub is_writing: bool,
}

/// Judges every connection.
pub(super) fn due(table: &Table, terms: &Terms, bounds: &Bounds) -> Due {
    let mut due = Due {
        next: u64::MAX,
        expired: Vec::new(),
        to_hand_over: Vec::new(),
        slow: Vec::new(),
        done: Vec::new(),
        overdue: 0,
        longest: 0,
        is_writing: false,
    };
    for (token, connection) in table.iter() {
        let standing = connection.standing();
        due.is_writing |= standing.phase == Phase::Writing;
        if let (true, Loan::Idle(at) | Loan::Closing(at)) = (connection.is_named, standing.loan) {
            due.done.push((token, at));
        }
        match standing.verdict(terms, bounds) {
            Verdict::Until(at) => due.next = due.next.min(at),
            Verdict::Expire => due.expired.push(token),
            Verdict::HandOver => due.to_hand_over.push(token),
            Verdict::Overdue(since) => {
                due.next = due.next.min(terms.now + LOAN_LOOK);
                due.overdue += 1;
                due.longest = due.longest.max(terms.now.saturating_sub(since));
                if !connection.is_named {
                    due.slow.push(token);
                }
            }
        }
    }
    due
}

/// Connections that may be closed to make room, the one first that has been without a request the longest.
pub(super) fn idle_by_age(table: &Table, now: u64, bounds: &Bounds) -> VecDeque<Token> {
    let idle = table.iter().filter_map(|(token, connection)| {
        let since = connection.standing().evictable_since(now, bounds)?;
        Some((since, token))
    });
    let mut idle: Vec<(u64, Token)> = idle.collect();
    idle.sort_unstable_by_key(|(since, _)| *since);
    idle.into_iter().map(|(_, token)| token).collect()
}

/// Connections that hold memory, and how much each does. First come those that hold more than `most` by themselves, then
/// the one whose time is over soonest.
pub(super) fn holders(table: &Table, most: usize) -> Vec<(usize, Token)> {
    let holders = table.iter().filter_map(|(token, connection)| {
        let held = connection.held();
        let order = if held > most { 0 } else { connection.deadline };
        (held > 0).then_some((order, held, token))
    });
    let mut holders: Vec<(u64, usize, Token)> = holders.collect();
    holders.sort_unstable_by_key(|(order, ..)| *order);
    let pairs = holders.into_iter().map(|(_, held, token)| (held, token));
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::client::Client;
    use crate::http::exchange::Exchange;
    use crate::settings::{Overrides, Settings};
    use std::os::unix::net::UnixStream;

    const NOW: u64 = 1_000_000;

    fn bounds() -> Bounds {
        let settings = Settings::without_file(&Overrides::default(), &|_| None).unwrap();
        Bounds::new(&settings)
    }

    fn table() -> Table {
        Table::new(Exchange::of_nobody())
    }

    fn open(table: &mut Table, phase: Phase, loan: Loan, deadline: u64) -> Token {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let client = Client::new(ours.into(), None);
        client.set_loan(loan);
        table.open(client, None, phase, NOW, deadline)
    }

    #[test]
    fn what_is_due_is_found_and_when_the_next_is() {
        let (bounds, mut table) = (bounds(), table());
        let terms = Terms {
            now: NOW,
            why: None,
            has_heir: false,
        };
        assert_eq!(due(&table, &terms, &bounds).next, u64::MAX);
        let over = open(&mut table, Phase::Head, Loan::Waiting, NOW);
        open(&mut table, Phase::Idle, Loan::Waiting, NOW + 300);
        open(&mut table, Phase::Body, Loan::Waiting, NOW + 200);
        let found = due(&table, &terms, &bounds);
        assert_eq!((found.next, found.expired), (NOW + 200, vec![over]));
        assert!(!found.is_writing && found.to_hand_over.is_empty());
        // Handlers that take too long: one that is named already, and one that is not; and one that is done.
        let since = NOW - bounds.handler_warn;
        let named = open(&mut table, Phase::Lent, Loan::Working(since - 5), u64::MAX);
        let slow = open(&mut table, Phase::Lent, Loan::Working(since), u64::MAX);
        let done = open(&mut table, Phase::Lent, Loan::Idle(NOW - 1), u64::MAX);
        for token in [named, done] {
            table.get_mut(token).unwrap().is_named = true;
        }
        open(&mut table, Phase::Writing, Loan::Waiting, NOW + 250);
        let found = due(&table, &terms, &bounds);
        assert_eq!(
            (found.slow, found.done),
            (vec![slow], vec![(done, NOW - 1)])
        );
        assert_eq!((found.overdue, found.longest), (2, bounds.handler_warn + 5));
        assert!(found.is_writing && found.next == NOW + 200);
    }

    #[test]
    fn those_go_first_who_are_going_and_who_wait_longest() {
        let (bounds, mut table) = (bounds(), table());
        let idle = NOW + bounds.idle;
        let late = open(&mut table, Phase::Idle, Loan::Waiting, idle - 10);
        open(&mut table, Phase::Body, Loan::Waiting, NOW);
        let early = open(&mut table, Phase::Lent, Loan::Idle(NOW - 90), u64::MAX);
        let going = open(&mut table, Phase::Lingering, Loan::Waiting, NOW + 50);
        let order = idle_by_age(&table, NOW, &bounds);
        assert_eq!(order, [going, early, late]);
    }

    #[test]
    fn memory_is_taken_from_one_that_holds_all_and_then_from_who_is_over_soonest() {
        let mut table = table();
        let hold = |table: &mut Table, token: Token, bytes: usize| {
            table.get_mut(token).unwrap().input = Vec::with_capacity(bytes);
        };
        let soon = open(&mut table, Phase::Head, Loan::Waiting, NOW + 1);
        let later = open(&mut table, Phase::Head, Loan::Waiting, NOW + 2);
        let huge = open(&mut table, Phase::Head, Loan::Waiting, NOW + 3);
        let lent = open(&mut table, Phase::Lent, Loan::Waiting, u64::MAX);
        open(&mut table, Phase::Idle, Loan::Waiting, NOW);
        for (token, bytes) in [(later, 50), (huge, 101), (soon, 100), (lent, 500)] {
            hold(&mut table, token, bytes);
        }
        let order: Vec<Token> = holders(&table, 100).into_iter().map(|(_, t)| t).collect();
        assert_eq!(order, [huge, soon, later]);
    }
}
