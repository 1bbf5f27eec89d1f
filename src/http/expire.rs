//! What is due for a connection: a verdict from where it stands, without a clock or a socket. `sweep` asks for it, and
//! `desk` acts on it.
#![forbid(unsafe_code)]

use super::bounds::{Bounds, LINGER};
use super::client::Loan;
use super::orders::Why;

/// Milliseconds that a connection has to close after its last answer, while the worker is leaving.
const LINGER_DRAINING: u64 = 500;
/// Milliseconds that a connection has for its first request from when it is accepted, where the worker stops.
const JUST_COME: u64 = 100;
/// Milliseconds after which a connection that has not said anything may have to make room for another.
pub(super) const SILENT: u64 = 1000;
/// Milliseconds between looks at connections that are on loan and may have come back unannounced.
pub(super) const LOAN_LOOK: u64 = 1000;
/// Milliseconds between two looks at the least.
pub(super) const LOOK_STEP: u64 = 100;

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Accepted, nothing received yet.
    Fresh,
    /// Between two requests.
    Idle,
    /// A head has begun.
    Head,
    /// The head is complete, the body is not.
    Body,
    /// The body is long, and as many long ones are being read by handlers as may be.
    Queued,
    /// On loan to a handler.
    Lent,
    /// The rest of an answer waits for the client to read.
    Writing,
    /// The rest of an answer waits until there is something to send; at its deadline a sign of life is.
    Parked,
    /// Answered and shut for writing; what still comes is thrown away until the client closes.
    Lingering,
}

/// Where a connection stands, as far as its end depends on it. Times are on the exchange's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub phase: Phase,
    pub loan: Loan,
    /// A handler has given it back, and a note on the way says more.
    pub is_noted: bool,
    /// When it was accepted, or its writing or lingering began.
    pub begun: u64,
    pub deadline: u64,
    /// The next request, or its beginning, is here and was not looked at.
    pub has_input: bool,
}

/// Under what terms.
pub(super) struct Terms {
    pub now: u64,
    /// Why the worker leaves, if it does.
    pub why: Option<Why>,
    /// Another worker takes connections over at the moment.
    pub has_heir: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before this time; `u64::MAX` for never.
    Until(u64),
    /// Its handler has had it since then, which is too long.
    Overdue(u64),
    /// Its time is over.
    Expire,
    /// It goes to the worker that takes over.
    HandOver,
}

impl Standing {
    /// What is due now.
    pub fn verdict(&self, terms: &Terms, bounds: &Bounds) -> Verdict {
        let now = terms.now;
        let is_leaving = terms.why.is_some();
        let closes_idle = matches!(terms.why, Some(Why::Stop | Why::Orphaned));
        let over_at = match (self.phase, self.loan) {
            (Phase::Lent, Loan::Waiting) => return Verdict::Until(now + LOAN_LOOK),
            (Phase::Lent, Loan::Working(since)) => {
                let warn = since.saturating_add(bounds.handler_warn);
                return match warn <= now {
                    true => Verdict::Overdue(since),
                    false => Verdict::Until(warn.min(now + LOAN_LOOK)),
                };
            }
            // A note on the way says more.
            (Phase::Lent, _) if self.is_noted => return Verdict::Until(now + LOOK_STEP),
            // It is read on in a moment.
            (Phase::Idle, _) | (Phase::Lent, Loan::Idle(_)) if self.has_input => {
                return Verdict::Until(now + LOOK_STEP);
            }
            // The request of one that was accepted a moment ago may be on its way.
            (Phase::Fresh, _) if terms.why == Some(Why::Stop) => self.begun + JUST_COME,
            (Phase::Idle, _) | (Phase::Lent, Loan::Idle(_)) if closes_idle => 0,
            // What a connection between two requests may hold is an empty line.
            (Phase::Fresh | Phase::Idle, _) | (Phase::Lent, Loan::Idle(_)) if terms.has_heir => {
                return Verdict::HandOver;
            }
            // It is ended whole, and its client comes again.
            (Phase::Parked, _) if is_leaving => 0,
            (Phase::Lent, Loan::Idle(since)) => since + bounds.idle,
            (Phase::Lent, Loan::Closing(since)) if is_leaving => since + LINGER_DRAINING,
            (Phase::Lent, Loan::Closing(since)) => since + LINGER,
            (Phase::Lingering, _) if is_leaving => self.deadline.min(self.begun + LINGER_DRAINING),
            _ => self.deadline,
        };
        match over_at <= now {
            true => Verdict::Expire,
            false => Verdict::Until(over_at),
        }
    }

    /// Since when it has waited for a request, if it may be closed to make room for another connection: then it is not
    /// with a handler, and not so new that its request may be on its way. 0 for one that is answered and about to go.
    pub fn evictable_since(&self, now: u64, bounds: &Bounds) -> Option<u64> {
        match (self.phase, self.loan) {
            (Phase::Lingering, _) => Some(0),
            (Phase::Fresh, _) => Some(self.deadline.saturating_sub(bounds.head))
                .filter(|since| since + SILENT <= now),
            (Phase::Lent, _) if self.is_noted => None,
            (Phase::Idle, _) | (Phase::Lent, Loan::Idle(_)) if self.has_input => None,
            (Phase::Idle, _) => Some(self.deadline.saturating_sub(bounds.idle)),
            (Phase::Lent, Loan::Idle(since)) => Some(since),
            (Phase::Lent, Loan::Closing(_)) => Some(0),
            _ => None,
        }
    }

    /// Whether a request is cut where the connection ends now. `is_answering`: it is a request that is being answered,
    /// and not a refusal that is being sent.
    pub fn is_amid_request(&self, is_answering: bool) -> bool {
        match self.phase {
            Phase::Head | Phase::Body | Phase::Queued => true,
            Phase::Writing | Phase::Parked => is_answering,
            Phase::Lent => matches!(self.loan, Loan::Waiting | Loan::Working(_)),
            Phase::Fresh | Phase::Idle | Phase::Lingering => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::Limits;

    const NOW: u64 = 100_000;

    fn bounds() -> Bounds {
        Bounds {
            limits: Limits { line: 1, head: 1 },
            max_body: 1,
            max_connections: 1,
            max_per_address: 1,
            proxies: Default::default(),
            metrics: false,
            status: false,
            allowed: Default::default(),
            room: 1,
            head: 10_000,
            idle: 60_000,
            progress: 10_000,
            handler_warn: 30_000,
            memory: 1,
        }
    }

    /// One whose deadline is in the future, and that began at that time.
    fn at(phase: Phase, loan: Loan, begun: u64) -> Standing {
        Standing {
            phase,
            loan,
            is_noted: false,
            begun,
            deadline: NOW + 7,
            has_input: false,
        }
    }

    fn terms(why: Option<Why>, has_heir: bool) -> Terms {
        Terms {
            now: NOW,
            why,
            has_heir,
        }
    }

    const LATER: Verdict = Verdict::Until(NOW + 7);

    #[test]
    fn what_is_due_in_every_phase_and_for_every_reason_to_leave() {
        use Phase::{Body, Fresh, Head, Idle, Lent, Lingering, Parked, Queued, Writing};
        use Verdict::{Expire, HandOver, Overdue, Until};
        let soon = Until(NOW + LOAN_LOOK);
        let serving = NOW + 60_000;
        // Serving; stopping; orphaned; restarting with an heir; and without one; moved with one.
        let table = [
            // Just accepted, and accepted a while ago.
            (
                at(Fresh, Loan::Waiting, NOW),
                [
                    LATER,
                    Until(NOW + JUST_COME),
                    LATER,
                    HandOver,
                    LATER,
                    HandOver,
                ],
            ),
            (
                at(Fresh, Loan::Waiting, NOW - 100),
                [LATER, Expire, LATER, HandOver, LATER, HandOver],
            ),
            (
                at(Idle, Loan::Waiting, 0),
                [LATER, Expire, Expire, HandOver, LATER, HandOver],
            ),
            // A request that has begun keeps its time.
            (at(Head, Loan::Waiting, 0), [LATER; 6]),
            (at(Body, Loan::Waiting, 0), [LATER; 6]),
            (at(Queued, Loan::Waiting, 0), [LATER; 6]),
            (at(Writing, Loan::Working(0), 0), [LATER; 6]),
            (
                at(Parked, Loan::Working(0), 0),
                [LATER, Expire, Expire, Expire, Expire, Expire],
            ),
            // So does one with a handler.
            (at(Lent, Loan::Waiting, 0), [soon; 6]),
            (at(Lent, Loan::Working(NOW - 1), 0), [soon; 6]),
            (
                at(Lent, Loan::Working(NOW - 29_500), 0),
                [Until(NOW + 500); 6],
            ),
            (
                at(Lent, Loan::Working(NOW - 30_000), 0),
                [Overdue(NOW - 30_000); 6],
            ),
            // It is back, and nobody has said so.
            (
                at(Lent, Loan::Idle(NOW), 0),
                [
                    Until(serving),
                    Expire,
                    Expire,
                    HandOver,
                    Until(serving),
                    HandOver,
                ],
            ),
            (
                at(Lent, Loan::Idle(NOW - 60_000), 0),
                [Expire, Expire, Expire, HandOver, Expire, HandOver],
            ),
            (
                at(Lent, Loan::Closing(NOW - 499), 0),
                [
                    Until(NOW + 1501),
                    Until(NOW + 1),
                    Until(NOW + 1),
                    Until(NOW + 1),
                    Until(NOW + 1),
                    Until(NOW + 1),
                ],
            ),
            (
                at(Lent, Loan::Closing(NOW - 500), 0),
                [Until(NOW + 1500), Expire, Expire, Expire, Expire, Expire],
            ),
            (
                at(Lingering, Loan::Waiting, NOW - 500),
                [LATER, Expire, Expire, Expire, Expire, Expire],
            ),
            (
                at(Lingering, Loan::Waiting, NOW - 499),
                [
                    LATER,
                    Until(NOW + 1),
                    Until(NOW + 1),
                    Until(NOW + 1),
                    Until(NOW + 1),
                    Until(NOW + 1),
                ],
            ),
        ];
        let bounds = bounds();
        let leaving = [
            (None, false),
            (Some(Why::Stop), false),
            (Some(Why::Orphaned), false),
            (Some(Why::Restart), true),
            (Some(Why::Restart), false),
            (Some(Why::Moved), true),
        ];
        for (standing, verdicts) in table {
            for ((why, has_heir), verdict) in leaving.into_iter().zip(verdicts) {
                let terms = terms(why, has_heir);
                assert_eq!(
                    standing.verdict(&terms, &bounds),
                    verdict,
                    "{standing:?}, {why:?}, {has_heir}"
                );
            }
        }
    }

    #[test]
    fn what_a_note_has_still_to_tell_of_is_let_alone() {
        let bounds = bounds();
        for why in [None, Some(Why::Stop), Some(Why::Restart)] {
            for loan in [Loan::Idle(0), Loan::Closing(0)] {
                let noted = Standing {
                    is_noted: true,
                    ..at(Phase::Lent, loan, 0)
                };
                let terms = terms(why, why.is_some());
                assert_eq!(
                    noted.verdict(&terms, &bounds),
                    Verdict::Until(NOW + LOOK_STEP)
                );
                assert_eq!(noted.evictable_since(NOW, &bounds), None);
            }
        }
    }

    #[test]
    fn one_whose_next_request_is_here_is_not_closed_passed_on_or_in_the_way() {
        let bounds = bounds();
        for (phase, loan) in [
            (Phase::Lent, Loan::Idle(NOW)),
            (Phase::Lent, Loan::Idle(0)),
            (Phase::Idle, Loan::Waiting),
        ] {
            let standing = Standing {
                has_input: true,
                deadline: NOW,
                ..at(phase, loan, 0)
            };
            for why in [None, Some(Why::Stop), Some(Why::Restart)] {
                let terms = terms(why, why == Some(Why::Restart));
                let verdict = standing.verdict(&terms, &bounds);
                assert_eq!(verdict, Verdict::Until(NOW + LOOK_STEP), "{standing:?}");
            }
            assert_eq!(standing.evictable_since(NOW, &bounds), None);
        }
    }

    #[test]
    fn deadlines_are_over_when_they_are_reached() {
        let bounds = bounds();
        for phase in [Phase::Fresh, Phase::Head, Phase::Body, Phase::Writing] {
            for (deadline, verdict) in [
                (NOW - 1, Verdict::Expire),
                (NOW, Verdict::Expire),
                (NOW + 1, Verdict::Until(NOW + 1)),
                (u64::MAX, Verdict::Until(u64::MAX)),
            ] {
                let standing = Standing {
                    deadline,
                    ..at(phase, Loan::Waiting, 0)
                };
                assert_eq!(standing.verdict(&terms(None, false), &bounds), verdict);
            }
        }
        let never = Bounds {
            handler_warn: u64::MAX,
            ..bounds
        };
        let working = at(Phase::Lent, Loan::Working(1), 0);
        let verdict = working.verdict(&terms(None, false), &never);
        assert_eq!(verdict, Verdict::Until(NOW + LOAN_LOOK));
    }

    #[test]
    fn room_is_made_by_those_who_wait_for_nothing_or_for_long() {
        let bounds = bounds();
        for (phase, loan, deadline, since) in [
            (Phase::Lingering, Loan::Waiting, NOW, Some(0)),
            (Phase::Fresh, Loan::Waiting, NOW + 9_001, None),
            (Phase::Fresh, Loan::Waiting, NOW + 9_000, Some(NOW - 1000)),
            (Phase::Idle, Loan::Waiting, NOW + 60_000, Some(NOW)),
            (Phase::Lent, Loan::Idle(5), NOW, Some(5)),
            (Phase::Lent, Loan::Closing(5), NOW, Some(0)),
            (Phase::Lent, Loan::Waiting, NOW, None),
            (Phase::Lent, Loan::Working(5), NOW, None),
            (Phase::Head, Loan::Waiting, NOW, None),
            (Phase::Body, Loan::Waiting, NOW, None),
            (Phase::Queued, Loan::Waiting, NOW, None),
            (Phase::Writing, Loan::Waiting, NOW, None),
        ] {
            let standing = Standing {
                deadline,
                ..at(phase, loan, 0)
            };
            assert_eq!(
                standing.evictable_since(NOW, &bounds),
                since,
                "{standing:?}"
            );
        }
    }

    #[test]
    fn a_request_is_cut_from_its_first_byte_to_the_last_of_its_answer() {
        for (phase, loan, is_answering, is_cut) in [
            (Phase::Fresh, Loan::Waiting, false, false),
            (Phase::Idle, Loan::Waiting, false, false),
            (Phase::Head, Loan::Waiting, false, true),
            (Phase::Body, Loan::Waiting, false, true),
            (Phase::Queued, Loan::Waiting, false, true),
            (Phase::Lent, Loan::Waiting, true, true),
            (Phase::Lent, Loan::Working(1), true, true),
            (Phase::Lent, Loan::Idle(1), true, false),
            (Phase::Lent, Loan::Closing(1), true, false),
            (Phase::Writing, Loan::Working(1), true, true),
            (Phase::Writing, Loan::Waiting, false, false),
            (Phase::Lingering, Loan::Waiting, false, false),
        ] {
            let standing = at(phase, loan, 0);
            assert_eq!(
                standing.is_amid_request(is_answering),
                is_cut,
                "{standing:?}"
            );
        }
    }
}
