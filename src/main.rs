//! The ready binary: the files of a directory; without one a page, a demonstration, and the health check that every
//! hade application has.
#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

use hade::{App, Response};

const PAGE: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>hade</title>\n\
    <h1>It works</h1>\n<p>This is hade. Try <a href=\"/demo/demo\">/demo/demo</a> and <a href=\"/healthz\">/healthz</a>.\n</html>\n";

fn app() -> App {
    App::new("hade")
        .version(env!("CARGO_PKG_VERSION"))
        .fixed("/", Response::html(PAGE))
        .fixed("/demo/demo", Response::json("\"this is demo for all\"\n"))
        .stand_in()
}

hade::bare_main!(app);
