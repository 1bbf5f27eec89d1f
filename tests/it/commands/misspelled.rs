//! A variable that was meant for hade and is not one of its: said once, and nothing else changes.

use crate::support::{Place, run, workers};

const SAID: &str = "hade: APP_WORKRS is not read; did you mean APP_WORKERS?\n";

#[test]
fn a_misspelled_variable_is_said_once_by_who_would_read_it() {
    let place = Place::new();
    let with = |args: &[&str]| {
        let mut command = place.command(&[&["app"], args].concat());
        command
            .env("APP_WORKRS", "2")
            .env("APP_ENV", "production")
            .env("APP_NAME", "shop")
            .env("APP_PORT", "80");
        run(&mut command)
    };
    let checked = with(&["check"]);
    assert_eq!((checked.code, checked.err.as_str()), (Some(0), SAID));
    let started = with(&["start", "-d", "--address", "127.0.0.1:0"]);
    assert_eq!((started.code, started.err.as_str()), (Some(0), SAID));
    assert_eq!(workers(place.pid().unwrap()).len(), 1);
    // The check of a restart has the environment of the start, and its words are for other things.
    with(&["state"]).ok();
    place.app(&["restart"]).ok();
    place.write("etc/app.conf", "app.workers = none\n");
    let said = place.app(&["restart"]).failed(1);
    assert!(said.contains("app.workers"), "{said}");
    with(&["stop"]).ok();
}
