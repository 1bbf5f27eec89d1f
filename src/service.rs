//! What a master and its workers know of an application: its name, its handlers, and the program that it is.
#![forbid(unsafe_code)]

use crate::http::request::Worker;
use crate::http::routes::Routes;
use crate::sys::process;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Boot = dyn Fn(&Worker) -> std::result::Result<(), String> + Send + Sync;

/// What an application has for itself in every worker.
pub(crate) struct Life {
    /// Makes it, before the worker says that it is ready.
    pub boot: Box<Boot>,
    /// Lets go of it, when the last request is answered.
    pub stop: Box<dyn Fn() + Send + Sync>,
    /// It has more to do then than to drop it, and is to have time for that.
    pub takes_time: bool,
}

/// What a master and its workers need to know of an application.
#[derive(Clone)]
pub(crate) struct Service {
    pub name: String,
    pub routes: Arc<Routes>,
    pub life: Option<Arc<Life>>,
    /// The program's path as it was started, so that a file put in its place is found at a restart.
    pub program: PathBuf,
    /// The base name of the executable, which a symbolic link at that path may lead to; without `/proc` nobody knows it.
    pub executable: Option<String>,
    /// The application's own.
    pub version: Option<String>,
    /// What help says of the application's own commands.
    pub commands: String,
    /// What cannot have been meant in it: it does not start.
    pub mistake: Option<String>,
}

impl Service {
    /// The executable's base name with a suffix, in the 15 bytes that the kernel keeps: it is the base that is cut.
    pub fn title(&self, suffix: &str) -> String {
        let base = self.executable.as_deref().unwrap_or(&self.name);
        let room = 15usize.saturating_sub(suffix.len());
        let cut = (0..=base.len().min(room))
            .rev()
            .find(|at| base.is_char_boundary(*at))
            .unwrap_or(0);
        format!("{}{suffix}", &base[..cut])
    }
}

/// The base name of a program's executable, without what the kernel adds when the file was replaced.
pub(crate) fn base_name(executable: &Path) -> String {
    let name = executable.file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    name.trim_end_matches(" (deleted)").to_owned()
}

/// The path that this program was started by: as given with a slash in it, found in PATH otherwise. Symbolic links
/// stay, so that one that is turned to a new release is followed; but it must lead to the program that runs here.
pub(crate) fn program_path(executable: Option<PathBuf>) -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    // Without /proc nobody can compare, but the kernel has left word.
    let running = executable
        .or_else(process::executed_path)
        .and_then(|path| crate::place::absolute(&path).ok())
        .unwrap_or_default();
    let identity = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    let itself = identity(Path::new("/proc/self/exe"));
    let given = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let candidates: Vec<PathBuf> = if given.as_os_str().as_encoded_bytes().contains(&b'/') {
        vec![given]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|directory| directory.join(&given))
            .collect()
    };
    let found = candidates
        .into_iter()
        .find(|path| itself.is_some() && identity(path) == itself);
    found
        .and_then(|path| crate::place::absolute(&path).ok())
        .unwrap_or(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_fit_into_15_bytes_and_keep_their_suffix() {
        let service = Service {
            name: "hade".into(),
            routes: Arc::default(),
            life: None,
            program: PathBuf::new(),
            executable: Some("of-a-long-name".into()),
            version: None,
            commands: String::new(),
            mistake: None,
        };
        for suffix in [" app", " worker"] {
            let title = service.title(suffix);
            assert!(
                title.len() <= 15 && title.ends_with(suffix) && !title.starts_with(suffix),
                "{title}"
            );
        }
    }
}
