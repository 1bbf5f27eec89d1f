//! A start that fails leaves no directory that it made and that has nothing in it.

use crate::support::Place;
use std::net::TcpListener;

#[test]
fn a_start_whose_address_is_not_to_be_had_makes_nothing() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    for args in [&["start"][..], &["start", "-d"], &["restart"]] {
        for address in [&address, "192.0.2.1:0"] {
            let place = Place::new();
            let said = place.app(&[args, &["--address", address]].concat());
            assert!(said.failed(1).contains("cannot listen on "), "{args:?}");
            assert!(!place.path("run").exists(), "{args:?} {address}");
        }
    }
}

#[test]
fn a_start_that_fails_takes_the_empty_directories_away_that_it_made() {
    for flags in [&[][..], &["-d"]] {
        let place = Place::new();
        place.write("kept/file", "");
        // A directory where the lock is to be.
        place.write("run/app.lock/x", "");
        let args = [
            &[
                "start",
                "--address",
                "127.0.0.1:0",
                "--set",
                "log_file=kept/log",
            ],
            flags,
        ];
        place.app(&args.concat()).failed(1);
        assert!(place.path("run/app.lock/x").exists() && place.path("kept/file").exists());
        // No name of a file may be as long as that.
        let place = Place::new();
        let long = format!("pid_file=a/b/{}", "x".repeat(300));
        let args = [
            &["start", "--address", "127.0.0.1:0", "--set", &long],
            flags,
        ];
        place.app(&args.concat()).failed(1);
        assert!(!place.path("a").exists());
        // What has something in it stays.
        let place = Place::demo();
        let mut command =
            place.command(&[&["app", "start", "--address", "127.0.0.1:0"], flags].concat());
        command.env("DEMO_BOOT", "fail");
        assert_eq!(crate::support::run(&mut command).code, Some(1));
        assert!(place.path("run").exists());
    }
}
