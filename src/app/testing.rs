//! An application without its process and its socket, for tests: [`TestClient`].
#![forbid(unsafe_code)]

use super::build::App;
use crate::http::request::{OwnSettings, Request, Worker};
use crate::http::response::Response;
use crate::http::routes::Routes;
use crate::service::Life;
use crate::settings::{Overrides, Settings};

/// An application as a test asks it; from [`App::test`]. Requests are answered by the thread that asks.
///
/// ```
/// use hade::{App, Request};
///
/// fn app() -> App {
///     App::new("greeter").get("/hello", |request| match request.param("name") {
///         Some(name) => (200, format!("Hello, {name}!\n")),
///         None => (400, "who?\n".to_owned()),
///     })
/// }
///
/// # /*
/// #[test]
/// # */
/// fn greets_by_name() {
///     let client = app().test();
///     assert_eq!(client.get("/hello?name=Uma").into_text(), "Hello, Uma!\n");
///     assert_eq!(client.get("/hello").status(), 400);
///     assert_eq!(client.send(Request::new("POST", "/hello")).status(), 405);
/// }
/// # greets_by_name();
/// ```
pub struct TestClient {
    routes: Routes,
    life: Option<Life>,
    worker: Worker,
    max_body: u64,
}

impl TestClient {
    #[track_caller]
    pub(super) fn new<S>(app: App<S>, set: &[(&str, &str)]) -> TestClient {
        let (mut routes, life, own) = (app.routes, app.life, app.own);
        if let Some(mistake) = routes.finish().first() {
            panic!("{mistake}");
        }
        let mut overrides = Overrides::default();
        let mut named: OwnSettings = own.into_iter().map(|own| (own.name, own.default)).collect();
        for (name, value) in set {
            match named.iter_mut().find(|(own, _)| own == name) {
                Some((_, own)) => *own = (*value).to_owned(),
                None => overrides
                    .set
                    .push(((*name).to_owned(), (*value).to_owned())),
            }
        }
        let settings = Settings::without_file(&overrides, &|_| None);
        let settings = settings.and_then(|settings| {
            let absolute = settings.absolute();
            absolute.map_err(|error| crate::error::Error::failed(error.to_string()))
        });
        let settings = settings.unwrap_or_else(|error| panic!("{error}"));
        if let Err(why) = routes.check_files(&settings) {
            panic!("{why}");
        }
        routes.open_files(&settings);
        let worker = Worker::new(named);
        if let Some(Err(why)) = life.as_ref().map(|life| (life.boot)(&worker)) {
            panic!("{why}");
        }
        TestClient {
            routes,
            life,
            worker,
            max_body: settings.max_body as u64,
        }
    }

    /// Asks for a page.
    ///
    /// ```
    /// let client = hade::App::new("site").get("/", |_| "Hello\n").test();
    /// assert_eq!(client.get("/").into_text(), "Hello\n");
    /// ```
    ///
    /// # Panics
    /// A target that no client could send.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.send(Request::new("GET", target))
    }

    /// Asks anything. A body that is longer than [`App::max_body`] or `app.max_body` allows is refused as it would be.
    ///
    /// ```
    /// use hade::{App, Request};
    ///
    /// let client = App::new("echo")
    ///     .post("/", |request| -> hade::Result<String> { Ok(request.text()?.to_owned()) })
    ///     .test();
    /// assert_eq!(client.send(Request::new("POST", "/").with_body("hi")).into_text(), "hi");
    /// ```
    pub fn send(&self, mut request: Request) -> Response {
        request.worker = Some(self.worker.clone());
        let (method, path) = (request.method(), request.path());
        let most = self.routes.body_limit(method, path, self.max_body);
        request.bound_body(most.unwrap_or(u64::MAX));
        self.routes.answer(&mut request)
    }

    /// What handlers see of a stop, by [`Worker::is_leaving`] and [`Request::is_draining`].
    ///
    /// ```
    /// let client = hade::App::new("site").test();
    /// client.start_leaving();
    /// assert_eq!(client.get("/healthz").status(), 503);
    /// ```
    pub fn start_leaving(&self) {
        self.worker.set_ending();
        self.worker.set_leaving(true);
    }
}

impl Drop for TestClient {
    fn drop(&mut self) {
        if let Some(life) = &self.life {
            (life.stop)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_their_limits() {
        let app = || {
            App::new("limits")
                .post("/a", |request| {
                    request.body().unwrap_or(b"").len().to_string()
                })
                .post("/b", |request| {
                    request.body().unwrap_or(b"").len().to_string()
                })
                .max_body("/b", 3)
        };
        let status = |client: &TestClient, path: &str, body: &str| {
            let answer = client.send(Request::new("POST", path).with_body(body));
            (answer.status(), answer.into_text())
        };
        let client = app().test_with(&[("max_body", "5")]);
        for (path, body, expected) in [("/a", "12345", "5"), ("/b", "123", "3")] {
            assert_eq!(status(&client, path, body), (200, expected.to_owned()));
            let longer = format!("{body}x");
            assert_eq!(status(&client, path, &longer).0, 413, "{path}");
        }
    }
}
