//! The file of a Unix socket that is served: a restart sees to it that its path leads to the service.

use crate::support::{Place, Site, signal};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;

fn ask(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).expect("somebody listens");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn what_a_cleaner_took_is_there_again_after_a_hang_up() {
    let place = Place::demo();
    let args = ["start", "-d", "--address", "unix:run/http.sock"];
    let site = Site::of(&place.app(&args).ok());
    let path = place.path("run/http.sock");
    fs::remove_dir_all(place.path("run")).unwrap();
    signal(site.pid, "HUP");
    place.wait_for_log("restarted, pid ");
    assert!(ask(&path).starts_with("HTTP/1.1 200 "));
    // One that is there is kept, connections that wait in its queue included.
    let inode = || fs::metadata(&path).map(|found| std::os::unix::fs::MetadataExt::ino(&found));
    let before = inode().unwrap();
    place.app(&["restart"]).ok();
    assert_eq!(inode().unwrap(), before);
    assert!(ask(&path).starts_with("HTTP/1.1 200 "));
    place.app(&["stop"]).ok();
    assert!(!path.exists());
}

#[test]
fn the_socket_of_a_new_release_is_in_its_directory() {
    let place = Place::demo();
    place.write("run/x", "");
    for release in ["1", "2"] {
        fs::create_dir(place.path(release)).unwrap();
        symlink("../run", place.path(&format!("{release}/run"))).unwrap();
    }
    let turn = |release: &str| {
        let new = place.path("new");
        symlink(release, &new).unwrap();
        fs::rename(&new, place.path("current")).unwrap();
    };
    turn("1");
    let base = place.path("current");
    let base = ["--base-dir", base.to_str().unwrap()];
    let args = [&["start", "-d", "--address", "unix:http.sock"], &base[..]].concat();
    place.app(&args).ok();
    // And back, where what the first one left is in the way.
    for release in ["2", "1"] {
        turn(release);
        place.app(&[&["restart"], &base[..]].concat()).ok();
        let path = place.path(release).join("http.sock");
        assert!(ask(&path).starts_with("HTTP/1.1 200 "), "{release}");
    }
    place.app(&[&["stop"], &base[..]].concat()).ok();
    assert!(!place.path("1/http.sock").exists());
}

#[test]
fn a_restart_to_its_own_path_written_in_another_way_makes_it_anew_where_it_is_gone() {
    let place = Place::demo();
    place
        .app(&["start", "-d", "--address", "unix:run/x.sock"])
        .ok();
    symlink("run", place.path("run2")).unwrap();
    for again in [
        "unix:run/../run/x.sock",
        "unix:run2/x.sock",
        "unix:run/x.sock",
    ] {
        fs::remove_file(place.path("run/x.sock")).unwrap();
        place.app(&["restart", "--address", again]).ok();
        assert!(ask(&place.path("run/x.sock")).starts_with("HTTP/1.1 200 "));
    }
    place.app(&["stop"]).ok();
    assert!(!place.path("run/x.sock").exists());
}

#[test]
fn whoever_leaves_a_path_leaves_the_socket_that_another_has_there_by_now() {
    for goes in [&["stop"][..], &["restart", "--address", "127.0.0.1:0"]] {
        let (first, second) = (Place::demo(), Place::demo());
        let path = first.path("x.sock");
        let address = format!("unix:{}", path.display());
        first.app(&["start", "-d", "--address", &address]).ok();
        fs::remove_file(&path).unwrap();
        second.app(&["start", "-d", "--address", &address]).ok();
        first.app(goes).ok();
        assert!(ask(&path).starts_with("HTTP/1.1 200 "), "{goes:?}");
        first.app(&["stop"]).ok();
        assert!(ask(&path).starts_with("HTTP/1.1 200 "), "{goes:?}");
        second.app(&["stop"]).ok();
        assert!(!path.exists());
    }
}
