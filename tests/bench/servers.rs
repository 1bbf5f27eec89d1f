//! The servers under test: their least configuration, their commands, and the directory each start has of its own.

use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::watch::{self, Times};

/// Where programs are looked for, whatever the caller's own `PATH` leaves out.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Bytes of a download: one that the kernel's buffers take at once, and one that they do not.
pub const DOWNLOADS: [usize; 2] = [2_000_000, 16_000_000];

/// Bytes of an answer that many read slowly at a time.
pub const SLOW_READ: usize = 1_000_000;

/// Seconds after which a file counts as one that nobody writes.
const SETTLED: i64 = 5;
/// The limit of open files where there are many connections.
pub const FILES: usize = 16_384;

const RACK: &str = "\
run lambda { |env|
  body =
    case env['PATH_INFO']
    when '/hello' then 'Hello, World!'
    when '/echo' then env['rack.input'].read
    else 'x' * env['PATH_INFO'][1..].to_i
    end
  [200, { 'Content-Type' => 'text/plain', 'Content-Length' => body.bytesize.to_s }, [body]]
}
";

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Hade,
    /// A program built on hade: the same commands, and `/hello`.
    Demo,
    Lighttpd,
    /// Restarted by `-s reload`.
    Nginx,
    /// With a worker for each core.
    NginxWide,
    /// With one, restarted by USR2 and QUIT: the upgrade of the program on the fly.
    NginxUsr2,
    Unicorn,
    Puma,
}

#[derive(Clone)]
pub struct Server {
    pub name: &'static str,
    pub kind: Kind,
    /// Canonical, for comparison with `/proc/PID/exe`: the ruby of a server that is written in it.
    pub program: PathBuf,
}

pub fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':')
        .map(|dir| Path::new(dir).join(program))
        .find(|path| path.is_file())
}

/// A server, or a line that says what it needs.
pub fn installed(
    name: &'static str,
    needs: &str,
    kind: Kind,
    program: Option<PathBuf>,
) -> Option<Server> {
    let Some(Ok(program)) = program.map(fs::canonicalize) else {
        println!("{name}: skipped: needs {needs}");
        return None;
    };
    println!("{name}: {}", version(kind, &program));
    Some(Server {
        name,
        kind,
        program,
    })
}

/// What the program says of itself in one line; for hade the path, which says debug or release.
fn version(kind: Kind, program: &Path) -> String {
    if matches!(kind, Kind::Hade | Kind::Demo) {
        return program.display().to_string();
    }
    let mut command = Command::new(program);
    match script(kind) {
        Some(script) => command.arg(script).arg("--version"),
        None => command.arg("-v"),
    };
    let output = command.output();
    let text = output.map_or_else(|_| Vec::new(), |o| [o.stdout, o.stderr].concat());
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().to_string()
}

/// What the program has to run to become the server.
pub fn script(kind: Kind) -> Option<PathBuf> {
    match kind {
        Kind::Unicorn => find("unicorn"),
        Kind::Puma => find("puma"),
        _ => None,
    }
}

/// The directory of all directories. A second process, the broom, sees its standard input end when this one is gone,
/// and then ends the servers still running and removes the directory: so it happens after Ctrl-C and SIGKILL too.
pub struct Root {
    pub path: PathBuf,
    broom: Child,
}

impl Root {
    pub fn new<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Result<Self, String> {
        // The slash keeps "1/" from matching "12/" when command lines are searched.
        let path = std::env::temp_dir().join(format!("hade-bench-{}/", std::process::id()));
        create_dir(&path)?;
        let this = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut broom = Command::new(this);
        broom.arg("--broom").arg(&path);
        broom.args(servers.into_iter().map(|server| &server.program));
        // A group of its own: Ctrl-C must not reach it.
        broom.stdin(Stdio::piped()).process_group(0);
        match broom.spawn() {
            Ok(broom) => Ok(Self { path, broom }),
            Err(e) => {
                let _ = fs::remove_dir_all(&path);
                Err(format!("cannot run the broom: {e}"))
            }
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        drop(self.broom.stdin.take());
        let _ = self.broom.wait();
    }
}

/// The broom's whole life.
pub fn broom(root: &str, programs: &[&str]) -> ExitCode {
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let programs: Vec<&Path> = programs.iter().map(Path::new).collect();
    // The chaos has a file system of its own there.
    let disk = Path::new(root).join("chaos/run");
    sweep(Path::new(root), &programs);
    if disk.exists() {
        let _ = Command::new("umount").arg(&disk).status();
        let _ = fs::remove_dir_all(root);
    }
    ExitCode::SUCCESS
}

/// Ends what still runs from this directory and removes it. Only processes that work in it, those of the named programs
/// whose command line names it, and their children, are touched.
fn sweep(dir: &Path, programs: &[&Path]) {
    let real = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let ours = |pid: &u32| {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        cwd.starts_with(&real)
            || programs.contains(&exe.as_path())
                && String::from_utf8_lossy(&line).contains(&*dir.to_string_lossy())
    };
    let mut left: Vec<u32> = watch::all_pids().into_iter().filter(ours).collect();
    left = left.into_iter().flat_map(watch::family).collect();
    if !left.is_empty() {
        watch::kill("KILL", &left);
        watch::wait_until(|| left.iter().all(|pid| watch::is_gone(*pid)));
    }
    let _ = fs::remove_dir_all(dir);
}

/// One start of one server, in a fresh directory and on a fresh port.
pub struct Site<'a> {
    server: &'a Server,
    dir: PathBuf,
    pub address: SocketAddr,
    /// What it is asked for.
    pub path: &'static str,
    master: u32,
    /// More words for hade's start command.
    settings: Vec<String>,
    /// Whether it is to take more connections than the server's own default.
    is_for_many: bool,
}

impl<'a> Site<'a> {
    pub fn new(server: &'a Server, root: &Path) -> Result<Self, String> {
        Self::make(server, root, &[], false)
    }

    /// One that takes as many connections as [`FILES`] allows, hade by these settings if its default is not enough.
    pub fn for_many(server: &'a Server, root: &Path, settings: &[&str]) -> Result<Self, String> {
        Self::make(server, root, settings, true)
    }

    fn make(
        server: &'a Server,
        root: &Path,
        settings: &[&str],
        is_for_many: bool,
    ) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = root.join(format!("{}-{number}/", server.name));
        create_dir(&dir)?;
        let site = Self {
            server,
            dir,
            address: free_address()?,
            path: server.path(),
            master: 0,
            settings: settings.iter().map(ToString::to_string).collect(),
            is_for_many,
        };
        site.write_config()
            .map_err(|e| format!("cannot write the configuration: {e}"))?;
        Ok(site)
    }

    /// From the start command's spawn to its end and to the first answer.
    pub fn start(&mut self) -> Result<Times, String> {
        let (address, path) = (self.address, self.path);
        let output = self.dir.join("start.out");
        let times = watch::run_until(self.start_command(), &output, || {
            watch::answers(address, path)
        })?;
        if times.event.is_none() {
            return Err(format!("no answer 200 from {address}{path} within the cap"));
        }
        // nginx's command returns, and its worker answers, before the pid file is written.
        let known = watch::wait_until(|| {
            self.master = self.read_pid().unwrap_or(0);
            self.master > 1
        });
        match known {
            true => Ok(times),
            false => Err(format!("no pid in {}", self.pid_file().display())),
        }
    }

    /// From the stop command's spawn to its end and to the end of the master.
    pub fn stop(&self) -> Result<Times, String> {
        let output = self.dir.join("stop.out");
        watch::run_until(self.stop_command(), &output, || watch::is_gone(self.master))
    }

    /// The wall time of hade's command, which waits for the end of the old worker. For the others the time until the
    /// old processes are gone and the new ones serve. `None`: not within the cap.
    pub fn restart(&mut self) -> Result<Option<Duration>, String> {
        const PAUSE: Duration = Duration::from_micros(500);
        let old = self.family();
        let output = self.dir.join("restart.out");
        let begin = Instant::now();
        let gone =
            |pids: &[u32]| watch::wait_every(PAUSE, || pids.iter().all(|pid| watch::is_gone(*pid)));
        let done = match self.server.kind {
            Kind::Hade | Kind::Demo => {
                let mut command = Command::new(&self.server.program);
                command.args(["app", "restart", "--base-dir"]);
                command.arg(&self.dir);
                let took = watch::run(command, &output)?;
                return match self.read_pid() {
                    Some(pid) if pid == self.master => Ok(Some(took)),
                    pid => Err(format!("pid {} became {pid:?}", self.master)),
                };
            }
            Kind::Lighttpd => return Err("has no restart".to_string()),
            Kind::Nginx | Kind::NginxWide => {
                let mut command = Command::new(&self.server.program);
                self.nginx_args(&mut command);
                command.args(["-s", "reload"]);
                watch::run(command, &output)?;
                gone(&old[1..])
            }
            Kind::NginxUsr2 | Kind::Unicorn => {
                watch::kill("USR2", &[self.master]);
                let old_master = self.master;
                let ready = watch::wait_every(PAUSE, || {
                    self.master = self.read_pid().unwrap_or(old_master);
                    // Its first worker too.
                    self.master != old_master && self.family().len() > 1
                });
                if !ready {
                    return Err("no new master and worker within the cap".to_string());
                }
                watch::kill("QUIT", &[old_master]);
                let done = gone(&old);
                if !done {
                    // Or there could be no other restart.
                    watch::kill("KILL", &old);
                }
                done
            }
            Kind::Puma => {
                let boots = || {
                    let said = fs::read_to_string(self.dir.join("start.out"));
                    said.unwrap_or_default().matches("Ctrl-C to stop").count()
                };
                let before = boots();
                watch::kill("USR2", &[self.master]);
                watch::wait_every(PAUSE, || boots() > before)
            }
        };
        let serves = watch::answers(self.address, self.path);
        Ok((done && serves).then(|| begin.elapsed()))
    }

    pub fn state(&self) -> Result<Duration, String> {
        let mut command = Command::new(&self.server.program);
        command.args(["app", "state", "--base-dir"]).arg(&self.dir);
        watch::run(command, &self.dir.join("state.out"))
    }

    pub fn family(&self) -> Vec<u32> {
        watch::family(self.master)
    }

    pub fn master(&self) -> u32 {
        self.master
    }

    /// The newest child of the master.
    pub fn worker(&self) -> Option<u32> {
        let family = self.family();
        let workers = family.into_iter().filter(|pid| *pid != self.master);
        workers.max_by_key(|pid| watch::started_at(*pid))
    }

    pub fn connect(&self) -> io::Result<TcpStream> {
        watch::connect(self.address)
    }

    pub fn connect_and_get(&self) -> io::Result<TcpStream> {
        let mut stream = self.connect()?;
        watch::get(&mut stream, self.path, "keep-alive")?;
        Ok(stream)
    }

    fn start_command(&self) -> Command {
        let mut command = Command::new(&self.server.program);
        match self.server.kind {
            Kind::Hade | Kind::Demo => {
                command.args(["app", "start", "--daemon", "--address"]);
                command.arg(self.address.to_string());
                command.arg("--base-dir").arg(&self.dir);
                for setting in &self.settings {
                    command.args(["--set", setting]);
                }
            }
            Kind::Lighttpd => {
                command.arg("-f").arg(self.config());
            }
            Kind::Nginx | Kind::NginxWide | Kind::NginxUsr2 => self.nginx_args(&mut command),
            Kind::Unicorn => {
                command.arg(script(Kind::Unicorn).unwrap_or_default());
                command.args(["-D", "-E", "none", "-c"]).arg(self.config());
                command.arg(self.dir.join("config.ru"));
            }
            Kind::Puma => {
                // It has no way into the background of its own.
                command = Command::new("/bin/sh");
                command.args(["-c", "\"$@\" &", "sh"]);
                command.arg(&self.server.program);
                command.arg(script(Kind::Puma).unwrap_or_default());
                command.arg("-C").arg(self.config());
            }
        }
        command
    }

    /// Each server's graceful stop.
    fn stop_command(&self) -> Command {
        let mut command = Command::new(&self.server.program);
        match self.server.kind {
            Kind::Hade | Kind::Demo => {
                command.args(["app", "stop", "--base-dir"]).arg(&self.dir);
            }
            Kind::Lighttpd => return watch::kill_command("INT", &[self.master]),
            Kind::Nginx | Kind::NginxWide | Kind::NginxUsr2 => {
                self.nginx_args(&mut command);
                command.args(["-s", "quit"]);
            }
            Kind::Unicorn => return watch::kill_command("QUIT", &[self.master]),
            Kind::Puma => return watch::kill_command("TERM", &[self.master]),
        }
        command
    }

    fn nginx_args(&self, command: &mut Command) {
        command.arg("-p").arg(&self.dir);
        command.arg("-c").arg(self.config());
        // Without it the log compiled in is opened before the configuration is read.
        command.arg("-e").arg(self.dir.join("error.log"));
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join(match self.server.kind {
            Kind::Hade | Kind::Demo => "run/app.pid",
            Kind::Lighttpd => "lighttpd.pid",
            Kind::Nginx | Kind::NginxWide | Kind::NginxUsr2 => "nginx.pid",
            Kind::Unicorn | Kind::Puma => "ruby.pid",
        })
    }

    fn config(&self) -> PathBuf {
        self.dir.join("server.conf")
    }

    fn read_pid(&self) -> Option<u32> {
        fs::read_to_string(self.pid_file())
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    fn write_config(&self) -> io::Result<()> {
        let dir = self.dir.display().to_string();
        let dir = dir.trim_end_matches('/');
        let port = self.address.port();
        let events = match self.is_for_many {
            true => format!("worker_connections {FILES};"),
            false => String::new(),
        };
        let workers = match self.server.kind {
            Kind::NginxWide => "auto",
            _ => "1",
        };
        let text = match self.server.kind {
            Kind::Hade | Kind::Demo => return write_files(&self.dir),
            Kind::Lighttpd => format!(
                "server.document-root = \"{dir}/www\"\n\
                 server.bind = \"127.0.0.1\"\n\
                 server.port = {port}\n\
                 server.pid-file = \"{dir}/lighttpd.pid\"\n\
                 server.errorlog = \"{dir}/error.log\"\n\
                 mimetype.assign = ( \".txt\" => \"text/plain\" )\n"
            ),
            Kind::Nginx | Kind::NginxWide | Kind::NginxUsr2 => format!(
                "daemon on;\n\
                 master_process on;\n\
                 worker_processes {workers};\n\
                 pid {dir}/nginx.pid;\n\
                 lock_file {dir}/nginx.lock;\n\
                 error_log {dir}/error.log;\n\
                 events {{ {events} }}\n\
                 http {{\n\
                 access_log off;\n\
                 default_type text/plain;\n\
                 keepalive_requests 1000000000;\n\
                 client_body_temp_path {dir}/body;\n\
                 proxy_temp_path {dir}/proxy;\n\
                 fastcgi_temp_path {dir}/fastcgi;\n\
                 uwsgi_temp_path {dir}/uwsgi;\n\
                 scgi_temp_path {dir}/scgi;\n\
                 server {{ listen 127.0.0.1:{port}; location / {{ root {dir}/www; }} }}\n\
                 }}\n"
            ),
            // Before the fork, so that a worker that is there is ready.
            Kind::Unicorn => format!(
                "listen '127.0.0.1:{port}'\n\
                 pid '{dir}/ruby.pid'\n\
                 working_directory '{dir}'\n\
                 stderr_path '{dir}/error.log'\n\
                 worker_processes 4\n\
                 preload_app true\n"
            ),
            // The tag is for the broom: this server writes a title over its command line.
            Kind::Puma => format!(
                "bind 'tcp://127.0.0.1:{port}'\n\
                 pidfile '{dir}/ruby.pid'\n\
                 directory '{dir}'\n\
                 rackup '{dir}/config.ru'\n\
                 tag '{dir}/'\n\
                 environment 'none'\n\
                 threads 16, 16\n"
            ),
        };
        fs::write(self.config(), text)?;
        if script(self.server.kind).is_some() {
            return fs::write(self.dir.join("config.ru"), RACK);
        }
        write_files(&self.dir)
    }
}

/// Puts the files that are asked for into `www` of this directory.
pub fn write_files(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir.join("www"))?;
    fs::write(dir.join("www/hello.txt"), "Hello, World!")?;
    for size in DOWNLOADS.into_iter().chain([SLOW_READ]) {
        fs::write(dir.join(format!("www/{size}")), vec![b'x'; size])?;
    }
    Ok(())
}

/// Whether they have been there for a while.
pub fn are_settled(dir: &Path) -> bool {
    let changed = fs::metadata(dir.join("www/hello.txt")).map(|found| found.ctime());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs() as i64);
    changed.is_ok_and(|changed| changed + SETTLED < now)
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        sweep(&self.dir, &[&self.server.program]);
    }
}

impl Server {
    /// What is asked for.
    pub fn path(&self) -> &'static str {
        match self.kind {
            Kind::Hade => "/demo/demo",
            Kind::Demo => "/hello",
            Kind::Lighttpd | Kind::Nginx | Kind::NginxWide | Kind::NginxUsr2 => "/hello.txt",
            Kind::Unicorn | Kind::Puma => "/hello",
        }
    }

    /// What answers with so many times "x".
    pub fn download(&self, size: usize) -> String {
        match self.kind {
            Kind::Hade | Kind::Demo => format!("/bytes?n={size}"),
            _ => format!("/{size}"),
        }
    }

    /// The same as a file, of those under `www`.
    pub fn file(&self, size: usize) -> String {
        match self.kind {
            Kind::Demo => format!("/file?name=www/{size}"),
            _ => self.download(size),
        }
    }

    /// What answers with the body it was sent; files cannot.
    pub fn echo(&self) -> Option<&'static str> {
        let able = matches!(self.kind, Kind::Demo | Kind::Unicorn | Kind::Puma);
        able.then_some("/echo")
    }
}

/// Sees to a limit of at least [`FILES`] open files for this program and all that it starts. The limit can only be
/// changed by the shell, so this program is executed anew by one where it is too low.
pub fn raise_file_limit() -> Result<(), String> {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    let enough = soft.is_some_and(|soft| soft.parse().map_or(true, |soft: usize| soft >= FILES));
    if enough {
        return Ok(());
    }
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let script = format!("ulimit -n {FILES} && exec \"$@\"");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script, "sh"]).arg(this);
    let error = shell.args(std::env::args_os().skip(1)).exec();
    Err(format!("cannot run /bin/sh: {error}"))
}

/// A loopback port that was free a moment ago.
pub fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|e| format!("cannot find a free port: {e}"))
}

/// Open to all, whatever the umask: nginx's worker is another user when its master is root.
fn create_dir(path: &Path) -> Result<(), String> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
        .map_err(|e| format!("cannot make {}: {e}", path.display()))
}
