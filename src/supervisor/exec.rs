//! Becoming another program: the master's `execve(2)`, with everything that must go on, to the program on disk or back to
//! the one of before. `resume.rs` has the far side.
#![forbid(unsafe_code)]

use super::handover::{self, Handover, Held, Inherited, Ticket, Way};
use super::master::Master;
use super::plan::Event;
use super::restart::{Restart, Step};
use crate::log;
use crate::sys::fd;
use crate::sys::process::{self, Executable};
use crate::sys::signal;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// So many descriptors must be free for a program to begin with.
const ROOM: usize = 4;

impl Master {
    /// Becomes the program on disk; returns only when that failed.
    pub(super) fn execute(&mut self) -> Event {
        if let Err(error) = self.holdings.listener.bind_again() {
            return Event::NotExecuted(error.to_string());
        }
        let place = &self.settings.place;
        let way_back = fd::open_path(Path::new("/proc/self/exe"))
            .and_then(|executable| Ok((executable, fd::open_path(Path::new("."))?)));
        let (executable, directory) = match way_back {
            Ok(way_back) => way_back,
            Err(error) => {
                return Event::NotExecuted(format!(
                    "cannot keep a way back, which needs /proc/self/exe: {error}"
                ));
            }
        };
        // A program that finds no room for its libraries and its settings file ends at once, and nothing leads back.
        let room: io::Result<Vec<OwnedFd>> = (0..ROOM).map(|_| directory.try_clone()).collect();
        if let Err(error) = room {
            return Event::NotExecuted(format!("no room for the new program: {error}"));
        }
        let Some(Restart {
            step:
                Step::Checking {
                    overrides,
                    names_address,
                    ..
                },
            ..
        }) = &self.restart
        else {
            return Event::NotExecuted("it was not checked".to_owned());
        };
        let ticket = Ticket::new(executable.as_raw_fd(), directory.as_raw_fd());
        let mut handover = self.hand_over(Way::Onward(ticket));
        // A socket that was passed in stays, unless this restart names an address.
        if self.holdings.listener.address().is_none() && *names_address {
            handover.address = Some(String::new());
        }
        let program = self.service.program.clone();
        let mut args: Vec<OsString> = vec![program.clone().into(), "app".into(), "start".into()];
        args.extend(self.is_daemon.then(|| "--daemon".into()));
        args.extend(["--base-dir".into(), place.base.clone().into()]);
        let (shown, variables) = overrides.hidden();
        args.extend(shown.to_args().into_iter().map(OsString::from));
        log::info(format_args!("restarting as {}", program.display()));
        let mut environment: Vec<OsString> = handover::variables().collect();
        for (name, value) in variables {
            let start = format!("{name}=");
            environment.retain(|one| !one.as_encoded_bytes().starts_with(start.as_bytes()));
            environment.push(OsString::from(start + &value));
        }
        let error = become_it(Executable::Path(&program), &args, environment, &handover);
        Event::NotExecuted(format!("cannot execute {}: {error}", program.display()))
    }

    /// Becomes the program of before again; returns only when that failed.
    pub(super) fn go_back(&mut self, why: &str) -> Event {
        self.holdings.move_back();
        let Some(Restart {
            step: Step::Executed(back),
            ..
        }) = &self.restart
        else {
            return Event::NotReturned("it is not known".to_owned());
        };
        let handover = Handover {
            held: back.held.clone(),
            hang_up_stops: back.hang_up_stops,
            ..self.hand_over(Way::Back {
                why: why.to_owned(),
                directory: back.directory.as_raw_fd(),
            })
        };
        let environment = back.environment.clone();
        let environment = environment.unwrap_or_else(|| handover::variables().collect());
        let executable = Executable::File(back.executable.as_fd());
        let error = become_it(executable, &back.args, environment, &handover);
        Event::NotReturned(error.to_string())
    }

    /// Everything that goes on, by the numbers of its descriptors.
    fn hand_over(&self, way: Way) -> Handover {
        let raw = |fd: &dyn AsFd| fd.as_fd().as_raw_fd();
        let now = self.now();
        let workers = self.roster.iter().filter_map(|worker| {
            let passed = self.plan.pass(now, worker.pid)?;
            Some(Inherited {
                pid: worker.pid,
                wire: raw(&worker.wire),
                bell: raw(&worker.bell),
                slot: worker.slot,
                since: worker.since,
                stage: passed.stage,
                kill_in: passed.kill_in,
            })
        });
        let holdings = &self.holdings;
        Handover {
            way,
            held: Held::of(&self.settings, &self.overrides, self.identity.as_ref()),
            lock: raw(&holdings.lock),
            listener: holdings
                .listener
                .descriptor()
                .map_or(-1, |fd| fd.as_raw_fd()),
            address: holdings.listener.address().map(ToString::to_string),
            ledger: raw(&holdings.ledger),
            control: holdings.control.listener().as_raw_fd(),
            log: log::file().map(|file| file.as_raw_fd()),
            signals: self.signals.descriptors(),
            asker: self
                .restart
                .as_ref()
                .and_then(|restart| restart.asker.as_ref().map(|asker| raw(asker))),
            workers: workers.collect(),
            generation: self.generation,
            started: self.started,
            asked: self
                .restart
                .as_ref()
                .map_or(Duration::ZERO, |restart| restart.asked),
            is_daemon: self.is_daemon,
            hang_up_stops: self.hang_up_stops,
            program: self.service.program.clone(),
        }
    }
}

/// The exec itself. The error, for otherwise it does not return.
fn become_it(
    executable: Executable<'_>,
    args: &[OsString],
    mut environment: Vec<OsString>,
    handover: &Handover,
) -> io::Error {
    environment.push(handover.to_variable());
    // Blocked signals stay pending until the new program has its handlers; those counted here are sent again.
    signal::block_all();
    signal::send_again();
    let descriptors: Vec<RawFd> = handover.descriptors();
    fd::set_cloexec_numbers(&descriptors, false);
    let error = process::execute(executable, args, &environment);
    fd::set_cloexec_numbers(&descriptors, true);
    signal::unblock_all();
    error
}
