//! What requests and answers mean by RFC 9110, where that is not a matter of framing.

use crate::support::{Place, get};

#[test]
fn an_answer_that_has_no_body_by_its_status_is_sent_without_one() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    for (status, length) in [(204, None), (205, Some("0")), (304, None)] {
        for method in ["GET", "HEAD"] {
            wire.send(format!(
                "{method} /status?is={status} HTTP/1.1\r\nHost: t\r\n\r\n"
            ));
            let answer = wire.answer_without_body();
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("Content-Length"), length, "{method} {status}");
            assert_eq!(answer.header("Transfer-Encoding"), None);
        }
    }
    // Nothing stands between these answers.
    wire.send(get("/hello"));
    assert_eq!(wire.answer().text(), "Hello, World!");
}

#[test]
fn the_host_is_that_of_the_target_where_it_has_one() {
    let place = Place::demo();
    let site = place.start(&[]);
    let mut wire = site.connect();
    for (line, field, host) in [
        ("/host HTTP/1.1", "Host: h:1\r\n", r#"Some("h:1")"#),
        ("/host HTTP/1.1", "Host:\r\n", r#"Some("")"#),
        ("/host HTTP/1.0", "Connection: keep-alive\r\n", "None"),
        (
            "http://T:80/host HTTP/1.1",
            "HOST: other\r\n",
            r#"Some("T:80")"#,
        ),
        (
            "http://[::1]/host HTTP/1.1",
            "Host:\r\n",
            r#"Some("[::1]")"#,
        ),
    ] {
        wire.send(format!("GET {line}\r\nA: b\r\n{field}C: d\r\n\r\n"));
        assert_eq!(wire.answer().text(), format!("{host} {host}\n"), "{line}");
    }
}

#[test]
fn what_is_asked_for_by_https_is_answered_to_a_trusted_proxy_alone() {
    let place = Place::demo();
    for (trusted, statuses) in [("", [421, 421, 200]), ("127.0.0.1", [200, 200, 200])] {
        let trusted = format!("app.trusted_proxies={trusted}");
        let site = place.start(&["--set", &trusted]);
        for (target, status) in ["https://h/hello", "HttpS://h:443/hello", "http://h/hello"]
            .iter()
            .zip(statuses)
        {
            let mut wire = site.connect();
            wire.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
            assert_eq!(wire.answer().status, status, "{target}, {trusted}");
        }
        place.app(&["stop"]).ok();
    }
}
