//! A request's head once it is checked: its bytes, and where in them everything is.
#![forbid(unsafe_code)]

use super::head::Head;
use super::target;

/// The bytes of a checked request head, and where in them everything is.
pub(crate) struct Checked {
    pub bytes: Vec<u8>,
    pub head: Head,
    /// Those up to the end of the path, as the text that they are.
    line: Box<str>,
    /// When its first byte came, on the exchange's clock.
    pub begun: u64,
}

impl Checked {
    /// A head at the start of `bytes`. Its path comes into the form that is compared. What an absolute target says of the
    /// host goes before the `Host` field, which is to be ignored then (RFC 9112 §3.2.2): nobody is to see two hosts.
    pub fn new(mut bytes: Vec<u8>, mut head: Head) -> Checked {
        let path = &mut bytes[head.path.start as usize..head.path.end as usize];
        head.path.end = head.path.start + target::normalize(path) as u32;
        let line = text(&bytes[..head.path.end as usize]).into();
        if let (true, Some(host)) = (head.is_absolute(&bytes), head.host) {
            let mut fields = head.fields.iter_mut();
            let field = fields.find(|field| field.name.of(&bytes).eq_ignore_ascii_case(b"host"));
            if let Some(field) = field {
                field.value = host;
            }
        }
        Checked {
            bytes,
            head,
            line,
            begun: 0,
        }
    }

    /// What a test asks for, which has to be a whole head.
    #[cfg(test)]
    pub fn of_text(text: &str) -> Checked {
        let limits = super::head::Limits {
            line: 1000,
            head: 1000,
        };
        let bytes = text.as_bytes().to_vec();
        let head = super::head::Parser::new().advance(&bytes, &limits);
        let head = head.ok().flatten().expect("a head");
        Checked::new(bytes, head)
    }

    /// Bytes of memory that it takes.
    pub fn held(&self) -> usize {
        self.bytes.len() + self.line.len()
    }

    pub fn method(&self) -> &str {
        self.head.method.of_text(&self.line)
    }

    pub fn path(&self) -> &str {
        self.head.path.of_text(&self.line)
    }

    /// The host asked for, and its port where one was sent.
    pub fn host(&self) -> Option<&str> {
        self.head.host.map(|host| text(host.of(&self.bytes)))
    }

    pub fn query(&self) -> Option<&str> {
        self.head.query.map(|query| text(query.of(&self.bytes)))
    }

    /// The values of all fields of this name.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let fields = self.head.fields.iter();
        let of_name = fields.filter(|field| {
            let found = field.name.of(&self.bytes);
            found.eq_ignore_ascii_case(name.as_bytes())
        });
        of_name.map(|field| field.value.of(&self.bytes))
    }

    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let fields = self.head.fields.iter();
        fields.map(|field| {
            (
                text(field.name.of(&self.bytes)),
                field.value.of(&self.bytes),
            )
        })
    }
}

/// Methods, targets and hosts are checked to be visible ASCII before anything else sees them.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_twice_counts_twice() {
        let line = format!("GET /{}", "a".repeat(900));
        let text = format!("{line}?q HTTP/1.1\r\nHost: x\r\n\r\n");
        let checked = Checked::of_text(&text);
        assert_eq!(checked.held(), text.len() + line.len());
        assert_eq!((checked.method(), checked.path()), ("GET", &line[4..]));
    }
}
