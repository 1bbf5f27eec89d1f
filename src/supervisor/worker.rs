//! A worker's life: inherit, boot, serve, say ready, drain, leave. Everything that can go wrong lives here: handlers,
//! threads, memory. Its main thread only waits for orders, signals and the end.
#![forbid(unsafe_code)]

use super::wire::{Heard, Order, Report, Wire};
use crate::app::Service;
use crate::error::exit;
use crate::http::exchange::Exchange;
use crate::http::gate::{self, Bounds, Drained, Gate, Leave, Why};
use crate::http::server::Pool;
use crate::ledger::Slot;
use crate::log;
use crate::settings::Settings;
use crate::signals::SelfPipe;
use crate::sys::fd::{self, Wait};
use crate::sys::process::{self, Pid, exit_now};
use crate::sys::signal::{self, Signal};
use crate::sys::{memory, title};
use std::any::Any;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What the master gives a worker.
pub(crate) struct Birth {
    pub master: Pid,
    pub listener: OwnedFd,
    pub wire: Wire,
    pub slot: Slot,
}

/// Runs a worker in a freshly forked child, with all signals blocked, and never comes back.
pub(crate) fn run(service: &Service, settings: &Settings, birth: Birth) -> ! {
    // Unwinding any further would end in the master's loop, in the wrong process.
    let Birth {
        master,
        listener,
        wire,
        slot,
    } = birth;
    let code = catch_unwind(AssertUnwindSafe(|| {
        live(service, settings, master, listener, &wire, slot)
    }));
    exit_now(code.unwrap_or_else(|panic| {
        let _ = wire.report(&Report::Failed(format!("panic: {}", message_of(&*panic))));
        exit::FAILED
    }))
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
    listener: OwnedFd,
    wire: &Wire,
    slot: Slot,
) -> u8 {
    let begun = Instant::now();
    title::set_name(&service.title(" worker"));
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("tiny_http").to_owned();
        let (place, message) = (panic.location(), message_of(panic.payload()));
        let place = place.map_or_else(String::new, |place| {
            format!(" at {}:{}", place.file(), place.line())
        });
        log::error(format_args!("panic in {name}{place}: {message}"));
    }));
    // A boot function may take its time, or for ever, and meanwhile nobody here would notice the master's death.
    process::die_with_parent(true);
    if process::parent() != Some(master) {
        return exit::FAILED;
    }
    let started = boot(service, settings, listener, slot);
    let (server, signals) = match started {
        Ok(started) => started,
        Err(why) => {
            let _ = wire.report(&Report::Failed(why));
            return exit::FAILED;
        }
    };
    log::info(format_args!(
        "worker ready, in {:.1} ms",
        begun.elapsed().as_secs_f64() * 1000.0
    ));
    process::die_with_parent(false);
    if wire.report(&Report::Ready).is_err() {
        return exit::FAILED;
    }
    let drained = serve(settings, server, &signals, wire);
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

/// A gate that runs.
struct Server {
    exchange: Arc<Exchange>,
    orders: Sender<gate::Order>,
    thread: JoinHandle<Drained>,
    /// Readable when the thread is over.
    over: OwnedFd,
}

impl Server {
    fn leave(&self, why: Why, within: Duration, heir: Option<OwnedFd>) {
        let deadline = Instant::now() + within;
        self.tell(gate::Order::Leave(Leave {
            deadline,
            why,
            heir,
        }));
    }

    fn tell(&self, order: gate::Order) {
        let _ = self.orders.send(order);
        self.exchange.bell.ring();
    }
}

fn boot(
    service: &Service,
    settings: &Settings,
    listener: OwnedFd,
    slot: Slot,
) -> Result<(Server, SelfPipe), String> {
    let text = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    // Signals sent to a whole group reach the worker too; there it is the master that decides. Only TERM is for it.
    let signals = [
        Signal::Term,
        Signal::Int,
        Signal::Quit,
        Signal::Hup,
        Signal::Usr1,
    ];
    let signals = SelfPipe::new(&signals).map_err(text("cannot make a pipe"))?;
    signal::reset(Signal::Child);
    signal::forget_all();
    if let Some(boot) = &service.boot {
        // It may start threads, and these may start programs: neither is to inherit a full mask.
        signal::unblock_all();
        boot()?;
        signal::block_all();
    }
    memory::return_what_is_large();
    // With every signal blocked here, the threads started below have them blocked too.
    let exchange = Arc::new(
        Exchange::new(slot, settings.threads).map_err(text("cannot make an epoll instance"))?,
    );
    let directory = settings.place.pid_file.parent().unwrap_or(Path::new("."));
    let directory = directory
        .strip_prefix(&settings.place.base)
        .unwrap_or(directory);
    let routes = Arc::clone(&service.routes);
    let pool = Pool::start(
        directory,
        Arc::clone(&exchange),
        Arc::clone(&routes),
        settings.threads,
    )
    .map_err(text("cannot start tiny_http"))?;
    title::set_name(&service.title(" worker"));
    let (orders, inbox) = channel();
    let gate = Gate::new(
        Arc::clone(&exchange),
        pool,
        routes,
        Bounds::new(settings),
        listener,
        inbox,
    )
    .map_err(text("cannot watch the listener"))?;
    let (over, running) = fd::pipe().map_err(text("cannot make a pipe"))?;
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
            exchange,
            orders,
            thread,
            over,
        },
        signals,
    ))
}

/// Waits for the end, which somebody has to ask for.
fn serve(settings: &Settings, server: Server, signals: &SelfPipe, wire: &Wire) -> Drained {
    let mut master_is_gone = false;
    let mut terms = 0;
    loop {
        let mut waits = vec![Wait::readable(signals), Wait::readable(&server.over)];
        if !master_is_gone {
            waits.push(Wait::readable(wire));
        }
        if let Err(error) = fd::poll(&mut waits, None) {
            log::error(format_args!("poll: {error}"));
        }
        if waits[1].ready {
            return server.thread.join().unwrap_or_else(|_| {
                // The panic is in the log. A new worker is better than one that answers nobody.
                exit_now(exit::FAILED)
            });
        }
        signals.drain();
        for _ in 0..signal::take(Signal::Term) {
            terms += 1;
            log::info(format_args!("signal TERM: draining"));
            let within = if terms == 1 {
                settings.close_wait
            } else {
                Duration::ZERO
            };
            server.leave(Why::Stop, within, None);
        }
        while !master_is_gone {
            match wire.next_order() {
                Heard::Message((Order::Drain { restart, within }, heir)) => {
                    server.leave(if restart { Why::Restart } else { Why::Stop }, within, heir)
                }
                Heard::Message((Order::Adopt, Some(source))) => {
                    server.tell(gate::Order::Adopt(source))
                }
                // Its descriptor was lost on the way, for want of room: the other side closes as of old.
                Heard::Message((Order::Adopt, None)) => {}
                Heard::Message((Order::Reopen, _)) => {
                    if let Err(error) = log::reopen(&settings.place.log_file) {
                        log::error(format_args!("cannot reopen the log: {error}"));
                    }
                }
                Heard::Nothing => break,
                Heard::End => {
                    master_is_gone = true;
                    log::warn(format_args!("the master is gone: draining"));
                    server.leave(Why::Orphaned, settings.close_wait, None);
                }
            }
        }
    }
}
