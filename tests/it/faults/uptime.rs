//! How long something has run, where the clock is set meanwhile: boards without a clock chip start in 1970.

use crate::support::{Foreground, Place, has, run, signal, wait_until};
use std::process::Command;

#[test]
fn a_clock_that_is_set_changes_no_uptime() {
    if !has("faketime") {
        return;
    }
    let place = Place::demo();
    place.put_demo("prog");
    let set = |days: i32| {
        place.write("time.new", format!("{:+}", days * 86_400));
        std::fs::rename(place.path("time.new"), place.path("time")).unwrap();
    };
    let mut ask = Command::new("faketime");
    ask.args(["-f", "+0", "sh", "-c", "echo $LD_PRELOAD"]);
    let library = run(&mut ask).ok();
    set(-20_000);
    let args = ["start", "--address", "127.0.0.1:0", "--set"];
    let mut command = place.command_of("prog", &[&args[..], &["log_file=run/app.log"]].concat());
    command
        .env("LD_PRELOAD", library.trim())
        .env("FAKETIME_TIMESTAMP_FILE", place.path("time"))
        .env("FAKETIME_NO_CACHE", "1")
        .env("DONT_FAKE_MONOTONIC", "1");
    let mut app = Foreground::of(command);
    assert!(place.log().starts_with("197"), "{}", place.log());
    let restarts = || place.log().matches(" restarted, ").count();
    // In the middle of a restart, and after it; forth, and back.
    for (times, days) in [(1, 0), (2, -20_000), (3, 0)] {
        signal(app.site.pid, "HUP");
        set(days);
        wait_until(20, "it has restarted", || restarts() == times);
        let json = place.app(&["state", "--json"]).ok();
        let seconds: Vec<f64> = json
            .split("\"uptime_seconds\":")
            .skip(1)
            .map(|rest| rest.split([',', '}']).next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(seconds.len(), 2, "master and worker: {json}");
        assert!(
            seconds.iter().all(|uptime| (0.0..600.0).contains(uptime)),
            "{json}"
        );
        let log = place.log();
        let took = log
            .rsplit(", in ")
            .next()
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        assert!(
            (0.0..60.0).contains(&took.parse::<f64>().unwrap()),
            "{took}"
        );
        let at = json.split("\"at_unix_seconds\":").nth(1).unwrap();
        let at: f64 = at.split(',').next().unwrap().parse().unwrap();
        let now = if days == 0 { 1.6e9..1e11 } else { 0.0..1e9 };
        assert!(
            now.contains(&at),
            "{at} is not of the calendar as it is now"
        );
    }
    let screen = place.app(&["state"]).ok();
    let last = screen
        .lines()
        .find(|line| line.contains("last restart"))
        .unwrap();
    assert!(last.contains(" s ago: restarted, "), "{screen}");
    app.signal("TERM");
    assert_eq!(app.end(), Some(0));
}
