//! Waiting for what is to come, and for nothing to come. The one sleep is here.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest that anything is waited for on a connection. It is there so that a test ends.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One step of waiting.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Waits for a condition, and fails with its name when it does not come: on a quiet machine three times so long, since
/// this is there so that a test ends, and on a busy one longer.
#[track_caller]
pub fn wait_until(seconds: u64, what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        let (waited, limit) = (begun.elapsed(), Duration::from_secs(seconds));
        assert!(
            waited < 3 * limit || waited < busyness() * limit,
            "never came in {waited:.1?}: {what}"
        );
        pause();
    }
}

/// What was begun then is over sooner than any time-out would have ended it.
#[track_caller]
pub fn was_soon(begun: Instant, millis: u64) {
    is_short(begun.elapsed(), millis);
}

/// On a quiet machine something took less than so many milliseconds, on a busy one than so many times them.
#[track_caller]
pub fn is_short(took: Duration, millis: u64) {
    let busyness = busyness();
    assert!(
        took < Duration::from_millis(millis) * busyness,
        "took {took:.1?} instead of {millis} ms, on a machine that is {busyness} times as slow as a quiet one"
    );
}

/// Does what goes well only if this process comes in time itself, by a second of the application's perhaps. Where it did
/// not go well, and a thread beside it that only pauses was kept away for a quarter of that time in all, it is done again.
pub fn in_time(millis: u64, what: impl Fn()) {
    for last in [false, false, false, false, true] {
        let (over, limit) = (AtomicBool::new(false), Duration::from_millis(millis / 4));
        let (result, was_late) = std::thread::scope(|scope| {
            let beside = scope.spawn(|| {
                let mut late = Duration::ZERO;
                while !over.load(Ordering::SeqCst) {
                    let begun = Instant::now();
                    pause();
                    late += begun.elapsed().saturating_sub(Duration::from_millis(11));
                }
                late > limit
            });
            let result = catch_unwind(AssertUnwindSafe(&what));
            over.store(true, Ordering::SeqCst);
            (result, beside.join().unwrap_or(false))
        });
        match result {
            Ok(()) => return,
            Err(panic) if last || !was_late => resume_unwind(panic),
            Err(_) => println!("this process came too late, again"),
        }
    }
}

/// How many times longer things may take here and now than on a machine that has nothing else to do: twice as many as
/// threads that want each of its processors, proc_loadavg(5).
fn busyness() -> u32 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut fields = text.split(' ');
    let lately: f64 = fields
        .next()
        .and_then(|one| one.parse().ok())
        .unwrap_or(0.0);
    let running = fields.nth(2).and_then(|one| one.split('/').next());
    let now: f64 = running.and_then(|one| one.parse().ok()).unwrap_or(0.0);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    ((2.0 * lately.max(now) / processors as f64) as u32).max(1)
}

/// Lets some time pass during which something is to hold.
#[track_caller]
pub fn holds_for(millis: u64, what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_millis(millis);
    while Instant::now() < until {
        assert!(condition(), "no longer so: {what}");
        pause();
    }
}
