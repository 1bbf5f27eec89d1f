//! What idle connections cost in the memory of the process that has them: hade, nginx and plain tiny_http. The kernel's
//! own memory for each socket is not counted; it is the same for all of them.

use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::contenders::{self, Contender, Running};
use crate::servers::Root;
use crate::table::Table;
use crate::watch::{self, Footprint};
use crate::{Wish, verdict};

/// Nobody is closed while this looks, and all have a place.
const SETTINGS: [&str; 3] = [
    "header_timeout=3600",
    "idle_timeout=3600",
    "max_connections=12000",
];
/// A connection of plain tiny_http is a thread and two descriptors.
const MOST_TINY: usize = 5000;
/// Requests before the first look, so that what the server sets up once is not part of the price.
const WARM_UP: usize = 50;
/// Bytes of a connection at the most.
const PRICE: f64 = 4096.0;
/// Threads that may come with all connections together: handlers for requests that overlapped by chance.
const THREADS: f64 = 4.0;

/// What a client has sent before it falls silent.
#[derive(Clone, Copy)]
enum Sent {
    Request,
    Nothing,
    HalfHead,
}

impl Sent {
    const ALL: [Self; 3] = [Self::Request, Self::Nothing, Self::HalfHead];

    fn name(self) -> &'static str {
        match self {
            Self::Request => "after a request",
            Self::Nothing => "nothing sent",
            Self::HalfHead => "half a head sent",
        }
    }
}

pub fn run(hade: Option<&Path>, wish: &Wish) -> Result<(), String> {
    let counts: &[usize] = match wish.quick {
        true => &[1000],
        false => &[1000, 5000, 10_000],
    };
    let contenders = contenders::present(hade, wish.alone);
    let root = Root::new(contenders.iter().filter_map(Contender::server))?;
    let mut table = Table::new(contenders.iter().map(Contender::name).collect());
    let mut verdicts = Vec::new();
    let mut failures = Vec::new();
    for sent in Sent::ALL {
        for &count in counts {
            let label = |what: &str| format!("{count}, {}: {what}", sent.name());
            let rows = [
                (label("RSS each, bytes"), 0),
                (label("PSS each, bytes"), 0),
                (label("RSS before, MiB"), 2),
                (label("RSS then, MiB"), 2),
                (label("more threads"), 0),
                (label("more descriptors"), 0),
            ];
            rows.iter()
                .for_each(|(label, decimals)| table.sum(label, *decimals));
            for (column, contender) in contenders.iter().enumerate() {
                if contender.server().is_none() && count > MOST_TINY {
                    continue;
                }
                let [before, then] = match measure(contender, &root.path, sent, count) {
                    Ok(seen) => seen,
                    Err(reason) => {
                        let line = format!("{}: {}", label("not measured"), reason);
                        if contender.is_hade() {
                            failures.push(line.clone());
                        }
                        println!("{line}");
                        continue;
                    }
                };
                let each = |mib: f64| mib * f64::from(1 << 20) / count as f64;
                let rss = each(then.rss_mib - before.rss_mib);
                let threads = then.threads as f64 - before.threads as f64;
                let values = [
                    rss,
                    each(then.pss_mib - before.pss_mib),
                    before.rss_mib,
                    then.rss_mib,
                    threads,
                    then.descriptors as f64 - before.descriptors as f64,
                ];
                for ((label, _), value) in rows.iter().zip(values) {
                    table.add(label, column, value);
                }
                if contender.is_hade() {
                    let good = rss < PRICE && threads <= THREADS;
                    let line = format!(
                        "{rss:.0} bytes each, less than {PRICE}; {threads} threads in all, at most {THREADS}"
                    );
                    let line = format!("{} {}", verdict(good), label(&line));
                    if !good {
                        failures.push(line.clone());
                    }
                    verdicts.push(line);
                }
            }
        }
    }
    println!("the worker's memory; what the kernel keeps for each socket is not counted");
    table.print(1);
    verdicts.iter().for_each(|verdict| println!("{verdict}"));
    match failures.is_empty() {
        true => Ok(()),
        false => Err(failures.join("; ")),
    }
}

fn measure(
    contender: &Contender,
    root: &Path,
    sent: Sent,
    count: usize,
) -> Result<[Footprint; 2], String> {
    let running = contender.start(root, &SETTINGS)?;
    let (address, path) = (running.address(), contender.path());
    for _ in 0..WARM_UP {
        if !watch::answers(address, path) {
            return Err("no answer before there is any connection".to_string());
        }
    }
    let before = settled(&running)?;
    let opened: Result<Vec<TcpStream>, String> = (0..count)
        .map(|number| {
            open(&running, contender, sent).map_err(|e| format!("connection {number}: {e}"))
        })
        .collect();
    let opened = opened?;
    let worker = running.worker().ok_or("its worker is gone")?;
    let all = watch::wait_until(|| {
        let now = watch::footprint(worker).unwrap_or_default();
        now.descriptors >= before.descriptors + count
    });
    let then = settled(&running)?;
    if !all {
        let has = then.descriptors.saturating_sub(before.descriptors);
        return Err(format!("only {has} more descriptors"));
    }
    if !watch::answers(address, path) {
        return Err("no answer beside the idle connections".to_string());
    }
    drop(opened);
    Ok([before, then])
}

fn open(running: &Running, contender: &Contender, sent: Sent) -> std::io::Result<TcpStream> {
    use std::io::Write;
    let mut stream = watch::connect(running.address())?;
    match sent {
        Sent::Nothing => {}
        Sent::Request => watch::get(&mut stream, contender.path(), "keep-alive")?,
        Sent::HalfHead => {
            let path = contender.path();
            let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: a");
            stream.write_all(head.as_bytes())?;
        }
    }
    Ok(stream)
}

/// Once two looks in a row see the same memory.
fn settled(running: &Running) -> Result<Footprint, String> {
    let worker = running.worker().ok_or("its worker is gone")?;
    let mut last = Footprint::default();
    watch::wait_every(Duration::from_millis(200), || {
        let now = watch::footprint(worker).unwrap_or_default();
        let same = now.rss_mib == last.rss_mib && now.descriptors == last.descriptors;
        last = now;
        same
    });
    // The first look may have come in the middle of something that lasts as long as a pause.
    thread::sleep(Duration::from_millis(200));
    watch::footprint(worker).ok_or_else(|| "its worker is gone".to_string())
}
