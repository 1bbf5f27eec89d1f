//! Requests for files: where a path may lead, what a condition may cut out, what a list may admit. The first line of an
//! input is the path, each further one a field.
#![forbid(unsafe_code)]

use super::super::accept::{self, Coding};
use super::super::conditions::{self, Decision, Validators};
use super::super::target::{Target, Wrong, encode, normalize};
use super::Numbers;

/// What a file has to be compared by, and how long it is.
const TAG: &str = "\"a-1\"";
const MODIFIED: i64 = 784_111_777;

/// A path by other means: all of it decoded at once, the slashes that were sent marked.
fn by_hand(sent: &[u8]) -> Result<Vec<Vec<u8>>, Wrong> {
    let mut all: Vec<(u8, bool)> = Vec::new();
    let mut at = 0;
    while at < sent.len() {
        if sent[at] == b'%' {
            let digits = sent.get(at + 1..at + 3).ok_or(Wrong::Malformed)?;
            let digits = std::str::from_utf8(digits).map_err(|_| Wrong::Malformed)?;
            let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let value = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex);
            all.push((value.ok_or(Wrong::Malformed)?, false));
            at += 3;
        } else {
            all.push((sent[at], sent[at] == b'/'));
            at += 1;
        }
    }
    let names = all.split(|&(_, is_slash)| is_slash);
    Ok(names
        .map(|name| name.iter().map(|(byte, _)| *byte).collect())
        .collect())
}

fn check_path(sent: &[u8], is_whole: bool) {
    let found = Target::parse(sent, is_whole);
    if !sent.is_empty() && !sent.starts_with(b"/") {
        return assert!(found.is_err(), "it does not begin with a slash");
    }
    let names = match (by_hand(sent), &found) {
        (Err(wrong), _) => return assert_eq!(found, Err(wrong)),
        // An escape is bad wherever it stands.
        (Ok(_), Err(Wrong::Malformed)) => panic!("no escape is malformed"),
        (Ok(names), _) => names,
    };
    let (first, names) = names.split_first().expect("there is always one");
    let names = match names.split_last() {
        Some((last, rest)) if last.is_empty() => rest,
        _ => names,
    };
    let is_hidden = |(at, name): (usize, &Vec<u8>)| {
        name.starts_with(b".") && !(at == 0 && is_whole && name == b".well-known")
    };
    let is_fit = first.is_empty()
        && !names.iter().enumerate().any(is_hidden)
        && !names
            .iter()
            .any(|name| name.is_empty() || name.contains(&0) || name.contains(&b'/'));
    let Ok(target) = found else {
        return assert!(!is_fit, "it is fit");
    };
    assert!(is_fit, "it is unfit");
    assert_eq!(target.path, names.join(&b'/'));
    assert_eq!(target.is_directory, sent.ends_with(b"/"));
    assert!(!target.path.starts_with(b"/") && !target.path.ends_with(b"/"));
    // A link to it leads to it.
    let link: String = names
        .iter()
        .map(|name| format!("/{}", encode(name)))
        .collect();
    let slash = if target.is_directory { "/" } else { "" };
    assert!(link.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!link.contains(['"', '\'', '<', '>', '&', '\\', '?', '#']));
    assert_eq!(
        Target::parse(format!("{link}{slash}").as_bytes(), is_whole),
        Ok(target)
    );
}

/// The common form of all spellings means the same, is its own, and has no escape that could be left out.
fn check_form(sent: &[u8]) {
    let form = |path: &[u8]| {
        let mut path = path.to_vec();
        let length = normalize(&mut path);
        path.truncate(length);
        path
    };
    let found = form(sent);
    assert_eq!(form(&found), found, "it changes again");
    for is_whole in [true, false] {
        assert_eq!(
            Target::parse(&found, is_whole),
            Target::parse(sent, is_whole)
        );
    }
    let (Ok(names), Ok(again)) = (by_hand(sent), by_hand(&found)) else {
        return assert_eq!(found, sent, "it means nothing, and stays so");
    };
    assert_eq!(again, names);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    for code in found.split(|&byte| byte == b'%').skip(1) {
        let code = std::str::from_utf8(&code[..2]).expect("digits");
        assert_eq!(code, code.to_uppercase());
        assert!(!plain(&u8::from_str_radix(code, 16).expect("digits")));
    }
}

fn check_conditions(field: &dyn Fn(&str) -> Option<Vec<u8>>, size: u64) {
    let validators = |modified| Validators {
        tag: TAG.to_owned(),
        modified,
    };
    for modified in [None, Some(MODIFIED)] {
        let decide = |is_get, field: &dyn Fn(&str) -> Option<Vec<u8>>| {
            conditions::decide(is_get, &validators(modified), size, field)
        };
        let found = decide(true, field);
        if let Decision::Part { start, length } = found {
            assert!(length > 0 && start.checked_add(length).is_some_and(|end| end <= size));
        }
        let is_ranged = matches!(found, Decision::Part { .. } | Decision::Unsatisfiable);
        // A range has the last word only where nothing before it had one, and no word but for GET.
        let without = decide(true, &|name| field(name).filter(|_| name != "Range"));
        assert_eq!(without, if is_ranged { Decision::Whole } else { found });
        assert_eq!(decide(false, field), without);
        assert!(!is_ranged || field("Range").is_some());
        // A tag that fits goes before every date.
        let tagged = |name: &str| match name {
            "If-None-Match" => Some(TAG.as_bytes().to_vec()),
            _ => field(name),
        };
        let known = decide(true, &tagged);
        assert!(matches!(known, Decision::NotModified | Decision::Failed));
        // Another one in front of it changes nothing, unless it is none.
        let longer = |name: &str| match name {
            "If-None-Match" => field(name).map(|list| [b"W/\"z\", ", &list[..]].concat()),
            _ => field(name),
        };
        let is_any = field("If-None-Match").is_some_and(|list| list.trim_ascii() == b"*");
        assert!(is_any || decide(true, &longer) == found);
    }
}

fn check_accepted(field: &[u8]) {
    let found = accept::codings(Some(field));
    for (at, coding) in found.iter().enumerate() {
        assert!(!found[..at].contains(coding), "twice");
        let token = match coding {
            Coding::Gzip => "gzip",
            other => other.token(),
        };
        let lower = field.to_ascii_lowercase();
        let has = |word: &[u8]| lower.windows(word.len()).any(|part| part == word);
        assert!(has(token.as_bytes()) || has(b"*"), "it was never named");
    }
    // What is said of a coding first counts, so that nothing behind takes it back.
    let none = accept::codings(Some(&[b"br;q=0,zstd;q=0,gzip;q=0,", field].concat()));
    assert!(none.is_empty());
    let all = accept::codings(Some(
        &[b"br;q=1,zstd;q=1,gzip;q=1,identity;q=0,", field].concat(),
    ));
    assert_eq!(all, Coding::ALL);
    accept::admits_html(Some(field));
}

/// Everything that must be true of a request for a file.
///
/// # Panics
/// When something is not.
pub fn check_files(input: &[u8]) {
    let mut lines = input.split(|&byte| byte == b'\n');
    let path = lines.next().unwrap_or_default();
    check_path(path, true);
    check_path(path, false);
    check_form(path);
    let fields: Vec<(&[u8], &[u8])> = lines
        .filter_map(|line| {
            let at = line.iter().position(|&byte| byte == b':')?;
            Some((&line[..at], line[at + 1..].trim_ascii()))
        })
        .collect();
    let field = |name: &str| {
        let found = fields.iter().find(|(found, _)| *found == name.as_bytes());
        found.map(|(_, value)| value.to_vec())
    };
    let mut numbers = Numbers::of(input);
    for size in [0, 1, 100, numbers.below(1 << 20) as u64, 5 << 30, u64::MAX] {
        check_conditions(&field, size);
    }
    for (_, value) in &fields {
        check_accepted(value);
    }
}
