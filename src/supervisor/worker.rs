//! A worker's life: inherit, boot, serve, say ready, drain, leave. Everything that can go wrong lives here: handlers,
//! threads, memory. Its main thread only waits for orders, signals and the end.
#![forbid(unsafe_code)]

use super::wire::{Heard, Order, Report, Wire};
use crate::error::exit;
use crate::http::bounds::Bounds;
use crate::http::exchange::Exchange;
use crate::http::gate::Gate;
use crate::http::orders::{self, Drained, Leave, Why};
use crate::http::record::{self, Record};
use crate::http::request::Worker;
use crate::http::server::{self, Pool};
use crate::ledger::Slot;
use crate::listener;
use crate::log;
use crate::service::Service;
use crate::settings::Settings;
use crate::signals::{self, SelfPipe};
use crate::sys::epoll::Bell;
use crate::sys::fd::{self, Wait};
use crate::sys::process::{self, Pid, exit_now};
use crate::sys::signal::{self, Signal};
use crate::sys::{memory, title};
use crate::user::Identity;
use std::any::Any;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What the master gives a worker.
pub(crate) struct Birth {
    pub master: Pid,
    pub listener: OwnedFd,
    pub wire: Wire,
    /// Rung by the master, to see that the gate moves.
    pub bell: Bell,
    pub slot: Slot,
    /// Whom it becomes before anything of a program's own runs.
    pub identity: Option<Identity>,
}

/// How much longer than its time a gate gets that was told to leave. Then the worker ends without it, and does not wait to
/// be killed: its master may be gone, or stand still itself.
const GATE_SLACK: Duration = Duration::from_millis(250);

/// What an application gets for itself even where the time is over; the master's patience is a little longer.
const LEAST_TO_LET_GO: Duration = Duration::from_millis(200);
/// The most that an application has for itself of the time to leave, where requests want all of it.
const MOST_RESERVED: Duration = Duration::from_secs(1);

/// No more than this counts at a time against the time of one that leaves: it may have been stopped meanwhile.
const STEP: Duration = Duration::from_secs(1);

/// Runs a worker in a freshly forked child, with all signals blocked, and never comes back.
pub(crate) fn run(service: &Service, settings: &Settings, birth: Birth) -> ! {
    // Unwinding any further would end in the master's loop, in the wrong process.
    let Birth {
        master,
        listener,
        wire,
        bell,
        slot,
        identity,
    } = birth;
    let wire = Arc::new(wire);
    let code = catch_unwind(AssertUnwindSafe(|| {
        live(service, settings, master, identity, &wire, |settings| {
            boot(service, settings, listener, bell, slot)
        })
    }));
    end(code.unwrap_or_else(|panic| {
        let _ = wire.report(&Report::Failed(format!("panic: {}", message_of(&*panic))));
        // What it carries may panic again when it is dropped.
        std::mem::forget(panic);
        exit::FAILED
    }))
}

/// Ends the process, with nothing left unsaid.
fn end(code: u8) -> ! {
    log::stay_with_this_file();
    exit_now(code)
}

/// What a panic says.
fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn live(
    service: &Service,
    settings: &Settings,
    master: Pid,
    identity: Option<Identity>,
    wire: &Arc<Wire>,
    boot: impl FnOnce(&Settings) -> Result<(Server, SelfPipe), String>,
) -> u8 {
    let begun = Instant::now();
    title::set_name(&service.title(" worker"));
    let asks = Arc::clone(wire);
    log::ask_for_files(Box::new(move |bytes| asks.report(&Report::LogFull(bytes))));
    let asks = Arc::clone(wire);
    record::ask_for_files(Box::new(move |bytes| {
        asks.report(&Report::AccessLogFull(bytes))
    }));
    std::panic::set_hook(Box::new(|panic| {
        if server::is_expected_panic() {
            return;
        }
        let thread = server::panicking();
        let (place, message) = (panic.location(), message_of(panic.payload()));
        let place = place.map_or_else(String::new, |place| {
            format!(" at {}:{}", place.file(), place.line())
        });
        log::error(format_args!("panic in {thread}{place}: {message}"));
    }));
    // When memory runs out it is this one that goes, and the master replaces it.
    crate::memory::offer_oneself();
    // After what root alone may do to itself, and before what the kernel forgets when the user changes.
    let assumed = identity.as_ref().map_or(Ok(()), Identity::assume);
    // A boot function may take its time, or for ever, and meanwhile nobody here would notice the master's death.
    process::signal_at_death_of_parent(Some(Signal::Kill));
    if process::parent() != Some(master) {
        return exit::FAILED;
    }
    let (server, signals) = match assumed.and_then(|()| boot(settings)) {
        Ok(started) => started,
        Err(why) => {
            if let Err(error) = wire.report(&Report::Failed(why.clone())) {
                log::error(format_args!("{why}; the master cannot be told: {error}"));
            }
            return exit::FAILED;
        }
    };
    if let Some(identity) = identity {
        say_what_is_closed(service, settings, &identity);
    }
    log::info(format_args!(
        "worker ready, in {:.1} ms",
        begun.elapsed().as_secs_f64() * 1000.0
    ));
    // From here on the wire tells that the master is gone. One that is stopped at that moment would not hear it, and keep
    // the port: it is made to go on.
    process::signal_at_death_of_parent(Some(Signal::Continue));
    if let Err(error) = wire.report(&Report::Ready) {
        let why = format!("the master cannot be told of a worker that is ready: {error}");
        log::error(format_args!("{why}"));
        // Who asked for it wants to hear the reason, and what failed once need not fail again.
        let _ = wire.report(&Report::Failed(why));
        return exit::FAILED;
    }
    let record = server.exchange.record.clone();
    let (drained, left) = serve(settings, server, &signals, wire, reserve(service, settings));
    if let Some(record) = record {
        record.finish();
    }
    let_go(
        service,
        left.saturating_sub(GATE_SLACK).max(LEAST_TO_LET_GO),
    );
    let Drained {
        finished,
        cut,
        named,
    } = &drained;
    for name in named {
        log::warn(format_args!("cut: {name}"));
    }
    log::info(format_args!(
        "worker leaves, {finished} requests finished, {cut} cut"
    ));
    let _ = wire.report(&Report::Drained(drained));
    exit::DONE
}

/// Root has found the directories of files, and it is another user who is to read them.
fn say_what_is_closed(service: &Service, settings: &Settings, identity: &Identity) {
    for (directory, error) in service.routes.closed_files(settings) {
        let directory = directory.display();
        log::warn(format_args!(
            "{identity} cannot enter {directory}, and answers 403: {error}"
        ));
    }
}

/// What of the time to leave is kept from the requests, for the application to let go of what it has.
fn reserve(service: &Service, settings: &Settings) -> Duration {
    let life = service.life.as_ref();
    match life.is_some_and(|life| life.takes_time) {
        true => (settings.close_wait / 4).min(MOST_RESERVED),
        false => Duration::ZERO,
    }
}

/// Has the application let go of what it has for itself, for so long.
fn let_go(service: &Service, within: Duration) {
    let Some(life) = service.life.clone() else {
        return;
    };
    let (done, wait) = channel();
    let thread = thread::Builder::new().name("stop".to_owned());
    let thread = thread.spawn(move || {
        signal::unblock_all();
        (life.stop)();
        let _ = done.send(());
    });
    if let Err(error) = thread {
        return log::warn(format_args!("cannot start a thread for the stop: {error}"));
    }
    // Of a panic its hook has told.
    if let Err(RecvTimeoutError::Timeout) = wait.recv_timeout(within) {
        let seconds = within.as_secs_f64();
        log::warn(format_args!(
            "cut: what the application does at a stop, after {seconds:.1} s"
        ));
    }
}

/// A gate that runs.
struct Server {
    /// The time that it still has, if it was told to leave.
    left: Option<Duration>,
    /// So much of it is not for requests.
    reserved: Duration,
    exchange: Arc<Exchange>,
    orders: Sender<orders::Order>,
    thread: JoinHandle<Drained>,
    /// Readable when the thread is over.
    over: OwnedFd,
}

impl Server {
    fn leave(&mut self, why: Why, within: Duration, heir: Option<OwnedFd>) {
        let deadline = Instant::now() + within.saturating_sub(self.reserved);
        self.left = Some(within + GATE_SLACK);
        self.tell(orders::Order::Leave(Leave {
            deadline,
            why,
            heir,
        }));
    }

    fn tell(&self, order: orders::Order) {
        let _ = self.orders.send(order);
        self.exchange.bell.ring();
    }
}

fn boot(
    service: &Service,
    settings: &Settings,
    listener: OwnedFd,
    bell: Bell,
    slot: Slot,
) -> Result<(Server, SelfPipe), String> {
    let text = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    memory::be_thrifty();
    let signals = SelfPipe::of_worker().map_err(text("cannot make a pipe"))?;
    let worker = Worker::new(settings.own.clone());
    if let Some(life) = &service.life {
        // It may start threads, and these may start programs: neither is to inherit a full mask.
        signal::unblock_all();
        (life.boot)(&worker)?;
        signal::block_all();
    }
    listener::listen(listener.as_fd()).map_err(text("cannot listen"))?;
    // With every signal blocked here, the threads started below have them blocked too.
    let mut exchange = Exchange::new(slot, bell, settings.threads)
        .map_err(text("cannot make an epoll instance"))?;
    exchange.worker = worker;
    exchange.record = Record::start(settings).map_err(text("cannot start a thread"))?;
    let exchange = Arc::new(exchange);
    let routes = Arc::clone(&service.routes);
    // Its threads come up on other processors while the rest is made here.
    let (pool, stream) = Pool::start(Arc::clone(&exchange), Arc::clone(&routes), settings.threads)
        .map_err(text("cannot start tiny_http"))?;
    title::set_name(&service.title(" worker"));
    routes.open_files(settings);
    let (orders, inbox) = channel();
    let gate = Gate::new(
        Arc::clone(&exchange),
        (Arc::clone(&pool), stream),
        routes,
        Bounds::new(settings),
        listener,
        inbox,
    )
    .map_err(text("cannot watch the listener"))?;
    let (over, running) = fd::pipe().map_err(text("cannot make a pipe"))?;
    pool.wait_for_trial()
        .map_err(text("cannot start tiny_http"))?;
    let thread = thread::Builder::new()
        .name("gate".to_owned())
        .spawn(move || {
            let _running = running;
            gate.run()
        });
    let thread = thread.map_err(text("cannot start a thread"))?;
    signal::unblock_all();
    Ok((
        Server {
            left: None,
            reserved: Duration::ZERO,
            exchange,
            orders,
            thread,
            over,
        },
        signals,
    ))
}

/// Waits for the end, which somebody has to ask for. What it came to, and the time that is left.
fn serve(
    settings: &Settings,
    mut server: Server,
    signals: &SelfPipe,
    wire: &Wire,
    reserved: Duration,
) -> (Drained, Duration) {
    server.reserved = reserved;
    let mut master_is_gone = false;
    let mut terms = 0;
    let mut spare = wire.spare();
    loop {
        let mut waits = vec![Wait::readable(signals), Wait::readable(&server.over)];
        if !master_is_gone {
            waits.push(Wait::readable(wire));
        }
        let before = Instant::now();
        if let Err(error) = fd::poll(&mut waits, server.left.map(|left| left.min(STEP))) {
            log::error(format_args!("poll: {error}"));
        }
        let is_over = waits[1].ready;
        if let Some(left) = &mut server.left {
            *left = left.saturating_sub(before.elapsed().min(STEP + GATE_SLACK));
        }
        if !is_over && server.left == Some(Duration::ZERO) {
            log::error(format_args!(
                "the gate does not leave in time: ending without it"
            ));
            end(exit::FAILED);
        }
        if is_over {
            let drained = server.thread.join().unwrap_or_else(|_| {
                // The panic is in the log. A new worker is better than one that answers nobody.
                end(exit::FAILED)
            });
            return (drained, server.left.unwrap_or(settings.close_wait));
        }
        signals.drain();
        signals::say_what_means_nothing();
        while !master_is_gone {
            match wire.next_order(&mut spare) {
                Heard::Message((Order::Drain { why, within }, heir)) => {
                    server.leave(why, within, heir)
                }
                Heard::Message((Order::Prepare, _)) => server.exchange.set_stopping(),
                Heard::Message((Order::Adopt, Some(source))) => {
                    server.tell(orders::Order::Adopt(source))
                }
                Heard::Message((Order::Inherit, Some(heir))) => {
                    server.tell(orders::Order::Inherit(heir))
                }
                // Its descriptor was lost on the way, for want of room: the other side closes as of old.
                Heard::Message((Order::Adopt | Order::Inherit, None)) => {}
                Heard::Message((Order::Reopen, file)) => {
                    let path = &settings.place.log_file;
                    // None comes from a master of an earlier version, or where there was no room for it.
                    let taken = match &file {
                        Some(file) => log::take_over(file),
                        None => log::reopen(path).map(drop),
                    };
                    if let Err(error) = taken {
                        log::error(format_args!("cannot reopen the log: {error}"));
                    }
                }
                Heard::Message((Order::ReopenAccess, file)) => {
                    let taken = file.map_or(Ok(()), |file| record::take_over(file.as_fd()));
                    if let Err(error) = taken {
                        log::error(format_args!("cannot reopen the access log: {error}"));
                    }
                }
                Heard::Nothing => break,
                Heard::End => {
                    master_is_gone = true;
                    log::stay_with_this_file();
                    record::stay_with_this_file();
                    log::warn(format_args!("the master is gone: draining"));
                    server.leave(Why::Orphaned, settings.close_wait, None);
                }
            }
        }
        // After the orders: connections of another worker may be among them, and a gate that is told to leave may be gone.
        for _ in 0..signal::take(Signal::Term) {
            terms += 1;
            log::info(format_args!("signal TERM: draining"));
            let within = if terms == 1 {
                settings.close_wait
            } else {
                Duration::ZERO
            };
            // The next one need not wait until this one is gone.
            let _ = wire.report(&Report::Leaves(within));
            server.leave(Why::Stop, within, None);
        }
    }
}
