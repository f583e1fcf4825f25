//! Distinguished names, as certificates hold them and as configurations write them.
//!
//! A configuration writes RFC 4514 text, the last attribute of the certificate first. Two names are
//! equal when their parts are, in order; the order of the parts may also be ignored, as
//! nats-server does after it found no equal one.

use std::str::FromStr;

use x509_parser::der_parser::oid::Oid;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dn {
    parts: Vec<Part>,
}

/// One relative name: attributes that belong together.
#[derive(Clone, Debug)]
struct Part(Vec<Attribute>);

#[derive(Clone, Debug)]
struct Attribute {
    kind: String,
    value: String,
}

impl PartialEq for Attribute {
    fn eq(&self, other: &Self) -> bool {
        self.kind.eq_ignore_ascii_case(&other.kind) && self.value == other.value
    }
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        let has_all = |a: &Self, b: &Self| b.0.iter().all(|attribute| a.0.contains(attribute));
        self.0.len() == other.0.len() && has_all(self, other) && has_all(other, self)
    }
}

impl Eq for Part {}

impl Dn {
    /// The subject of a certificate; `None` if it has an attribute without a short name or one
    /// that is not text.
    pub(crate) fn of_subject(subject: &X509Name<'_>) -> Option<Self> {
        let mut parts = Vec::new();
        for relative in subject.iter() {
            let attributes: Option<Vec<Attribute>> = relative.iter().map(attribute).collect();
            let mut attributes = attributes?;
            attributes.reverse();
            if !attributes.is_empty() {
                parts.push(Part(attributes));
            }
        }
        parts.reverse();
        Some(Self { parts })
    }

    /// Whether both have the same parts, in any order.
    pub(crate) fn has_parts_of(&self, other: &Self) -> bool {
        if self.parts.len() != other.parts.len() {
            return false;
        }
        let mut left: Vec<&Part> = other.parts.iter().collect();
        self.parts.iter().all(|part| {
            let found = left.iter().position(|candidate| *candidate == part);
            found.is_some_and(|at| {
                left.swap_remove(at);
                true
            })
        })
    }
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Option<Attribute> {
    Some(Attribute {
        kind: short_name(attribute.attr_type())?.to_owned(),
        value: text_of(attribute)?,
    })
}

/// The text of an attribute.
pub(super) fn text_of(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    attribute.as_str().ok().map(str::to_owned)
}

/// The short name of an attribute that distinguished names are written with.
pub(super) fn short_name(kind: &Oid<'_>) -> Option<&'static str> {
    Some(match kind.to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "SERIALNUMBER",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.17" => "POSTALCODE",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => return None,
    })
}

/// Why a text is no distinguished name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotADn;

impl FromStr for Dn {
    type Err = NotADn;

    fn from_str(text: &str) -> Result<Self, NotADn> {
        let mut reader = Reader::default();
        let mut bytes = text.bytes().peekable();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => {
                    let first = bytes.next().ok_or(NotADn)?;
                    if br##" "#+,;<=>\"##.contains(&first) {
                        reader.put(first);
                    } else {
                        let digits = [first, bytes.next().ok_or(NotADn)?];
                        let digits = std::str::from_utf8(&digits).map_err(|_| NotADn)?;
                        reader.put(u8::from_str_radix(digits, 16).map_err(|_| NotADn)?);
                    }
                }
                b'=' => {
                    if bytes.peek() == Some(&b'#') {
                        return Err(NotADn);
                    }
                    reader.kind = reader.take()?;
                }
                b',' | b'+' => reader.end_attribute(byte == b',')?,
                b' ' if reader.text.is_empty() => {}
                b' ' => {
                    reader.text.push(byte);
                    reader.trailing_spaces += 1;
                }
                other => reader.put(other),
            }
        }
        if !reader.text.is_empty() {
            reader.end_attribute(true)?;
        }
        Ok(Self {
            parts: reader.parts,
        })
    }
}

#[derive(Default)]
struct Reader {
    parts: Vec<Part>,
    attributes: Vec<Attribute>,
    kind: String,
    text: Vec<u8>,
    trailing_spaces: usize,
}

impl Reader {
    fn put(&mut self, byte: u8) {
        self.text.push(byte);
        self.trailing_spaces = 0;
    }

    fn take(&mut self) -> Result<String, NotADn> {
        let mut text = std::mem::take(&mut self.text);
        text.truncate(text.len() - std::mem::take(&mut self.trailing_spaces));
        String::from_utf8(text).map_err(|_| NotADn)
    }

    fn end_attribute(&mut self, ends_part: bool) -> Result<(), NotADn> {
        let kind = std::mem::take(&mut self.kind);
        if kind.is_empty() {
            return Err(NotADn);
        }
        let value = self.take()?;
        self.attributes.push(Attribute { kind, value });
        if ends_part {
            self.parts.push(Part(std::mem::take(&mut self.attributes)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dn(text: &str) -> Dn {
        text.parse().expect(text)
    }

    #[test]
    fn notation_does_not_count() {
        assert_eq!(dn("CN=a, O=b"), dn("cn=a,o=b"));
        assert_eq!(dn("CN=a+OU=c,O=b"), dn("OU=c+CN=a,O=b"));
        assert_eq!(dn(r"CN=a\,b"), dn(r"CN=a\2cb"));
        assert_ne!(dn("CN=a,O=b"), dn("CN=A,O=b"));
        assert_ne!(dn("CN=a,O=b"), dn("O=b,CN=a"));
        assert_ne!(dn("CN=a"), dn("CN=a,CN=a"));
    }

    #[test]
    fn parts_may_come_in_any_order_but_not_more_often() {
        assert!(dn("CN=a,O=b,C=c").has_parts_of(&dn("C=c,CN=a,O=b")));
        assert!(!dn("CN=a,CN=a,O=b").has_parts_of(&dn("CN=a,O=b,O=b")));
        assert!(!dn("CN=a,O=b").has_parts_of(&dn("CN=a")));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "abc", "CN=a,b", ",", "CN=#04", r"CN=a\", r"CN=a\zz", r"CN=\ff",
        ] {
            assert_eq!(text.parse::<Dn>(), Err(NotADn), "{text}");
        }
    }

    proptest! {
        #[test]
        fn foreign_text_is_read_or_refused(text in ".{0,60}") {
            let _ = text.parse::<Dn>();
        }

        #[test]
        fn a_written_value_is_read_back(value in "[a-zA-Z,+= \"\\\\]{1,20}") {
            let escaped: String = value.bytes().map(|byte| format!("\\{byte:02x}")).collect();
            let Dn { parts } = dn(&format!("CN={escaped}"));
            prop_assert_eq!(&parts[0].0[0].value, &value);
        }
    }
}
