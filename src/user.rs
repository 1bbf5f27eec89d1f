//! The user that a service of root's gives its workers: what `app.user` says, who that is by `/etc/passwd` and
//! `/etc/group`, which are read by hand (a static program has no other way), and what that user must not be able to
//! write. Becoming it is done here too, once in a worker's life.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::sys::credentials;
use crate::sys::process::euid;
use crate::sys::{Errno, is_errno};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Where users and groups are named, `passwd(5)` and `group(5)`.
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// So many links are followed on one way, as the kernel does.
const MOST_LINKS: usize = 40;

/// What a setting says: `www`, `www:web` or `65534:65534`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    name: String,
    group: Option<String>,
}

/// Who that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// As the setting says it, for people.
    pub user: String,
    pub uid: u32,
    pub gid: u32,
    /// The groups beside that one.
    pub groups: Vec<u32>,
}

/// What root does with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Believes what it finds there.
    Reads,
    /// Makes a file there, and takes none of anybody else's.
    Makes,
}

impl User {
    /// `None` for what cannot be one.
    pub fn parse(text: &str) -> Option<User> {
        let is_name = |name: &str| {
            !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == ':')
        };
        let (name, group) = match text.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (text, None),
        };
        (is_name(name) && group.is_none_or(is_name)).then(|| User {
            name: name.to_owned(),
            group: group.map(str::to_owned),
        })
    }

    /// Looks it up.
    ///
    /// # Errors
    /// This process is not root's, or there is no such user or group, or they are root's.
    pub fn identify(&self) -> Result<Identity> {
        let us = euid();
        if us != 0 {
            return Err(self.wrong(&format!(
                "only root can give its workers another user, and this is uid {us}"
            )));
        }
        self.within(&mut |path| fs::read(path))
    }

    fn within(&self, read: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>) -> Result<Identity> {
        let mut lines = |path: &str| -> io::Result<Vec<Vec<String>>> {
            let text = read(path)?;
            let text = String::from_utf8_lossy(&text);
            let fields = |line: &str| line.split(':').map(str::to_owned).collect();
            Ok(text.lines().map(fields).collect())
        };
        let field = |line: &[String], at: usize| line.get(at).and_then(|text| id(text));

        // 1. The user. A number needs no file, unless it is to say the group as well.
        let number = id(&self.name);
        let (mut name, mut of_user, mut uid) = (None, None, number);
        if number.is_none() || self.group.is_none() {
            let users = lines(USERS).map_err(|error| {
                self.wrong(&format!(
                    "{USERS}: {error}; numbers need no file: 65534:65534"
                ))
            })?;
            let found = users.iter().find(|line| match number {
                Some(uid) => field(line, 2) == Some(uid),
                None => line.first() == Some(&self.name),
            });
            match (found, number) {
                (Some(line), _) => {
                    (name, uid) = (line.first().cloned(), field(line, 2));
                    of_user = field(line, 3);
                }
                (None, Some(uid)) => {
                    let what = format!(
                        "{USERS} has no user {uid} whose group that would be; say {uid}:GROUP"
                    );
                    return Err(self.wrong(&what));
                }
                (None, None) => {
                    return Err(self.wrong(&format!("there is no such user in {USERS}")));
                }
            }
        }
        let uid = uid.ok_or_else(|| self.wrong(&format!("{USERS} has no number for it")))?;

        // 2. The group, and those beside it: a group that is named stands alone.
        let (gid, groups) = match &self.group {
            None => {
                let gid = of_user;
                let gid = gid.ok_or_else(|| self.wrong(&format!("{USERS} has no group for it")))?;
                // Without that file there are no others.
                let all = lines(GROUPS).unwrap_or_default();
                let has_it = |line: &&Vec<String>| {
                    let members = line.get(3).map_or("", String::as_str);
                    name.as_deref()
                        .is_some_and(|name| members.split(',').any(|member| member.trim() == name))
                };
                let others = all.iter().filter(has_it);
                let mut others: Vec<u32> = others.filter_map(|line| field(line, 2)).collect();
                others.retain(|other| *other != gid);
                others.sort_unstable();
                others.dedup();
                (gid, others)
            }
            Some(group) => {
                let gid = match id(group) {
                    Some(gid) => gid,
                    None => {
                        let all = lines(GROUPS)
                            .map_err(|error| self.wrong(&format!("{GROUPS}: {error}")))?;
                        let found = all.iter().find(|line| line.first() == Some(group));
                        found.and_then(|line| field(line, 2)).ok_or_else(|| {
                            self.wrong(&format!("there is no such group in {GROUPS}"))
                        })?
                    }
                };
                (gid, Vec::new())
            }
        };
        if uid == 0 || gid == 0 {
            let what = "that is root, or root's group, which workers have without this setting";
            return Err(self.wrong(what));
        }
        Ok(Identity {
            user: self.to_string(),
            uid,
            gid,
            groups,
        })
    }

    fn wrong(&self, why: &str) -> Error {
        Error::failed(format!("app.user {self}: {why}"))
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

/// A number of a user or group. The highest one means "none" to the system calls.
fn id(text: &str) -> Option<u32> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_digits.then(|| text.parse().ok()).flatten();
    number.filter(|number| *number != u32::MAX)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { user, uid, gid, .. } = self;
        write!(f, "{user} (uid {uid}, gid {gid})")
    }
}

impl Identity {
    /// Numbers and the name, in one line for [`Identity::decode`].
    pub fn encode(&self) -> String {
        let groups: Vec<String> = self.groups.iter().map(ToString::to_string).collect();
        let Identity { user, uid, gid, .. } = self;
        format!("{uid} {gid} {} {user}", groups.join(","))
    }

    /// What [`Identity::encode`] made, read back.
    pub fn decode(text: &str) -> Option<Identity> {
        let mut words = text.splitn(4, ' ');
        let (uid, gid) = (id(words.next()?)?, id(words.next()?)?);
        let groups = words.next()?.split(',').filter_map(id).collect();
        let user = words.next()?.to_owned();
        Some(Identity {
            user,
            uid,
            gid,
            groups,
        })
    }

    /// Makes this process, which has one thread and is root's, that user's for good.
    pub fn assume(&self) -> std::result::Result<(), String> {
        let Identity { uid, gid, .. } = *self;
        let cannot = |what: &str, error: io::Error| {
            let needs = match is_errno(&error, Errno::NotPermitted) {
                true => "; root needs its capabilities SETUID and SETGID for that",
                false => "",
            };
            format!("cannot become {self}: {what}: {error}{needs}")
        };
        credentials::set_groups(&self.groups).map_err(|error| cannot("setgroups", error))?;
        credentials::set_group(gid).map_err(|error| cannot("setresgid", error))?;
        credentials::set_user(uid).map_err(|error| cannot("setresuid", error))?;
        // What a process may still become it does not have to be asked for: it tries.
        let there = credentials::ids().map_err(|error| cannot("getresuid", error))?;
        let may_return = credentials::set_user(0).is_ok() || credentials::set_group(0).is_ok();
        if there != ([uid; 3], [gid; 3]) || may_return {
            return Err(format!(
                "cannot become {self}: there is a way back to root, by its securebits or a user namespace"
            ));
        }
        match credentials::no_new_privileges() {
            // A kernel before 3.5 does not know it.
            Err(error) if !is_errno(&error, Errno::InvalidArgument) => {
                Err(cannot("no_new_privs", error))
            }
            _ => Ok(()),
        }
    }

    /// What keeps this user from being one whom root can let work for it: something that root believes, runs or makes
    /// files in, and that this user may change. `None` where there is nothing. A link is followed by hand, for who may
    /// turn it may lead root elsewhere.
    pub fn may_change(&self, path: &Path, used: Use) -> Option<String> {
        let path = std::path::absolute(path).ok()?;
        let mut here = PathBuf::from("/");
        let mut links = 0;
        let mut rest = names(&path);
        while let Some(name) = rest.pop() {
            let Ok(directory) = fs::symlink_metadata(&here) else {
                return None;
            };
            if name == ".." {
                here.pop();
                continue;
            }
            let is_last = rest.is_empty();
            let may_write = self.may_write(&here, &directory);
            let is_sticky = directory.mode() & 0o1000 != 0 && directory.uid() != self.uid;
            let entry = here.join(&name);
            let found = match fs::symlink_metadata(&entry) {
                Ok(found) => found,
                // Who may write there could make it.
                Err(_) => {
                    let is_safe = !may_write || is_sticky && is_last && used == Use::Makes;
                    return (!is_safe).then(|| words(&here, &directory));
                }
            };
            // In a sticky directory nobody touches what is another's, `sticky(7)`.
            if may_write && !is_sticky {
                return Some(words(&here, &directory));
            }
            if may_write && found.uid() == self.uid {
                return Some(words(&entry, &found));
            }
            if found.is_symlink() {
                links += 1;
                let target = fs::read_link(&entry).ok().filter(|_| links <= MOST_LINKS)?;
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                rest.extend(names(&target));
                continue;
            }
            let is_wrong = match (found.is_dir(), found.is_file(), used) {
                (true, ..) => found.uid() == self.uid,
                (_, true, Use::Reads) => self.may_write(&entry, &found),
                // Whose it may be is for whoever opens it to judge; a log may be a device.
                _ => false,
            };
            if is_wrong {
                return Some(words(&entry, &found));
            }
            here = entry;
        }
        None
    }

    /// Whether the user may write what is there, by owner, mode and lists of `acl(5)`.
    fn may_write(&self, path: &Path, found: &Metadata) -> bool {
        let mode = found.mode();
        if found.uid() == self.uid {
            // Who owns it sets its mode.
            return true;
        }
        if mode & 0o020 != 0 && credentials::has_access_list(path) {
            // Whom it names is not looked at.
            return true;
        }
        match found.gid() == self.gid || self.groups.contains(&found.gid()) {
            true => mode & 0o020 != 0,
            false => mode & 0o002 != 0,
        }
    }
}

fn words(path: &Path, found: &Metadata) -> String {
    format!(
        "{} (of uid {}, gid {}, mode {:04o})",
        path.display(),
        found.uid(),
        found.gid(),
        found.mode() & 0o7777
    )
}

/// The parts of a path, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        _ => None,
    });
    let mut parts: Vec<OsString> = parts.map(OsStr::to_owned).collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:a:b: /home\nodd:x:x\nbig:x:4294967295:1::\ntoor:x:0:5::\n";
    const GROUP: &str =
        "root:x:0:\nweb:x:40:a, www\nlog:x:41:www,b\nown:x:34:www\nno:x:42:wwww\nbad:x\n";

    fn found(text: &str) -> std::result::Result<Identity, String> {
        let user = User::parse(text).ok_or("not one")?;
        let found = user.within(&mut |path| match path {
            USERS => Ok(PASSWD.into()),
            _ => Ok(GROUP.into()),
        });
        found.map_err(|error| error.to_string())
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        for (text, uid, gid, groups) in [
            ("www", 33, 34, &[40, 41][..]),
            ("33", 33, 34, &[40, 41]),
            ("www:web", 33, 40, &[]),
            ("www:7", 33, 7, &[]),
            ("8:9", 8, 9, &[]),
            ("8:log", 8, 41, &[]),
        ] {
            let identity = found(text).unwrap();
            let ids = (identity.uid, identity.gid, &identity.groups[..]);
            assert_eq!(ids, (uid, gid, groups), "{text}");
            assert_eq!(identity.user, text);
            assert_eq!(Identity::decode(&identity.encode()), Some(identity));
        }
        assert_eq!(Identity::decode("1 2 3"), None);
    }

    #[test]
    fn what_is_nobody_is_said() {
        for (text, expected) in [
            ("", "not one"),
            ("www:", "not one"),
            (":web", "not one"),
            ("a b", "not one"),
            ("a:b:c", "not one"),
            (
                "wwww",
                "app.user wwww: there is no such user in /etc/passwd",
            ),
            (
                "www:none",
                "app.user www:none: there is no such group in /etc/group",
            ),
            ("odd", "app.user odd: /etc/passwd has no number for it"),
            ("big", "app.user big: /etc/passwd has no number for it"),
            (
                "www:bad",
                "app.user www:bad: there is no such group in /etc/group",
            ),
            (
                "8",
                "app.user 8: /etc/passwd has no user 8 whose group that would be; say 8:GROUP",
            ),
            (
                "root",
                "app.user root: that is root, or root's group, which workers have without this setting",
            ),
            (
                "toor",
                "app.user toor: that is root, or root's group, which workers have without this setting",
            ),
            (
                "33:0",
                "app.user 33:0: that is root, or root's group, which workers have without this setting",
            ),
        ] {
            assert_eq!(found(text), Err(expected.to_owned()), "{text}");
        }
        // An image has no such file, and numbers need none.
        let without = |text: &str| {
            let user = User::parse(text).unwrap();
            let found = user.within(&mut |_| Err(io::ErrorKind::NotFound.into()));
            found.map_err(|error| error.to_string())
        };
        assert!(without("65534:65534").is_ok());
        assert_eq!(
            without("www").unwrap_err(),
            "app.user www: /etc/passwd: entity not found; numbers need no file: 65534:65534"
        );
    }
}
