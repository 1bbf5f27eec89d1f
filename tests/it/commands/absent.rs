//! An address that no interface has yet: what is to serve there starts all the same, says so, and serves when it comes.

use crate::look::{alone, has_namespaces};
use crate::support::{Place, has, run};

fn serves_when_it_comes(address: &str, host: &str, command: &str) {
    let place = Place::new();
    let script = format!(
        r#"
        ip link set lo up
        "$0" app check --address {address}
        "$0" app start -d --address {address}
        "$0" app state
        "$0" app restart > restarted
        curl -sS --connect-timeout 1 -m 1 http://{address}/healthz 2> /dev/null || echo nobody
        {command}
        curl -sS --retry 9 --retry-all-errors --retry-delay 1 http://{address}/healthz 2> /dev/null
        "$0" app state | grep 'is not on' || echo there
        "$0" app stop > stopped
        "#
    );
    let said = run(&mut place.wrapped(&alone(&script), &[])).ok();
    let absent = format!("{host} is not on this machine yet\n");
    let (checked, rest) = said.split_once("hade: started").unwrap();
    assert_eq!(
        checked,
        format!("hade: settings are good, address {address}\nhade: {absent}")
    );
    let (started, rest) = rest.split_once("hade: running").unwrap();
    assert!(
        started.contains(&format!("\n  address  {absent}")),
        "{started}"
    );
    let (state, rest) = rest.split_once("nobody\n").unwrap();
    assert!(
        state.contains(&format!("\n  address      {absent}")),
        "{state}"
    );
    assert_eq!(rest, "ok\nthere\n");
    assert!(
        place.log().contains(&format!(" {absent}")),
        "{}",
        place.log()
    );
}

#[test]
fn an_address_may_come_after_the_start() {
    if !(has_namespaces() && has("ip") && has("curl")) {
        return;
    }
    let command = "ip address add 192.0.2.7/32 dev lo";
    serves_when_it_comes("192.0.2.7:7001", "192.0.2.7", command);
    let command = "ip -6 address add 2001:db8::7/128 dev lo nodad";
    serves_when_it_comes("[2001:db8::7]:7001", "2001:db8::7", command);
}

#[test]
fn a_service_does_not_move_to_an_address_that_is_not_there() {
    if !(has_namespaces() && has("ip") && has("curl")) {
        return;
    }
    let place = Place::new();
    let script = r#"
        ip link set lo up
        "$0" app start -d --address 127.0.0.1:7001 > started
        "$0" app restart --address 192.0.2.7:7001 2> refused || echo given up
        curl -sS http://127.0.0.1:7001/healthz
        "$0" app state --json | grep -o '"address_is_there":[a-z]*'
        ip address add 192.0.2.7/32 dev lo
        "$0" app restart --address 192.0.2.7:7001 > restarted
        curl -sS http://192.0.2.7:7001/healthz
        "$0" app stop > stopped
    "#;
    let said = run(&mut place.wrapped(&alone(script), &[])).ok();
    assert_eq!(said, "given up\nok\n\"address_is_there\":true\nok\n");
    let why = place.read("refused");
    assert!(
        why.contains("no interface of this machine has that address"),
        "{why}"
    );
}
