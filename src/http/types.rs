//! Names of files and the media types that go with them, and which of these types are worth compressing.
#![forbid(unsafe_code)]

use std::borrow::Cow;

/// What is not in the table.
const UNKNOWN: &str = "application/octet-stream";

/// By the last extension, in lower case and in order; of text the character set is named.
static TYPES: &[(&str, &str)] = &[
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("atom", "application/atom+xml"),
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("bz2", "application/x-bzip2"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("eot", "application/vnd.ms-fontobject"),
    ("epub", "application/epub+zip"),
    ("flac", "audio/flac"),
    ("geojson", "application/geo+json"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("ics", "text/calendar; charset=utf-8"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("map", "application/json"),
    ("md", "text/markdown; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("ogg", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("rss", "application/rss+xml"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("ts", "video/mp2t"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xml", "application/xml"),
    ("xz", "application/x-xz"),
    ("yaml", "application/yaml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// The type of a file by its name, where `own` goes before the table.
pub fn of(name: &[u8], own: &[(String, String)]) -> Cow<'static, str> {
    let at = name.iter().rposition(|&byte| byte == b'.');
    let extension = at.map_or(&b""[..], |at| &name[at + 1..]);
    let own = own
        .iter()
        .find(|(known, _)| extension.eq_ignore_ascii_case(known.as_bytes()));
    if let Some((_, kind)) = own {
        return with_charset(kind).into();
    }
    let lower = || extension.iter().map(u8::to_ascii_lowercase);
    let found = TYPES.binary_search_by(|(known, _)| known.bytes().cmp(lower()));
    found.map_or(UNKNOWN, |at| TYPES[at].1).into()
}

/// Text is in UTF-8 unless its type says something else.
fn with_charset(kind: &str) -> String {
    match kind.starts_with("text/") && !kind.contains(';') {
        true => format!("{kind}; charset=utf-8"),
        false => kind.to_owned(),
    }
}

/// Whether a file of this type may have compressed ones beside it.
pub fn is_compressible(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or(kind).trim_end();
    let text = kind.starts_with("text/") || kind.ends_with("+json") || kind.ends_with("+xml");
    text || matches!(
        kind,
        "application/javascript"
            | "application/json"
            | "application/toml"
            | "application/vnd.apple.mpegurl"
            | "application/vnd.ms-fontobject"
            | "application/wasm"
            | "application/x-tar"
            | "application/xml"
            | "application/yaml"
            | "font/otf"
            | "font/ttf"
            | "image/bmp"
            | "image/x-icon"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_extension_decides_in_any_case() {
        assert!(TYPES.is_sorted_by_key(|(extension, _)| *extension));
        let mut types = TYPES.iter().map(|(_, kind)| *kind);
        assert!(types.all(|kind| with_charset(kind) == kind));
        let own = [
            ("dat".to_owned(), "text/plain".to_owned()),
            ("css".to_owned(), "text/x-own; charset=latin1".to_owned()),
        ];
        for (name, expected) in [
            ("a.html", "text/html; charset=utf-8"),
            ("a.min.JS", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.svg", "image/svg+xml"),
            ("a.tar.gz", "application/gzip"),
            ("a.Dat", "text/plain; charset=utf-8"),
            ("a.css", "text/x-own; charset=latin1"),
            ("a.unknown", UNKNOWN),
            ("README", UNKNOWN),
            ("a.", UNKNOWN),
            ("html", UNKNOWN),
        ] {
            assert_eq!(of(name.as_bytes(), &own), expected, "{name}");
        }
        assert_eq!(of(b"\xff.7Z", &own), "application/x-7z-compressed");
    }

    #[test]
    fn what_is_compressed_already_is_not_again() {
        for (_, kind) in TYPES {
            let is_packed = [
                "image/jpeg",
                "video/",
                "audio/",
                "font/woff",
                "application/zip",
            ];
            if is_packed.iter().any(|start| kind.starts_with(start)) {
                assert!(!is_compressible(kind), "{kind}");
            }
        }
        for kind in [
            "text/css; charset=utf-8",
            "image/svg+xml",
            "application/wasm",
        ] {
            assert!(is_compressible(kind), "{kind}");
        }
        assert!(!is_compressible(UNKNOWN));
    }
}
