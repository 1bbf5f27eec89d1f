//! Fault injection: each system call of each command fails, n-th occurrence by n-th, and afterwards all of it serves
//! or all of it is gone.
//!
//! `make faults`, or `cargo test --test walk -- all`, makes every injection; without a word it is a sample, the same
//! each time. `list` prints them, `CASE`, as the table prints it, repeats one. First each process of each command is
//! recorded without a fault, several times, and what is in each recording counts. Then, for each call of it, one run
//! per error that this call can really give, and one in which the process is killed there. What is left out, and why,
//! stands in `faults.rs`.
//!
//! With an error: it serves, or it has stopped, with exit status and a message that names the cause; whoever asked has
//! an answer. With a kill: the next start works without help, and what the killed one left behind goes away.
#![allow(clippy::print_stdout, clippy::print_stderr)] // What a test says, it says on the terminal.

mod faults;
mod place;
mod scene;
mod strace;

use scene::{Case, Outcome, SCENES};
use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// One of so many is in the sample.
const SAMPLE: u64 = 12;
/// What is not found in each of so many recordings is chance.
const RECORDINGS: usize = 8;

fn main() -> ExitCode {
    // cargo hands all tests the same words: those that begin with a dash are not for this one.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let has = |word: &str| words.iter().any(|given| given == word);
    let named: Vec<&String> = words.iter().filter(|word| word.contains(':')).collect();
    if !words.is_empty() && !has("all") && !has("list") && named.is_empty() {
        return ExitCode::SUCCESS;
    }
    let version = Command::new("strace")
        .arg("-V")
        .stdin(Stdio::null())
        .output();
    if !version.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: needs strace");
        return match std::env::var_os("CI") {
            Some(_) => ExitCode::FAILURE,
            None => ExitCode::SUCCESS,
        };
    }
    let cases = match cases(&named) {
        Ok(cases) => cases,
        Err(why) => {
            eprintln!("walk: {why}");
            return ExitCode::FAILURE;
        }
    };
    let is_wanted = |case: &Case| match (named.is_empty(), has("all") || has("list")) {
        (false, _) => named
            .iter()
            .any(|name| case.name().starts_with(name.as_str())),
        (true, true) => true,
        (true, false) => fnv(&case.name()) % SAMPLE == 0,
    };
    let all = cases.len();
    let wanted: Vec<Case> = cases.into_iter().filter(is_wanted).collect();
    if has("list") {
        for case in &wanted {
            println!("{}  {}", case.name(), case.args);
        }
        println!("{} injections", wanted.len());
        return ExitCode::SUCCESS;
    }
    println!("{} of {all} injections", wanted.len());
    report(&wanted, &run(&wanted))
}

/// Of FNV-1a, 64 bits: the same in each build.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Every injection there is, in order.
fn cases(named: &[&String]) -> Result<Vec<Case>, String> {
    let is_needed = |walk: scene::Walk, role: scene::Role| {
        let prefix = format!("{}:{}:", walk.name(), role.name());
        let fits = |name: &&String| name.starts_with(&prefix) || prefix.starts_with(name.as_str());
        named.is_empty() || named.iter().any(fits)
    };
    let scenes: Vec<_> = SCENES
        .iter()
        .filter(|(walk, role)| is_needed(*walk, *role))
        .flat_map(|scene| std::iter::repeat_n(scene, RECORDINGS))
        .collect();
    let recorded = parallel(&scenes, |(walk, role)| {
        // A busy machine may be late once.
        scene::record(*walk, *role).or_else(|_| scene::record(*walk, *role))
    });
    let mut cases = Vec::new();
    let recorded: Vec<Result<Vec<strace::Call>, String>> = recorded;
    for (scenes, recordings) in scenes.chunks(RECORDINGS).zip(recorded.chunks(RECORDINGS)) {
        let (walk, role) = *scenes[0];
        let mut found: Vec<BTreeMap<(String, usize), String>> = Vec::new();
        for recording in recordings {
            let name = format!("recording {} of {}", role.name(), walk.name());
            let calls = recording.as_ref().map_err(|why| format!("{name}: {why}"))?;
            found.push(numbered(calls));
        }
        for ((call, number), args) in &found[0] {
            let key = (call.clone(), *number);
            if call.starts_with('-') || found.iter().any(|one| !one.contains_key(&key)) {
                continue;
            }
            let recorded = strace::Call {
                thread: 0,
                name: call.clone(),
                args: args.clone(),
            };
            if let Some(faults) = faults::of(&recorded, *number) {
                if !faults::is_known(call) {
                    eprintln!("walk: {call}: not in the table of errors");
                }
                cases.extend(faults.into_iter().map(|fault| Case {
                    walk,
                    role,
                    call: call.clone(),
                    number: *number,
                    fault,
                    args: args.chars().take(60).collect(),
                }));
            }
        }
    }
    Ok(cases)
}

/// Each call with its number among those of its name in its thread, as `when=` of strace counts.
fn numbered(calls: &[strace::Call]) -> BTreeMap<(String, usize), String> {
    let mut counts: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for call in calls {
        let (name, is_ours) = match call.name.strip_prefix('-') {
            Some(name) => (name, false),
            None => (call.name.as_str(), true),
        };
        let count = counts.entry((call.thread, name)).or_default();
        *count += 1;
        if is_ours {
            found
                .entry((name.to_owned(), *count))
                .or_insert_with(|| call.args.clone());
        }
    }
    found
}

/// Twice as many at a time as there are processors, for most of the time each of them waits.
fn parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let jobs = thread::available_parallelism().map_or(2, usize::from) * 2;
    thread::scope(|scope| {
        for _ in 0..jobs.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else {
                        return;
                    };
                    let result = work(item);
                    done.lock().expect("no job panics").push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no job panics");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

fn run(cases: &[Case]) -> Vec<Outcome> {
    let count = AtomicUsize::new(0);
    let begun = Instant::now();
    parallel(cases, |case| {
        let outcome = scene::run(case);
        if let Outcome::Bad(kind, seen) = &outcome {
            println!("{}: {kind}: {seen}", case.name());
        }
        let count = count.fetch_add(1, Ordering::Relaxed) + 1;
        if count % 100 == 0 {
            println!(
                "{count} of {}, {} s",
                cases.len(),
                begun.elapsed().as_secs()
            );
        }
        outcome
    })
}

/// The table: per process how many injections and what came of them; then everything that is not right, by kind.
fn report(cases: &[Case], outcomes: &[Outcome]) -> ExitCode {
    let mut rows: BTreeMap<_, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut wrong: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (case, outcome) in cases.iter().zip(outcomes) {
        let row = rows.entry((case.walk, case.role)).or_default();
        let kind = match outcome {
            Outcome::Good(kind) => kind,
            Outcome::Bad(kind, seen) => {
                let line = format!(
                    "  cargo test --locked --test walk -- {}\n      {}({}\n      {seen}",
                    case.name(),
                    case.call,
                    case.args
                );
                wrong.entry(kind).or_default().push(line);
                "INCONSISTENT"
            }
        };
        *row.entry(kind).or_default() += 1;
    }
    println!();
    for ((walk, role), row) in &rows {
        let counts = row.iter().map(|(kind, count)| format!("{count} {kind}"));
        let total: usize = row.values().sum();
        let counts = Vec::from_iter(counts).join(", ");
        println!(
            "{:11} {:11} {total:5} injections: {counts}",
            walk.name(),
            role.name()
        );
    }
    let count: usize = wrong.values().map(Vec::len).sum();
    for (kind, lines) in &wrong {
        println!("\n{kind}: {}", lines.len());
        for line in lines {
            println!("{line}");
        }
    }
    println!("\n{} injections, {count} inconsistent", cases.len());
    match count {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
