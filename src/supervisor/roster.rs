//! The workers from the master's side: who there is, what each says, and whether it still moves.
//!
//! The heartbeat: a gate counts its rounds in its slot of the ledger. Every 10 s the master looks. Whose count stands
//! still is asked for a sign of life, by the bell in the gate's own epoll; whose count stands still at the look after
//! that is late, and at one look more the plan is told. So an idle worker is woken once in 20 s, and a busy one never.
#![forbid(unsafe_code)]

use super::wire::{Heard, Report, Wire};
use crate::ledger::{Ledger, SLOTS};
use crate::sys::epoll::Bell;
use crate::sys::process::{self, Pid};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How often the master looks.
const BEAT: Duration = Duration::from_secs(10);
/// A master that comes to its look so much too late was stopped itself, and its workers most likely with it.
const OVERSLEPT: Duration = Duration::from_secs(2);
/// So many signs of life in a row have to stay away.
const MISSED: u32 = 2;

/// A worker from the master's side.
pub(super) struct Worker {
    pub pid: Pid,
    pub wire: Wire,
    /// Wakes its gate.
    pub bell: Bell,
    /// Its part of the ledger.
    pub slot: usize,
    /// When it was forked, on the clock of [`crate::clock::boottime`].
    pub since: Duration,
    /// It has said what its drain came to.
    pub has_reported: bool,
    /// The other end is closed; nothing more is to be heard.
    ended: bool,
    /// The rounds of its gate when it was looked at last.
    rounds: u64,
    /// When its gate was last seen to have moved.
    moved: Instant,
    was_asked: bool,
    missed: u32,
    /// It came through an exec. Where its count is 0 it may count in a ledger that did not, or that this program cannot
    /// read.
    is_adopted: bool,
}

impl Worker {
    pub fn new(pid: Pid, wire: Wire, bell: Bell, slot: usize, since: Duration) -> Worker {
        Worker {
            pid,
            wire,
            bell,
            slot,
            since,
            has_reported: false,
            ended: false,
            rounds: 0,
            moved: Instant::now(),
            was_asked: false,
            missed: 0,
            is_adopted: false,
        }
    }

    /// The same that has come through an exec.
    pub fn adopted(self) -> Worker {
        Worker {
            is_adopted: true,
            ..self
        }
    }

    /// It did not answer when it was asked for a sign of life.
    pub fn is_late(&self) -> bool {
        self.missed > 0
    }

    /// One look. `None`: all is well so far; otherwise how long it has not moved.
    fn look(&mut self, rounds: u64, now: Instant, counts: bool) -> Option<Duration> {
        if rounds != self.rounds {
            (self.rounds, self.moved) = (rounds, now);
            (self.was_asked, self.missed) = (false, 0);
            return None;
        }
        let is_counted = rounds > 0 || !self.is_adopted;
        if self.was_asked && counts && is_counted {
            self.missed += 1;
        }
        if self.missed >= MISSED {
            return Some(now.saturating_duration_since(self.moved));
        }
        self.was_asked = true;
        self.bell.ring();
        None
    }
}

/// All workers.
pub(super) struct Roster {
    workers: Vec<Worker>,
    next_look: Instant,
}

impl Roster {
    pub fn new(workers: Vec<Worker>) -> Roster {
        Roster {
            workers,
            next_look: Instant::now() + BEAT,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter()
    }

    pub fn len(&self) -> usize {
        self.workers.len()
    }

    pub fn find(&self, pid: Pid) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.pid == pid)
    }

    pub fn add(&mut self, worker: Worker) {
        self.workers.push(worker);
    }

    /// A slot of the ledger that nobody uses.
    pub fn free_slot(&self) -> usize {
        let is_free = |slot: &usize| self.workers.iter().all(|worker| worker.slot != *slot);
        (0..SLOTS).find(is_free).unwrap_or(SLOTS - 1)
    }

    /// Takes out one that is gone, with what it still had to say.
    pub fn remove(&mut self, pid: Pid) -> Option<(Worker, Vec<Report>)> {
        let index = self.workers.iter().position(|worker| worker.pid == pid)?;
        let mut worker = self.workers.remove(index);
        let mut last = Vec::new();
        worker.hear(|report| last.push(report));
        Some((worker, last))
    }

    /// What there is to wait on.
    pub fn wires(&self) -> impl Iterator<Item = &Wire> {
        self.workers
            .iter()
            .filter(|worker| !worker.ended)
            .map(|worker| &worker.wire)
    }

    /// Everything that workers have said since the last time.
    pub fn hear(&mut self) -> Vec<(Pid, Report)> {
        let mut heard = Vec::new();
        for worker in &mut self.workers {
            let pid = worker.pid;
            worker.hear(|report| heard.push((pid, report)));
        }
        heard
    }

    /// When the next look at the heartbeats is due.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.workers.is_empty()).then_some(self.next_look)
    }

    /// Whether none is late of those that should have a heartbeat: whoever leaves, or is held by the kernel after its
    /// kill, serves nobody.
    pub fn is_fresh(&self, should_beat: impl Fn(Pid) -> bool) -> bool {
        let mut serving = self.workers.iter().filter(|worker| should_beat(worker.pid));
        serving.all(|worker| !worker.is_late())
    }

    /// Looks at the heartbeats of those that should have one, if it is time. Who is late, and for how long it has not
    /// moved.
    pub fn look(
        &mut self,
        now: Instant,
        ledger: &Ledger,
        should_beat: impl Fn(Pid) -> bool,
    ) -> Vec<(Pid, Duration)> {
        if now < self.next_look {
            return Vec::new();
        }
        let counts = now < self.next_look + OVERSLEPT;
        self.next_look = now + BEAT;
        let mut late = Vec::new();
        for worker in &mut self.workers {
            if !should_beat(worker.pid) {
                continue;
            }
            let rounds = ledger.slot(worker.slot).rounds();
            let Some(still) = worker.look(rounds, now, counts) else {
                continue;
            };
            // Somebody looks into it, and decides how long that takes.
            if process::is_traced(worker.pid) {
                worker.missed = 0;
                continue;
            }
            late.push((worker.pid, still));
        }
        late
    }
}

impl Worker {
    fn hear(&mut self, mut tell: impl FnMut(Report)) {
        while !self.ended {
            match self.wire.next_report() {
                Heard::Message(report) => {
                    self.has_reported |= matches!(report, Report::Drained(_));
                    tell(report);
                }
                Heard::Nothing => return,
                Heard::End => self.ended = true,
            }
        }
    }
}

impl AsFd for Worker {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.wire.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One worker in the first slot, and a ledger that its gate would count in.
    fn roster() -> (Roster, Ledger, Instant) {
        let ledger = Ledger::new(&std::env::temp_dir()).unwrap();
        let (ours, _theirs) = Wire::pair().unwrap();
        let (pid, bell) = (Pid::own(), Bell::new().unwrap());
        let worker = Worker::new(pid, ours, bell, 0, Duration::ZERO);
        let roster = Roster::new(vec![worker]);
        let start = roster.next_look;
        (roster, ledger, start)
    }

    fn rings(roster: &Roster) -> bool {
        let mut wait = [crate::sys::fd::Wait::readable(&roster.workers[0].bell)];
        crate::sys::fd::poll(&mut wait, Some(Duration::ZERO)).unwrap();
        let rings = wait[0].ready;
        let mut rung = [0; 8];
        let _ = crate::sys::fd::read(roster.workers[0].bell.as_fd(), &mut rung);
        rings
    }

    #[test]
    fn who_stands_still_is_asked_twice_and_then_late() {
        let (mut roster, ledger, start) = roster();
        let look = |beats: u32, roster: &mut Roster| {
            let late = roster.look(start + BEAT * beats, &ledger, |_| true);
            (late, rings(roster))
        };
        ledger.slot(0).add_round();
        assert_eq!(look(0, &mut roster), (vec![], false), "it moved");
        assert_eq!(look(1, &mut roster), (vec![], true), "asked");
        ledger.slot(0).add_round();
        assert_eq!(look(2, &mut roster), (vec![], false), "it answered");
        assert_eq!(look(3, &mut roster), (vec![], true));
        assert!(!roster.workers[0].is_late());
        assert_eq!(look(4, &mut roster), (vec![], true));
        assert!(roster.workers[0].is_late());
        let late = vec![(Pid::own(), BEAT * 3)];
        assert_eq!(look(5, &mut roster), (late, false));
        assert_eq!(roster.deadline(), Some(start + BEAT * 6));
    }

    #[test]
    fn nobody_is_late_for_a_master_that_overslept_or_if_it_need_not_beat() {
        let (mut roster, ledger, start) = roster();
        let mut now = start;
        for _ in 0..9 {
            assert_eq!(roster.look(now, &ledger, |_| true), []);
            now = roster.next_look + OVERSLEPT;
        }
        let (mut roster, ledger, start) = self::roster();
        for beat in 0..9 {
            assert_eq!(roster.look(start + BEAT * beat, &ledger, |_| false), []);
        }
    }

    #[test]
    fn who_counts_in_another_ledger_is_asked_and_never_late() {
        let (mut roster, ledger, start) = roster();
        roster.workers = roster.workers.into_iter().map(Worker::adopted).collect();
        for beat in 0..9 {
            let late = roster.look(start + BEAT * beat, &ledger, |_| true);
            assert_eq!((late, rings(&roster)), (vec![], true));
        }
        ledger.slot(0).add_round();
        for beat in 9..12 {
            assert_eq!(roster.look(start + BEAT * beat, &ledger, |_| true), []);
        }
        let late = roster.look(start + BEAT * 12, &ledger, |_| true);
        assert_eq!(late.len(), 1, "by this one it can be told");
    }

    #[test]
    fn who_was_late_and_leaves_keeps_no_watchdog_from_its_food() {
        let (mut roster, ledger, start) = roster();
        for beat in 0..3 {
            roster.look(start + BEAT * beat, &ledger, |_| true);
        }
        assert!(roster.workers[0].is_late());
        assert!(!roster.is_fresh(|_| true));
        assert!(roster.is_fresh(|_| false));
    }
}
