//! The HTTP clients of other languages, a round trip each: Python, Node and Perl. Each test is a script that asks, checks
//! what it gets, and says "ok".

use crate::clients::{leaves_well, tool};
use crate::support::{Place, Site, has, run, skip};

/// Runs a script by its interpreter, with the address and the URL of the site; it says "ok".
#[track_caller]
fn script(place: &Place, site: &Site, interpreter: &[&str], text: &str) {
    place.write("script", text);
    let mut command = tool(place, interpreter[0]);
    command.args(&interpreter[1..]).arg("script");
    let done = run(command.args([site.address(), &site.url]));
    assert_eq!(
        (done.code, done.out.as_str()),
        (Some(0), "ok\n"),
        "{}",
        done.err
    );
}

const HTTP_CLIENT: &str = r#"
import http.client, sys
c = http.client.HTTPConnection(sys.argv[1], timeout=20)
def ask(method, path, *args, **more):
    c.request(method, path, *args, **more)
    answer = c.getresponse()
    return answer.status, answer.read(), answer
c.connect()
sock = c.sock
assert ask("GET", "/hello")[:2] == (200, b"Hello, World!")
status, body, answer = ask("HEAD", "/bytes?n=123")
assert (status, body, answer.headers["Content-Length"]) == (200, b"", "123")
assert ask("POST", "/echo", b"x" * 65536)[1] == b"x" * 65536
for chunks in [[], [b"a"], [b"a", b"bc" * 1000], [b"z" * 99] * 600]:
    assert ask("POST", "/echo", iter(chunks), encode_chunked=True,
               headers={"Transfer-Encoding": "chunked"})[1] == b"".join(chunks)
with open("file", "wb+") as file:
    file.write(b"from a file" * 3000)
    file.seek(0)
    assert ask("POST", "/echo", file)[1] == b"from a file" * 3000
assert ask("GET", "/nowhere")[0] == 404
assert ask("PUT", "/hello", b"body")[0] == 405
assert ask("GET", "/panic")[0] == 500
assert ask("OPTIONS", "*")[0] == 204
assert len(ask("GET", "/bytes?n=5000000")[1]) == 5000000
assert c.sock is sock, "all on one connection"
assert ask("GET", "/hello", headers={"Connection": "close"})[0] == 200
assert c.sock is None
c.connect()
c.request("GET", "/bytes?n=9000000")
answer = c.getresponse()
assert len(answer.read(1000)) == 1000
c.close()
# A client of HTTP/1.0 alone.
class Old(http.client.HTTPConnection):
    _http_vsn, _http_vsn_str = 10, "HTTP/1.0"
old = Old(sys.argv[1], timeout=20)
old.request("GET", "/hello")
answer = old.getresponse()
assert answer.read() == b"Hello, World!" and answer.will_close
old.request("POST", "/echo", b"abc", {"Connection": "keep-alive"})
answer = old.getresponse()
assert answer.read() == b"abc" and not answer.will_close
print("ok")
"#;

#[test]
fn pythons_http_client_keeps_its_connection() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    script(&place, &site, &["python3"], HTTP_CLIENT);
    assert_eq!(place.log().matches("panic in handler").count(), 1);
}

const URLLIB: &str = r#"
import sys, urllib.error, urllib.request
def ask(path, data=None, **more):
    return urllib.request.urlopen(urllib.request.Request(sys.argv[2] + path, data, **more), timeout=20)
with ask("/hello") as answer:
    assert (answer.status, answer.read()) == (200, b"Hello, World!")
    assert answer.headers["Connection"] == "close"
assert ask("/echo", b"a=b&c").read() == b"a=b&c"
assert ask("/echo", iter([b"a", b"b" * 5000]), headers={"Transfer-Encoding": "chunked"}).read() == b"a" + b"b" * 5000
assert ask("/bytes?n=7", method="HEAD").headers["Content-Length"] == "7"
assert len(ask("/bytes?n=4000000").read()) == 4000000
try:
    ask("/nowhere")
    sys.exit("no error")
except urllib.error.HTTPError as error:
    assert (error.code, error.read()) == (404, b"404 Not Found: no such page\n")
print("ok")
"#;

#[test]
fn pythons_urllib_closes_every_time() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    script(&place, &site, &["python3"], URLLIB);
    leaves_well(&place);
}

/// A Python that has requests: the system's own, for which Debian packages it, or the first in the path.
fn python_with_requests(place: &Place) -> Option<&'static str> {
    let has_it = |python: &&str| {
        let mut import = tool(place, "sh");
        import.args(["-c", "exec \"$0\" -c 'import requests' 2>&-", python]);
        run(&mut import).code == Some(0)
    };
    let found = ["/usr/bin/python3", "python3"].into_iter().find(has_it);
    if found.is_none() {
        skip("needs python3-requests");
    }
    found
}

const REQUESTS: &str = r#"
import requests, sys
url = sys.argv[2]
with requests.Session() as session:
    for _ in range(3):
        answer = session.get(url + "/hello", timeout=20)
        assert (answer.status_code, answer.text) == (200, "Hello, World!")
    assert session.head(url + "/bytes?n=99", timeout=20).headers["Content-Length"] == "99"
    assert session.post(url + "/echo", data={"a": "b c"}, timeout=20).text == "a=b+c"
    assert session.post(url + "/echo", json=[1, None], timeout=20).json() == [1, None]
    form = session.post(url + "/echo", files={"f": ("n", b"content")}, timeout=20).text
    assert 'name="f"; filename="n"' in form and "\r\n\r\ncontent\r\n" in form
    def pieces():
        for n in range(100):
            yield b"%d," % n
    assert session.post(url + "/echo", data=pieces(), timeout=20).content == b"".join(pieces())
    assert session.post(url + "/echo", data=b"f" * 65536, timeout=20).content == b"f" * 65536
    with session.get(url + "/bytes?n=6000000", stream=True, timeout=20) as answer:
        assert sum(map(len, answer.iter_content(10000))) == 6000000
    assert session.get(url + "/nowhere", timeout=20).status_code == 404
    assert session.options(url + "/hello", timeout=20).headers["Allow"] == "GET, HEAD"
    assert session.get(url + "/hello", params={"a": "\u00e4 &"}, timeout=20).ok
    pool, = session.adapters["http://"].poolmanager.pools._container.values()
    assert pool.num_connections == 1, pool.num_connections
    # Given up in the middle: a new connection, and no harm.
    session.get(url + "/bytes?n=9000000", stream=True, timeout=20).close()
    assert session.get(url + "/hello", timeout=20).ok
    try:
        session.get(url + "/slow?ms=3000", timeout=0.1)
        sys.exit("no timeout")
    except requests.exceptions.ReadTimeout:
        pass
    assert session.get(url + "/hello", timeout=20).ok
print("ok")
"#;

#[test]
fn pythons_requests_share_a_session() {
    let place = Place::demo();
    let Some(python) = python_with_requests(&place) else {
        return;
    };
    let site = place.start(&[]);
    script(&place, &site, &[python], REQUESTS);
    leaves_well(&place);
}

const PYTHON_LARGE: &str = r#"
import http.client, sys
c = http.client.HTTPConnection(sys.argv[1], timeout=20)
body = bytes(range(250)) * 2000
for data, headers in [(body, {}), ((body[n:n + 7000] for n in range(0, len(body), 7000)), {"Transfer-Encoding": "chunked"})]:
    c.request("POST", "/echo", data, headers, encode_chunked=bool(headers))
    answer = c.getresponse()
    assert (answer.status, answer.read() == body) == (200, True), answer.status
    assert not answer.will_close
print("ok")
"#;

#[test]
fn python_uploads_500_kb() {
    if !has("python3") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    script(&place, &site, &["python3"], PYTHON_LARGE);
    assert_eq!(place.count("accepted"), 1);
}

const NODE_FETCH: &str = r#"
const assert = require('node:assert'), url = process.argv[3];
const text = async (path, options) => (await fetch(url + path, options)).text();
(async () => {
  for (let n = 0; n < 3; n++) assert.equal(await text('/hello'), 'Hello, World!');
  const head = await fetch(url + '/bytes?n=123', {method: 'HEAD'});
  assert.equal(head.headers.get('content-length'), '123');
  assert.equal(await text('/echo', {method: 'POST', body: 'a\u00e4'}), 'a\u00e4');
  assert.equal(await text('/echo', {method: 'POST', body: new URLSearchParams({a: 'b c'})}), 'a=b+c');
  assert.equal(await text('/echo', {method: 'POST'}), '');
  const pieces = new ReadableStream({
    start(to) { for (let n = 0; n < 50; n++) to.enqueue(Buffer.from(`${n},`)); to.close(); },
  });
  const counted = [...Array(50).keys()].join() + ',';
  assert.equal(await text('/echo', {method: 'POST', body: pieces, duplex: 'half'}), counted);
  const form = new FormData();
  form.set('field', 'value');
  assert.match(await text('/echo', {method: 'POST', body: form}), /name="field"\r\n\r\nvalue\r\n/);
  assert.equal((await text('/bytes?n=5000000')).length, 5000000);
  assert.equal((await fetch(url + '/nowhere')).status, 404);
  assert.equal((await fetch(url + '/hello', {method: 'DELETE'})).status, 405);
  const many = await Promise.all([...Array(40).keys()].map(n => text(`/bytes?n=${n}`)));
  assert(many.every((body, n) => body.length === n));
  for (const [path, wait] of [['/slow?ms=3000', 50], ['/bytes?n=30000000', 0]]) {
    const control = new AbortController();
    const asked = fetch(url + path, {signal: control.signal});
    if (wait) setTimeout(() => control.abort(), wait);
    else asked.then(() => control.abort());
    await assert.rejects(asked.then(answer => answer.text()), {name: 'AbortError'});
  }
  assert.equal(await text('/hello'), 'Hello, World!');
  console.log('ok');
  process.exit(0);
})();
"#;

const NODE_HTTP: &str = r#"
const assert = require('node:assert'), http = require('node:http'), url = process.argv[3];
const agent = new http.Agent({keepAlive: true, maxSockets: 1});
const ask = (path, options = {}, body = []) => new Promise((done, failed) => {
  const request = http.request(url + path, {agent, ...options}, answer => {
    let text = '';
    answer.setEncoding('latin1').on('data', more => { text += more; }).on('error', failed)
      .on('end', () => done({status: answer.statusCode, text, reused: request.reusedSocket}));
  }).on('error', failed).on('continue', () => { request.told = true; body.forEach(piece => request.write(piece)); request.end(); });
  if (options.headers?.Expect) return request.flushHeaders();
  body.forEach(piece => request.write(piece));
  request.end();
});
(async () => {
  const first = await ask('/hello');
  assert.deepEqual(first, {status: 200, text: 'Hello, World!', reused: false});
  const next = async (expected, ...how) => {
    const {status, text, reused} = await ask(...how);
    assert.deepEqual([status, text, reused], [...expected, true]);
  };
  await next([200, 'Hello, World!'], '/hello');
  await next([200, ''], '/bytes?n=50', {method: 'HEAD'});
  await next([200, 'abcd'], '/echo', {method: 'POST'}, ['ab', 'cd']);
  await next([200, 'abc'], '/echo', {method: 'POST', headers: {'Content-Length': 3}}, ['a', 'bc']);
  await next([200, 'told'], '/echo', {method: 'POST', headers: {Expect: '100-continue'}}, ['to', 'ld']);
  await next([200, 'x'.repeat(3000000)], '/bytes?n=3000000');
  await next([404, '404 Not Found: no such page\n'], '/nowhere');
  const last = await ask('/hello', {headers: {Connection: 'close'}});
  assert.deepEqual([last.status, last.reused], [200, true]);
  assert.equal((await ask('/hello')).reused, false);
  agent.destroy();
  console.log('ok');
})();
"#;

#[test]
fn nodes_fetch_streams_and_aborts() {
    if !has("node") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    script(&place, &site, &["node"], NODE_FETCH);
    leaves_well(&place);
}

#[test]
fn nodes_http_agent_keeps_its_socket() {
    if !has("node") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    script(&place, &site, &["node"], NODE_HTTP);
    assert_eq!(place.count("accepted"), 2);
    leaves_well(&place);
}

const NODE_LARGE: &str = r#"
const assert = require('node:assert'), url = process.argv[3];
const body = Buffer.alloc(500000, 'node');
(async () => {
  const sent = await fetch(url + '/echo', {method: 'POST', body});
  assert.equal(sent.status, 200);
  assert(body.equals(Buffer.from(await sent.arrayBuffer())));
  let at = 0;
  const pieces = new ReadableStream({
    pull(to) {
      if (at === body.length) return to.close();
      to.enqueue(body.subarray(at, at += 10000));
    },
  });
  const streamed = await fetch(url + '/echo', {method: 'POST', body: pieces, duplex: 'half'});
  assert.equal(streamed.status, 200);
  assert(body.equals(Buffer.from(await streamed.arrayBuffer())));
  console.log('ok');
  process.exit(0);
})();
"#;

#[test]
fn node_uploads_500_kb() {
    if !has("node") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    script(&place, &site, &["node"], NODE_LARGE);
}

const PERL: &str = r#"
use strict; use warnings; use HTTP::Tiny;
my $url = $ARGV[1];
my $http = HTTP::Tiny->new(timeout => 20, keep_alive => 1);
sub ask { my ($method, $path, $more) = @_; $http->request($method, $url . $path, $more || {}) }
sub is { my ($got, $wanted) = @_; $got eq $wanted or die "got '$got' instead of '$wanted'" }
is(ask('GET', '/hello')->{content}, 'Hello, World!') for 1 .. 3;
is(ask('HEAD', '/bytes?n=42')->{headers}{'content-length'}, 42);
is(ask('POST', '/echo', {content => 'p' x 65536})->{content}, 'p' x 65536);
my @pieces = map { "$_," } 1 .. 40;
is(ask('POST', '/echo', {content => sub { shift @pieces }})->{content}, join('', map { "$_," } 1 .. 40));
is($http->post_form("$url/echo", {a => 'b c'})->{content}, 'a=b+c');
my $size = 0;
ask('GET', '/bytes?n=3000000', {data_callback => sub { $size += length $_[0] }});
is($size, 3000000);
is(ask('GET', '/nowhere')->{status}, 404);
print "ok\n";
"#;

#[test]
fn perls_http_tiny_keeps_its_connection() {
    if !has("perl") {
        return;
    }
    let place = Place::demo();
    let site = place.start(&[]);
    script(&place, &site, &["perl"], PERL);
    assert_eq!(place.count("accepted"), 1);
    leaves_well(&place);
}
