//! How an application is put together: [`App`]. What it does then is told in the files of the commands.
#![forbid(unsafe_code)]

use super::call::{self, Call, Command};
use super::run;
use super::testing::TestClient;
use crate::http::output::contain;
use crate::http::pattern::{Handler, Page};
use crate::http::request::{Request, Worker};
use crate::http::response::{IntoResponse, Response};
use crate::http::routes::Routes;
use crate::service::{Life, Service, base_name, program_path};
use crate::settings::{self, Own};
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError, RwLock};

/// An HTTP application: handlers in, the commands `start`, `state`, `stop`, `restart` and `check` out.
///
/// ```no_run
/// use hade::{App, Response};
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     App::new("greeter").get("/hello", |_| Response::text("Hello, World!")).main()
/// }
/// ```
///
/// Handlers take the request and return anything that [becomes a response](IntoResponse). After [`App::boot`] or
/// [`App::with_state`] they take what that returned as well: `|request, state|`. The type says so: `App<With<Notes>>`.
///
/// What cannot have been meant, such as a path without its slash, two handlers for one method and path, or a limit for a
/// path that nobody has, is an error of the commands `start`, `restart` and `check`, with its line in the program.
#[must_use = "it does nothing before its main is called"]
pub struct App<S = Without> {
    pub(super) name: String,
    pub(super) routes: Routes,
    pub(super) life: Option<Life>,
    pub(super) own: Vec<Own>,
    version: Option<String>,
    commands: Vec<Command>,
    state: S,
}

/// An application whose handlers take the request alone.
///
/// ```
/// use hade::{App, Without};
///
/// fn app() -> App<Without> {
///     App::new("greeter").get("/", |_| "Hello, World!\n")
/// }
/// // Which is what App says by itself.
/// let app: App = app();
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Without;

/// An application with state of this type, which its handlers take as a reference.
///
/// ```
/// use hade::{App, With};
/// use std::sync::Mutex;
///
/// struct Notes(Mutex<Vec<String>>);
///
/// fn app() -> App<With<Notes>> {
///     App::new("notes")
///         .with_state(|_| Notes(Mutex::default()))
///         .get("/count", |_, notes| notes.0.lock().unwrap().len().to_string())
/// }
/// assert_eq!(app().test().get("/count").into_text(), "0");
/// ```
pub struct With<S> {
    held: Arc<Held<S>>,
    stops: Stops<S>,
}

type Stops<S> = Arc<RwLock<Vec<Box<dyn Fn(&S) + Send + Sync>>>>;

/// The state of a worker, from its boot to its end.
struct Held<S>(RwLock<Option<Arc<S>>>);

impl<S> Held<S> {
    fn get(&self) -> Arc<S> {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(held.as_ref().expect("a worker boots before it serves"))
    }

    fn put(&self, state: Option<Arc<S>>) -> Option<Arc<S>> {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *held, state)
    }
}

/// What a handler with state is to the routes.
fn stateful<S, F, R>(state: &With<S>, handler: F) -> Handler
where
    S: Send + Sync + 'static,
    F: Fn(&mut Request, &S) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    let held = Arc::clone(&state.held);
    Box::new(move |request| handler(request, &held.get()).into_response())
}

fn stateless<F, R>(handler: F) -> Handler
where
    F: Fn(&mut Request) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    Box::new(move |request| handler(request).into_response())
}

impl App {
    /// An application without routes of its own. The name is what its messages begin with. `/healthz` is there
    /// from the start: 200 while the service serves, restarts included, 503 from the moment it stops.
    ///
    /// ```
    /// let client = hade::App::new("greeter").test();
    /// assert_eq!(client.get("/healthz").into_text(), "ok\n");
    /// ```
    pub fn new(name: impl Into<String>) -> App {
        App {
            name: name.into(),
            routes: Routes::default(),
            life: None,
            own: Vec::new(),
            version: None,
            commands: Vec::new(),
            state: Without,
        }
    }

    /// Runs in every new worker before it takes requests: the place to open connections and to start threads, which
    /// must not exist before (a process with threads cannot fork safely). What it returns is what the handlers after it
    /// get: a pool, a database, a cache. An error, or more than ten seconds, and the worker counts as failed: the start
    /// fails with these words, and at a restart the workers of before go on.
    ///
    /// Every worker has a state of its own, and while a restart is under way the old ones serve beside the new: what is to
    /// be the same for all is in a database, or in files. When a worker has answered its last request its state is
    /// dropped; see [`App::on_stop`].
    ///
    /// ```
    /// use hade::App;
    /// use std::fs::File;
    ///
    /// let app = App::new("words")
    ///     .setting("words_file", "/usr/share/dict/words", "what is looked up")
    ///     .boot(|worker| File::open(worker.setting("words_file")))
    ///     .get("/size", |_, file| -> hade::Result<String> {
    ///         Ok(format!("{} bytes\n", file.metadata()?.len()))
    ///     });
    /// ```
    pub fn boot<S, E, F>(self, boot: F) -> App<With<S>>
    where
        S: Send + Sync + 'static,
        E: Display,
        F: Fn(&Worker) -> Result<S, E> + Send + Sync + 'static,
    {
        let held = Arc::new(Held(RwLock::new(None)));
        let stops: Stops<S> = Arc::default();
        let (booted, stopped, hooks) = (Arc::clone(&held), Arc::clone(&held), Arc::clone(&stops));
        let life = Life {
            boot: Box::new(move |worker| {
                let state = boot(worker).map_err(|error| error.to_string())?;
                booted.put(Some(Arc::new(state)));
                Ok(())
            }),
            stop: Box::new(move || {
                let Some(state) = stopped.put(None) else {
                    return;
                };
                let hooks = hooks.read().unwrap_or_else(PoisonError::into_inner);
                for hook in hooks.iter() {
                    contain(|| hook(&state));
                }
                contain(|| drop(state));
            }),
            takes_time: false,
        };
        App {
            name: self.name,
            routes: self.routes,
            life: Some(life),
            own: self.own,
            version: self.version,
            commands: self.commands,
            state: With { held, stops },
        }
    }

    /// The same as [`App::boot`] where nothing can fail.
    ///
    /// ```
    /// use hade::App;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// let client = App::new("counter")
    ///     .with_state(|_| AtomicU64::new(1))
    ///     .get("/", |_, count| count.fetch_add(1, Ordering::Relaxed).to_string())
    ///     .test();
    /// assert_eq!(client.get("/").into_text(), "1");
    /// assert_eq!(client.get("/").into_text(), "2");
    /// ```
    pub fn with_state<S, F>(self, make: F) -> App<With<S>>
    where
        S: Send + Sync + 'static,
        F: Fn(&Worker) -> S + Send + Sync + 'static,
    {
        self.boot(move |worker| Ok::<S, String>(make(worker)))
    }
}

/// The methods that take handlers, for both kinds of applications.
macro_rules! handlers {
    (
        impl [$($generic:ident)?] $app:ty { $wrap:expr }
        get { $(#[$get:meta])* }
        post { $(#[$post:meta])* }
        put { $(#[$put:meta])* }
        patch { $(#[$patch:meta])* }
        delete { $(#[$delete:meta])* }
        route { $(#[$route:meta])* }
        not_found { $(#[$not_found:meta])* }
    ) => {
        impl $(<$generic: Send + Sync + 'static>)? $app {
            $(#[$get])*
            #[track_caller]
            pub fn get<F, R>(self, path: &str, handler: F) -> Self
            where
                F: Fn(&mut Request $(, &$generic)?) -> R + Send + Sync + 'static,
                R: IntoResponse,
            {
                self.route("GET", path, handler)
            }

            $(#[$post])*
            #[track_caller]
            pub fn post<F, R>(self, path: &str, handler: F) -> Self
            where
                F: Fn(&mut Request $(, &$generic)?) -> R + Send + Sync + 'static,
                R: IntoResponse,
            {
                self.route("POST", path, handler)
            }

            $(#[$put])*
            #[track_caller]
            pub fn put<F, R>(self, path: &str, handler: F) -> Self
            where
                F: Fn(&mut Request $(, &$generic)?) -> R + Send + Sync + 'static,
                R: IntoResponse,
            {
                self.route("PUT", path, handler)
            }

            $(#[$patch])*
            #[track_caller]
            pub fn patch<F, R>(self, path: &str, handler: F) -> Self
            where
                F: Fn(&mut Request $(, &$generic)?) -> R + Send + Sync + 'static,
                R: IntoResponse,
            {
                self.route("PATCH", path, handler)
            }

            $(#[$delete])*
            #[track_caller]
            pub fn delete<F, R>(self, path: &str, handler: F) -> Self
            where
                F: Fn(&mut Request $(, &$generic)?) -> R + Send + Sync + 'static,
                R: IntoResponse,
            {
                self.route("DELETE", path, handler)
            }

            $(#[$route])*
            #[track_caller]
            pub fn route<F, R>(mut self, method: &str, path: &str, handler: F) -> Self
            where
                F: Fn(&mut Request $(, &$generic)?) -> R + Send + Sync + 'static,
                R: IntoResponse,
            {
                let handler = $wrap(&self.state, handler);
                self.routes.add(method, path, Page::Handler(handler));
                self
            }

            $(#[$not_found])*
            pub fn not_found<F, R>(mut self, handler: F) -> Self
            where
                F: Fn(&mut Request $(, &$generic)?) -> R + Send + Sync + 'static,
                R: IntoResponse,
            {
                let handler = $wrap(&self.state, handler);
                self.routes.set_not_found(handler);
                self
            }
        }
    };
}

handlers! {
    impl [] App<Without> { |_: &Without, handler| stateless(handler) }
    get {
        /// Answers `GET` and `HEAD` of this path. Handlers are called by several threads at a time; one that panics is
        /// answered 500.
        ///
        /// `{name}` in a path stands for one name, which [`Request::path_param`] reads, and `{*name}` at its end for all the
        /// rest. The most specific route has a path: `/users/me` goes before `/users/{id}`, and that before `/{*rest}`.
        ///
        /// ```
        /// use hade::App;
        ///
        /// let client = App::new("greeter")
        ///     .get("/hello", |_| "Hello, World!\n")
        ///     .get("/hello/{name}", |request| -> hade::Result<String> {
        ///         let name: String = request.path_param("name")?;
        ///         Ok(format!("Hello, {name}!\n"))
        ///     })
        ///     .test();
        /// assert_eq!(client.get("/hello/Uma").into_text(), "Hello, Uma!\n");
        /// ```
    }
    post {
        /// Answers `POST` of this path.
        ///
        /// ```
        /// use hade::{App, Request};
        ///
        /// let client = App::new("notes")
        ///     .post("/notes", |request| -> hade::Result<(u16, String)> {
        ///         let text = request.text()?;
        ///         Ok((201, format!("kept {text}\n")))
        ///     })
        ///     .test();
        /// let answer = client.send(Request::new("POST", "/notes").with_body("buy milk"));
        /// assert_eq!((answer.status(), answer.into_text().as_str()), (201, "kept buy milk\n"));
        /// ```
    }
    put {
        /// Answers `PUT` of this path.
        ///
        /// ```
        /// use hade::{App, Response};
        /// App::new("notes").put("/notes/{id}", |_| Response::new(204));
        /// ```
    }
    patch {
        /// Answers `PATCH` of this path.
        ///
        /// ```
        /// use hade::{App, Response};
        /// App::new("notes").patch("/notes/{id}", |_| Response::new(204));
        /// ```
    }
    delete {
        /// Answers `DELETE` of this path.
        ///
        /// ```
        /// use hade::{App, Response};
        /// App::new("notes").delete("/notes/{id}", |_| Response::new(204));
        /// ```
    }
    route {
        /// Answers any method of this path. A path is compared byte by byte, without the query, in the form that
        /// [`Request::path`] has, whatever spelling is given or sent. `HEAD` is answered by the handler of `GET` and `OPTIONS`
        /// with the methods that the path takes, unless they have handlers of their own. A method that no path takes and no RFC
        /// has as a standard one is answered 501, another one that the path does not take 405.
        ///
        /// ```
        /// use hade::{App, Request, Response};
        ///
        /// let client = App::new("cache").route("PURGE", "/cache", |_| Response::new(204)).test();
        /// assert_eq!(client.send(Request::new("PURGE", "/cache")).status(), 204);
        /// assert_eq!(client.get("/cache").header("Allow"), Some("PURGE"));
        /// ```
    }
    not_found {
        /// Answers what no route and no file is there for, of any method. Where [`App::files`] or `app.root` has the path, its
        /// `404.html` does that. [`App::after`] is for other errors of hade's own, such as 405, 413 and 500.
        ///
        /// ```
        /// use hade::App;
        ///
        /// let client = App::new("site").not_found(|request| (404, format!("no {}\n", request.path()))).test();
        /// assert_eq!(client.get("/none").into_text(), "no /none\n");
        /// ```
    }
}

handlers! {
    impl [S] App<With<S>> { stateful }
    get {
        /// As [`App::get`] without state, with it as one argument more.
        ///
        /// ```
        /// use hade::App;
        /// App::new("site").with_state(|_| 7).get("/", |_, number| format!("{number}\n"));
        /// ```
    }
    post {
        /// Answers `POST` of this path.
        ///
        /// ```
        /// use hade::App;
        /// use std::sync::Mutex;
        ///
        /// App::new("notes")
        ///     .with_state(|_| Mutex::new(Vec::new()))
        ///     .post("/notes", |request, notes| -> hade::Result<(u16, &str)> {
        ///         notes.lock().unwrap().push(request.text()?.to_owned());
        ///         Ok((201, "kept\n"))
        ///     });
        /// ```
    }
    put {
        /// Answers `PUT` of this path.
        ///
        /// ```
        /// use hade::App;
        /// App::new("site").with_state(|_| 7).put("/", |_, number| format!("{number}\n"));
        /// ```
    }
    patch {
        /// Answers `PATCH` of this path.
        ///
        /// ```
        /// use hade::App;
        /// App::new("site").with_state(|_| 7).patch("/", |_, number| format!("{number}\n"));
        /// ```
    }
    delete {
        /// Answers `DELETE` of this path.
        ///
        /// ```
        /// use hade::App;
        /// App::new("site").with_state(|_| 7).delete("/", |_, number| format!("{number}\n"));
        /// ```
    }
    route {
        /// Answers any method of this path; see [`App::route`] without state.
        ///
        /// ```
        /// use hade::App;
        /// App::new("site").with_state(|_| 7).route("LOCK", "/", |_, number| format!("{number}\n"));
        /// ```
    }
    not_found {
        /// Answers what no route and no file is there for; see [`App::not_found`] without state.
        ///
        /// ```
        /// use hade::App;
        /// App::new("site").with_state(|_| 7).not_found(|_, number| (404, format!("none, {number}\n")));
        /// ```
    }
}

impl App {
    /// Is asked before every handler of the paths that are this one or below it, `/` for all: it lets the request pass by
    /// `Ok`, or answers in the handler's place by `Err`. Hooks are asked in the order in which they were given, before
    /// anybody knows whether there is such a page: files and 404s are behind them as well.
    ///
    /// None has hade's own `/healthz`, `/metrics` and `/status`; a route of the program at `/healthz` has them.
    ///
    /// ```
    /// use hade::{App, Request, Response};
    ///
    /// let client = App::new("site")
    ///     .before("/admin", |request| match request.basic_auth() {
    ///         Some(login) if login.is("admin", "secret") => Ok(()),
    ///         _ => Err(Response::unauthorized("the admin pages")),
    ///     })
    ///     .get("/admin/users", |_| "everybody\n")
    ///     .test();
    /// assert_eq!(client.get("/admin/users").status(), 401);
    /// assert_eq!(client.get("/admin/none").status(), 401);
    /// assert_eq!(client.get("/none").status(), 404);
    /// ```
    #[track_caller]
    pub fn before<F, R>(mut self, path: &str, hook: F) -> App
    where
        F: Fn(&mut Request) -> Result<(), R> + Send + Sync + 'static,
        R: IntoResponse,
    {
        let hook = move |request: &mut Request| hook(request).err().map(R::into_response);
        self.routes.add_before(path, Box::new(hook));
        self
    }

    /// Gets every answer of the paths that are this one or below it, `/` for all, and returns the one that is sent: those
    /// of handlers, of other hooks and of files, and hade's own 404, 405, 413 and 500, which [`Response::refusal`] tells
    /// from the others. Hooks are asked in the order in which they were given.
    ///
    /// What is no request, or has no time or no room, is refused before it comes so far: 400, 408, 431, 503.
    ///
    /// ```
    /// use hade::App;
    ///
    /// let client = App::new("site")
    ///     .after("/", |_, response| response.with_header("X-Frame-Options", "DENY"))
    ///     .test();
    /// assert_eq!(client.get("/none").header("X-Frame-Options"), Some("DENY"));
    /// ```
    #[track_caller]
    pub fn after<F, R>(mut self, path: &str, hook: F) -> App
    where
        F: Fn(&Request, Response) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        let hook = move |request: &Request, response| hook(request, response).into_response();
        self.routes.add_after(path, Box::new(hook));
        self
    }
}

impl<S: Send + Sync + 'static> App<With<S>> {
    /// Is asked before every handler; see [`App::before`] without state.
    ///
    /// ```
    /// use hade::{App, Response};
    ///
    /// struct Tokens(Vec<String>);
    ///
    /// App::new("api")
    ///     .with_state(|_| Tokens(vec!["s3cret".to_owned()]))
    ///     .before("/api", |request, tokens| match tokens.0.iter().any(|token| request.has_bearer(token)) {
    ///         true => Ok(()),
    ///         false => Err((401, "a token is asked for\n")),
    ///     });
    /// ```
    #[track_caller]
    pub fn before<F, R>(mut self, path: &str, hook: F) -> Self
    where
        F: Fn(&mut Request, &S) -> Result<(), R> + Send + Sync + 'static,
        R: IntoResponse,
    {
        let held = Arc::clone(&self.state.held);
        let hook = move |request: &mut Request| {
            let passed = hook(request, &held.get());
            passed.err().map(R::into_response)
        };
        self.routes.add_before(path, Box::new(hook));
        self
    }

    /// Gets every answer; see [`App::after`] without state.
    ///
    /// ```
    /// use hade::App;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// App::new("site").with_state(|_| AtomicU64::new(0)).after("/", |_, response, count| {
    ///     let count = count.fetch_add(1, Ordering::Relaxed);
    ///     response.with_header("X-Count", count.to_string())
    /// });
    /// ```
    #[track_caller]
    pub fn after<F, R>(mut self, path: &str, hook: F) -> Self
    where
        F: Fn(&Request, Response, &S) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        let held = Arc::clone(&self.state.held);
        let hook =
            move |request: &Request, response| hook(request, response, &held.get()).into_response();
        self.routes.add_after(path, Box::new(hook));
        self
    }

    /// Runs in every worker that leaves, when its last request is answered or cut: what is in memory alone is to be kept
    /// now. It has until `app.close_wait` is over, of which the requests leave it a second, or a quarter where that is
    /// less. Then the state is dropped, and the process ends.
    ///
    /// ```
    /// use hade::App;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// App::new("counter").with_state(|_| AtomicU64::new(0)).on_stop(|count| {
    ///     hade::log::info(format_args!("{} calls", count.load(Ordering::Relaxed)));
    /// });
    /// ```
    pub fn on_stop(mut self, stop: impl Fn(&S) + Send + Sync + 'static) -> Self {
        if let Some(life) = &mut self.life {
            life.takes_time = true;
        }
        let mut stops = self
            .state
            .stops
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        stops.push(Box::new(stop));
        drop(stops);
        self
    }
}

impl<S> App<S> {
    /// Answers `GET` and `HEAD` of this path with the same answer each time. No handler's thread is needed for it, so that
    /// it is as quick as a file, and comes however busy the handlers are. Where a hook of the program's covers the path,
    /// a handler's thread gives it all the same.
    ///
    /// ```
    /// use hade::{App, Response};
    ///
    /// App::new("site")
    ///     .fixed("/robots.txt", "User-agent: *\nDisallow: /private/\n")
    ///     .fixed("/old", Response::redirect("/new").with_status(308))
    ///     .get("/new", |_| "Hello, World!\n");
    /// ```
    ///
    /// A file or a stream can be sent only once: such an answer is an error of the commands.
    #[track_caller]
    pub fn fixed(mut self, path: &str, response: impl IntoResponse) -> App<S> {
        let response = response.into_response();
        if response.is_in_memory() {
            self.routes
                .add("GET", path, Page::Fixed(Arc::new(response)));
        } else {
            let why = "is a file or a stream, which cannot be sent twice";
            self.routes.mistake(format!("the answer of {path} {why}"));
        }
        self
    }

    /// Answers with the files of a directory what begins with this path: `/assets` has `/assets/logo.svg` from
    /// `logo.svg` in it, and `/` everything that no handler has. A relative path starts from the base directory. The
    /// rules are those of `app.root`, and so are the settings; that one, where it is set, takes the place of `/`.
    ///
    /// The directory must be there when the program starts. It is opened by its path for each request, so it may be a
    /// link that a deployment turns.
    ///
    /// ```
    /// hade::App::new("site").files("/assets", "public/assets").get("/", |_| "Hello\n");
    /// ```
    #[track_caller]
    pub fn files(mut self, path: &str, directory: impl Into<PathBuf>) -> App<S> {
        self.routes.add_files(path, directory.into());
        self
    }

    /// The pages so far are there only until somebody has files to show: where `app.root` is set, or [`App::files`] has
    /// the path, they are gone. Those with parameters stay.
    ///
    /// ```
    /// hade::App::new("site").get("/", |_| "It works\n").stand_in();
    /// ```
    pub fn stand_in(mut self) -> App<S> {
        self.routes.let_stand_in();
        self
    }

    /// Gives the bodies of this path's requests a limit of their own, in bytes, instead of `app.max_body`. Longer ones
    /// are answered 413 before they are read. The path is written as that of its route.
    ///
    /// ```
    /// use hade::{App, Response};
    ///
    /// App::new("share")
    ///     .put("/files/{name}", |_| Response::new(204))
    ///     .max_body("/files/{name}", 1 << 30);
    /// ```
    #[track_caller]
    pub fn max_body(mut self, path: &str, bytes: u64) -> App<S> {
        self.routes.limit(path, bytes);
        self
    }

    /// Does what the command line says, prints the one error if there is one, and returns the exit status.
    ///
    /// No thread may have been started before. A daemon closes the descriptors that were inherited and do not have
    /// close-on-exec; those that the program has opened itself stay open.
    ///
    /// ```no_run
    /// fn main() -> std::process::ExitCode {
    ///     hade::App::new("greeter").get("/", |_| "Hello, World!\n").main()
    /// }
    /// ```
    pub fn main(self) -> ExitCode {
        ExitCode::from(self.run())
    }

    /// As [`main`](App::main), with the number of the status.
    #[doc(hidden)]
    pub fn run(self) -> u8 {
        let App {
            name,
            mut routes,
            life,
            own,
            version,
            commands,
            ..
        } = self;
        let mistakes = routes.finish();
        settings::name_own(&own);
        let listed = call::list(&name, &commands);
        let executable = std::env::current_exe().ok();
        let service = Service {
            name,
            routes: Arc::new(routes),
            life: life.map(Arc::new),
            executable: executable.as_deref().map(base_name),
            program: program_path(executable),
            version,
            commands: listed,
            mistake: mistakes.into_iter().next(),
        };
        let name = service.name.clone();
        let args = || std::env::args_os().skip(1);
        call::run(&name, &commands, args())
            .unwrap_or_else(|| run(service, args()))
            .unwrap_or_else(|error| {
                // A closed standard error must not turn an error into a panic.
                let _ = writeln!(
                    std::io::stderr(),
                    "{}",
                    super::printable(&format!("{name}: {error}"))
                );
                error.code()
            })
    }

    /// What `--version` says behind the name. Usually that of the package:
    ///
    /// ```
    /// hade::App::new("greeter").version(env!("CARGO_PKG_VERSION"));
    /// ```
    pub fn version(mut self, version: impl Into<String>) -> App<S> {
        self.version = Some(version.into());
        self
    }

    /// A setting of the program's own, with what it is where nobody sets it, and what it is for. Like those of hade it is
    /// a key in `etc/app.conf`, a variable in the environment (`database_url` is `DATABASE_URL`), and `--set KEY=VALUE`, in
    /// that order of rank from the lowest, and `--help` lists it. [`Worker::setting`], [`Request::setting`] and
    /// [`Call::setting`] have its value, which is text.
    ///
    /// Names are of small letters, digits, dots and underscores. Those of hade's settings, with `app.` or without, those of
    /// its variables, and variables that the system knows, such as `HOME`, are refused when the program starts. A name with
    /// a dot in it, such as `shop.limit`, will not become one of hade's in a later version.
    ///
    /// ```
    /// use hade::App;
    ///
    /// App::new("greeter")
    ///     .setting("greeting", "Hello", "how to greet")
    ///     .setting("limit", "10", "most greetings in a minute")
    ///     // A value that is no number: the start fails, and a restart is given up. Not the command check, which boots
    ///     // nothing.
    ///     .boot(|worker| worker.setting("limit").parse::<u32>())
    ///     .get("/", |request, limit| format!("{}, {limit}\n", request.setting("greeting")));
    /// ```
    #[track_caller]
    pub fn setting(
        mut self,
        name: impl Into<String>,
        default: impl Into<String>,
        help: impl Into<String>,
    ) -> App<S> {
        let own = Own {
            name: name.into(),
            default: default.into(),
            help: help.into(),
        };
        match own.problem(&self.own) {
            Some(why) => self.routes.mistake(why),
            None => self.own.push(own),
        }
        self
    }

    /// A command of the program's own beside `app`: `notes import FILE` calls this with `FILE`. It ends with status 0, or
    /// with the error's words and status 1. `--base-dir`, `--config` and `--set` before or behind its name are taken for
    /// the settings. The log goes to standard error.
    ///
    /// ```
    /// use hade::{App, Call};
    ///
    /// App::new("notes")
    ///     .setting("notes_dir", "notes", "where notes are kept")
    ///     .command("import", "read notes from files", |call: &Call| -> hade::Result<()> {
    ///         for name in call.args() {
    ///             std::fs::copy(name, call.base_dir().join(call.setting("notes_dir")).join(name))?;
    ///         }
    ///         Ok(())
    ///     });
    /// ```
    #[track_caller]
    pub fn command<E: Display>(
        mut self,
        name: impl Into<String>,
        help: impl Into<String>,
        run: impl Fn(&Call) -> Result<(), E> + 'static,
    ) -> App<S> {
        let (name, help) = (name.into(), help.into());
        let is_there = self.commands.iter().any(|other| other.name == name);
        if is_there || ["app", "help", ""].contains(&name.as_str()) || name.starts_with('-') {
            self.routes
                .mistake(format!("command {name:?} is there already"));
        } else {
            let run = move |call: &Call| run(call).map_err(|error| error.to_string());
            self.commands.push(Command {
                name,
                help,
                run: Box::new(run),
            });
        }
        self
    }

    /// The application as a test asks it: a request goes through hooks, routes and state without a socket or a process.
    /// What [`App::boot`] does is done, and undone when the client is dropped.
    ///
    /// ```
    /// use hade::App;
    ///
    /// let client = App::new("greeter").get("/hello", |_| "Hello!\n").test();
    /// assert_eq!(client.get("/hello").into_text(), "Hello!\n");
    /// ```
    ///
    /// # Panics
    /// With what `start` would fail with.
    #[track_caller]
    pub fn test(self) -> TestClient {
        self.test_with(&[])
    }

    /// The same with other values of settings, those of hade that are for files included (`root` and the like).
    ///
    /// ```
    /// use hade::App;
    ///
    /// let client = App::new("greeter")
    ///     .setting("greeting", "Hello", "how to greet")
    ///     .get("/", |request| request.setting("greeting").to_owned())
    ///     .test_with(&[("greeting", "Hi")]);
    /// assert_eq!(client.get("/").into_text(), "Hi");
    /// ```
    ///
    /// # Panics
    /// With what `start` would fail with.
    #[track_caller]
    pub fn test_with(self, settings: &[(&str, &str)]) -> TestClient {
        TestClient::new(self, settings)
    }
}
