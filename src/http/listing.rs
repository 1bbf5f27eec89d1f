//! The page for a directory that has no index: names as links, sizes and times. What cannot be had is not on it.
#![forbid(unsafe_code)]

use super::resolve::{Found, Miss, Root};
use super::target::{Target, link};
use crate::clock::Utc;
use crate::sys::file::Kind;
use std::fmt::Write;

/// Most names on one page.
const MOST: usize = 10_000;

/// One line of the page.
struct Entry {
    name: Vec<u8>,
    is_directory: bool,
    size: u64,
    modified: i64,
}

/// The whole page. `above`: the directory over this one is served too.
pub(crate) fn page(
    root: &Root<'_>,
    target: &Target,
    shown: &[u8],
    above: bool,
) -> Result<String, Miss> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut is_more = false;
    // Those that nobody can ask for are left out here, where that needs no look at each.
    root.names(&target.path, |name, kind| {
        if name.starts_with(b".") || kind == Kind::Other {
            return true;
        }
        is_more = names.len() == MOST;
        if !is_more {
            names.push(name.to_vec());
        }
        !is_more
    })?;
    let mut entries: Vec<Entry> = names
        .into_iter()
        .filter_map(|name| Entry::of(root, target, name))
        .collect();
    entries.sort_by(|one, other| {
        (other.is_directory, &one.name).cmp(&(one.is_directory, &other.name))
    });
    Ok(render(shown, above, &entries, is_more))
}

impl Entry {
    /// `None` for what leads out, is hade's own or is no file.
    fn of(root: &Root<'_>, target: &Target, name: Vec<u8>) -> Option<Entry> {
        match root.look(&target.join(&name)).ok()? {
            Found::Directory => Some(Entry {
                name,
                is_directory: true,
                size: 0,
                modified: 0,
            }),
            Found::File(opened) => Some(Entry {
                name,
                is_directory: false,
                size: opened.size,
                modified: opened.modified.0,
            }),
        }
    }
}

fn render(shown: &[u8], above: bool, entries: &[Entry], is_more: bool) -> String {
    let title = escape(shown);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title>\n<style>td{{padding-right:2em}}\
         td+td{{text-align:right;white-space:nowrap}}</style>\n<h1>{title}</h1>\n<table>\n"
    );
    if above {
        page += "<tr><td><a href=\"../\">../</a></td></tr>\n";
    }
    for entry in entries {
        let slash = if entry.is_directory { "/" } else { "" };
        let (link, name) = (link(&entry.name), escape(&entry.name));
        // Of a link only the ampersand means something in HTML, and quotes, which are encoded.
        let link = link.replace('&', "&amp;");
        let _ = write!(
            page,
            "<tr><td><a href=\"{link}{slash}\">{name}{slash}</a></td>"
        );
        if !entry.is_directory {
            let time = Utc::at(u64::try_from(entry.modified).unwrap_or(0), 0).to_string();
            // To the minute: 1994-11-06 08:49.
            let (day, minute) = (&time[..10], &time[11..16]);
            let _ = write!(page, "<td>{}</td><td>{day} {minute}</td>", entry.size);
        }
        page += "</tr>\n";
    }
    page += "</table>\n";
    if is_more {
        let _ = writeln!(page, "<p>There is more; {MOST} names are shown.");
    }
    page += "</html>\n";
    page
}

/// A name as text of a page; bytes that are not UTF-8 become U+FFFD.
fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for letter in String::from_utf8_lossy(name).chars() {
        match letter {
            '&' => text += "&amp;",
            '<' => text += "&lt;",
            '>' => text += "&gt;",
            '"' => text += "&quot;",
            '\'' => text += "&#39;",
            letter if letter.is_control() => text.push('\u{fffd}'),
            letter => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_links_are_links() {
        let entry = |name: &[u8], is_directory| Entry {
            name: name.to_vec(),
            is_directory,
            size: 7,
            modified: 784_111_777,
        };
        let entries = [
            entry(b"a&b", true),
            entry(b"\"><script>'x'", false),
            entry(b"java:script\n\xff", false),
        ];
        let page = render(b"/<d>/", true, &entries, true);
        for part in [
            "<h1>/&lt;d&gt;/</h1>",
            "<a href=\"../\">../</a>",
            "<a href=\"a%26b/\">a&amp;b/</a></td></tr>",
            "<a href=\"%22%3E%3Cscript%3E%27x%27\">&quot;&gt;&lt;script&gt;&#39;x&#39;</a></td>\
             <td>7</td><td>1994-11-06 08:49</td></tr>",
            "<a href=\"./java:script%0A%FF\">java:script\u{fffd}\u{fffd}</a>",
            "There is more; 10000 names",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        let page = render(b"/", false, &[], false);
        assert!(!page.contains("../") && !page.contains("more"), "{page}");
    }
}
