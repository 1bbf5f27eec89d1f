//! Settings, commands, a version and mistakes of a program's own.

use crate::support::{Place, Site, run};

#[test]
fn a_setting_of_ones_own_comes_by_file_variable_and_flag() {
    let place = Place::demo();
    let site = place.start(&[]);
    assert_eq!(site.get("/greeting").text(), "Hello\n");
    place.write("etc/app.conf", "greeting = from the file\n");
    place.app(&["restart"]).ok();
    assert_eq!(site.get("/greeting").text(), "from the file\n");
    let mut command = place.command(&["app", "restart"]);
    run(command.env("GREETING", "from a variable")).ok();
    assert_eq!(site.get("/greeting").text(), "from a variable\n");
    place
        .app(&["restart", "--set", "greeting=from a flag"])
        .ok();
    assert_eq!(site.get("/greeting").text(), "from a flag\n");
    // As the others, it is kept.
    place.app(&["restart"]).ok();
    assert_eq!(site.get("/greeting").text(), "from a flag\n");
    assert!(
        place
            .app(&["check"])
            .ok()
            .starts_with("demo: settings are good")
    );
    let help = place.app(&["start", "--help"]).ok();
    let line = "\n  greeting            how to greet, GREETING in the environment; default Hello\n";
    assert!(help.contains(line), "{help}");
    let wrong = place.app(&["check", "--set", "greetin=x"]).failed(2);
    assert!(wrong.contains("did you mean \"greeting\"?"), "{wrong}");
    place.write("etc/app.conf", "greetin = x\n");
    let wrong = place.app(&["check"]).failed(1);
    assert_eq!(
        wrong,
        "demo: etc/app.conf:1: unknown key \"greetin\"; did you mean \"greeting\"?\n"
    );
}

/// It may be a secret, and anybody can read a command line.
#[test]
fn a_variable_of_a_restart_is_kept_and_stands_in_no_command_line() {
    let place = Place::demo();
    let site = place.start(&["--set", "greeting=first"]);
    for (restart, word) in [
        (&["restart"][..], "s3cret"),
        (&["restart", "--cold"], "s4cret"),
    ] {
        let mut command = place.command(&[&["app"], restart].concat());
        run(command.env("GREETING", word)).ok();
        let pid = place.pid().unwrap();
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(
            !words.contains(word) && !words.contains("greeting"),
            "{words:?}"
        );
        let now = Site {
            pid,
            url: format!(
                "http://{}",
                place.fact("address").trim_start_matches("http://")
            ),
        };
        assert_eq!(now.get("/greeting").text(), format!("{word}\n"), "{site:?}");
        place.app(&["restart"]).ok();
        assert_eq!(now.get("/greeting").text(), format!("{word}\n"));
    }
}

#[test]
fn what_cannot_have_been_meant_is_said_at_the_start_with_its_line() {
    for (path, why) in [
        ("noslash", "it does not begin with a slash"),
        ("/todo/:id", "\":id\": a parameter is {id}"),
        (
            "/q?x=1",
            "'?' is not part of a path; Request::param has what stands behind a ?",
        ),
        ("/hello", "GET /hello is there twice"),
    ] {
        let place = Place::demo();
        for command in ["start", "check", "restart"] {
            let mut command = place.command(&["app", command]);
            let said = run(command.env("DEMO_MISTAKE", path)).failed(1);
            assert!(said.starts_with("demo: tests/demo/main.rs:"), "{said}");
            assert!(said.ends_with(&format!("{why}\n")), "{said}");
        }
    }
}

#[test]
fn a_program_with_a_mistake_can_still_look_and_stop() {
    let place = Place::demo();
    let site = place.start(&[]);
    let of_wrong_one = |word: &str| {
        let mut command = place.command(&["app", word]);
        run(command.env("DEMO_MISTAKE", "noslash"))
    };
    of_wrong_one("restart").failed(1);
    assert_eq!(site.get("/hello").status, 200);
    of_wrong_one("state").ok();
    of_wrong_one("stop").ok();
    site.wait_refused();
}

#[test]
fn a_command_of_ones_own_has_settings_arguments_and_a_log() {
    let place = Place::demo();
    place.write("etc/app.conf", "greeting = Hi\n");
    let done = place.command(&["greet", "Uma"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "Hi, Uma\n");
    assert_eq!(String::from_utf8_lossy(&done.stderr), "info greeting\n");
    assert_eq!(done.status.code(), Some(0));
    let mut command = place.command(&["--set", "greeting=Oh", "greet", "Uma"]);
    assert_eq!(
        String::from_utf8_lossy(&command.output().unwrap().stdout),
        "Oh, Uma\n"
    );
    assert_eq!(
        run(&mut place.command(&["greet"])).failed(1),
        "demo: greet: whom?\n"
    );
    let help = run(&mut place.command(&["--help"])).ok();
    let listed = "\nCommands of demo itself:\n  greet             greet somebody\n";
    assert!(help.ends_with(listed), "{help}");
    let help = run(&mut place.command(&["greet", "--help"])).ok();
    assert_eq!(help, "Usage: demo greet [<words>]\n\ngreet somebody\n");
    let version = run(&mut place.command(&["--version"])).ok();
    assert_eq!(
        version,
        concat!("demo, made with hade ", env!("CARGO_PKG_VERSION"), "\n")
    );
    // Beside it there are those that every program has.
    let site: Site = place.start(&[]);
    assert_eq!(site.get("/greeting").text(), "Hi\n");
}
