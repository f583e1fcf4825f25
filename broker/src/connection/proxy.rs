//! The PROXY protocol: what a load balancer says about the client before the client speaks.
//!
//! Version 1 is a line of text, version 2 a header of bytes; both tell the client's address. The
//! parser is fed bytes until it has an answer and holds no more than the longest header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// How version 1 begins.
const TEXT_PREFIX: &[u8] = b"PROXY ";
/// Longest line of version 1, its CRLF included.
const MAX_LINE: usize = 107;
/// How version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before the addresses.
const FIXED_BYTES: usize = 16;
/// Most bytes of addresses and what may follow them.
const MAX_ADDRESS_BYTES: usize = 4096;

/// What stands in front of the client's own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preface {
    /// More bytes are needed to tell; there are at least this many.
    Incomplete(usize),
    /// Nothing: the client is connected directly.
    Absent,
    /// A header of `len` bytes; no address when the proxy speaks for itself, as for health checks.
    Header {
        /// Bytes of the header.
        len: usize,
        /// Where the client is.
        client: Option<SocketAddr>,
    },
}

/// Why a header cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum PrefaceError {
    #[error("invalid PROXY protocol header: {0}")]
    Invalid(&'static str),
    #[error("unsupported PROXY protocol feature: {0}")]
    Unsupported(&'static str),
}

use PrefaceError::{Invalid, Unsupported};

/// Looks at the first bytes of a connection.
///
/// # Errors
/// What begins as a header and is none.
pub(super) fn parse(bytes: &[u8]) -> Result<Preface, PrefaceError> {
    let start = &bytes[..bytes.len().min(TEXT_PREFIX.len())];
    let is_text = TEXT_PREFIX.starts_with(start);
    let is_binary = SIGNATURE.starts_with(start);
    if !is_text && !is_binary {
        return Ok(Preface::Absent);
    }
    if bytes.len() < TEXT_PREFIX.len() {
        return Ok(Preface::Incomplete(TEXT_PREFIX.len()));
    }
    if is_text { text(bytes) } else { binary(bytes) }
}

fn text(bytes: &[u8]) -> Result<Preface, PrefaceError> {
    let searched = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = memchr::memmem::find(searched, b"\r\n") else {
        return if bytes.len() >= MAX_LINE {
            Err(Invalid("v1 line too long"))
        } else {
            Ok(Preface::Incomplete(bytes.len() + 1))
        };
    };
    let line = std::str::from_utf8(&bytes[TEXT_PREFIX.len()..end])
        .map_err(|_| Invalid("invalid v1 format"))?;
    let header = |client| Preface::Header {
        len: end + 2,
        client,
    };
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    match fields.as_slice() {
        ["UNKNOWN", ..] => Ok(header(None)),
        [protocol, source, destination, source_port, destination_port] => {
            let address = |text: &str| {
                text.parse::<IpAddr>()
                    .map_err(|_| Invalid("invalid address"))
            };
            let port = |text: &str| text.parse::<u16>().map_err(|_| Invalid("invalid port"));
            let (source, destination) = (address(source)?, address(destination)?);
            let source_port = port(source_port)?;
            port(destination_port)?;
            match *protocol {
                "TCP4" if source.is_ipv4() && destination.is_ipv4() => {}
                "TCP6" if source.is_ipv6() && destination.is_ipv6() => {}
                "TCP4" => return Err(Invalid("TCP4 with IPv6 address")),
                "TCP6" => return Err(Invalid("TCP6 with IPv4 address")),
                _ => return Err(Invalid("invalid protocol")),
            }
            Ok(header(Some(SocketAddr::new(source, source_port))))
        }
        _ => Err(Invalid("invalid v1 format")),
    }
}

fn binary(bytes: &[u8]) -> Result<Preface, PrefaceError> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(Invalid("invalid signature"));
    }
    if bytes.len() < FIXED_BYTES {
        return Ok(Preface::Incomplete(FIXED_BYTES));
    }
    let [command, family, high, low] = [bytes[12], bytes[13], bytes[14], bytes[15]];
    if command & 0xf0 != 0x20 {
        return Err(Invalid("invalid version"));
    }
    let address_bytes = usize::from(u16::from_be_bytes([high, low]));
    if address_bytes > MAX_ADDRESS_BYTES {
        return Err(Invalid("too long"));
    }
    let len = FIXED_BYTES + address_bytes;
    let is_local = match command & 0x0f {
        0 => true,
        1 => false,
        _ => return Err(Invalid("unknown command")),
    };
    if !is_local && family & 0x0f != 1 {
        return Err(Unsupported("only STREAM protocol supported"));
    }
    let Some(addresses) = bytes.get(FIXED_BYTES..len) else {
        return Ok(Preface::Incomplete(len));
    };
    let client = match family & 0xf0 {
        _ if is_local => None,
        0x00 => None,
        0x10 => Some(version4(addresses)?),
        0x20 => Some(version6(addresses)?),
        _ => return Err(Unsupported("unsupported address family")),
    };
    Ok(Preface::Header { len, client })
}

fn version4(bytes: &[u8]) -> Result<SocketAddr, PrefaceError> {
    let bytes: &[u8; 12] = bytes
        .first_chunk()
        .ok_or(Invalid("IPv4 address data too short"))?;
    let ip = Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
    Ok((ip, u16::from_be_bytes([bytes[8], bytes[9]])).into())
}

fn version6(bytes: &[u8]) -> Result<SocketAddr, PrefaceError> {
    let bytes: &[u8; 36] = bytes
        .first_chunk()
        .ok_or(Invalid("IPv6 address data too short"))?;
    let octets: &[u8; 16] = bytes.first_chunk().expect("36 bytes hold 16");
    let ip = Ipv6Addr::from(*octets);
    Ok((ip, u16::from_be_bytes([bytes[32], bytes[33]])).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("an address"))
    }

    fn header(len: usize, client: Option<SocketAddr>) -> Result<Preface, PrefaceError> {
        Ok(Preface::Header { len, client })
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        let len = u16::try_from(addresses.len()).expect("short");
        bytes.extend(len.to_be_bytes());
        bytes.extend(addresses);
        bytes
    }

    #[test]
    fn lines_tell_where_the_client_is() {
        assert_eq!(
            parse(b"PROXY TCP4 192.0.2.1 10.0.0.1 5678 4222\r\nCONNECT"),
            header(41, at("192.0.2.1:5678"))
        );
        assert_eq!(
            parse(b"PROXY TCP6 2001:db8::1 ::1 5678 4222\r\n"),
            header(38, at("[2001:db8::1]:5678"))
        );
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), header(15, None));
        assert_eq!(parse(b"PROXY UNKNOWN a b c\r\n"), header(21, None));
    }

    #[test]
    fn headers_tell_where_the_client_is() {
        let four = [192, 0, 2, 1, 10, 0, 0, 1, 0x16, 0x2e, 0x10, 0x7e];
        assert_eq!(
            parse(&v2(0x21, 0x11, &four)),
            header(28, at("192.0.2.1:5678"))
        );
        let mut six = [0; 36];
        six[15] = 1;
        six[33] = 9;
        assert_eq!(parse(&v2(0x21, 0x21, &six)), header(52, at("[::1]:9")));
        assert_eq!(parse(&v2(0x20, 0x00, b"xyz")), header(19, None));
        assert_eq!(parse(&v2(0x21, 0x01, b"")), header(16, None));
    }

    #[test]
    fn clients_without_a_proxy_are_left_alone() {
        for bytes in [
            &b"CONNECT {}\r\n"[..],
            b"PING\r\n",
            b"\x16\x03\x01\x02\x00\x01",
            b"GET / HTTP/1.1",
        ] {
            assert_eq!(parse(bytes), Ok(Preface::Absent));
        }
        assert_eq!(parse(b"P"), Ok(Preface::Incomplete(6)));
        assert_eq!(parse(b""), Ok(Preface::Incomplete(6)));
    }

    #[test]
    fn what_only_begins_as_a_header_is_refused() {
        for bytes in [
            &b"PROXY TCP4 ::1 ::1 1 2\r\n"[..],
            b"PROXY TCP6 127.0.0.1 127.0.0.1 1 2\r\n",
            b"PROXY TCP4 127.0.0.1 127.0.0.1 1 99999\r\n",
            b"PROXY TCP4 127.0.0.1 127.0.0.1 1\r\n",
            b"PROXY UDP4 127.0.0.1 127.0.0.1 1 2\r\n",
            b"PROXY TCP4 a b 1 2\r\n",
            &[b"PROXY ".as_slice(), &[b'x'; 200]].concat(),
            b"\r\n\r\n\0\r\nQUIX\n",
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x12, &[0; 12]),
            &v2(0x21, 0x31, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x21, &[0; 35]),
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn bytes_may_come_in_any_pieces(
            ip in any::<[u8; 4]>(), port in any::<u16>(), is_text in any::<bool>(),
        ) {
            let address = SocketAddr::from((ip, port));
            let whole = if is_text {
                format!("PROXY TCP4 {} 10.0.0.1 {port} 4222\r\n", address.ip()).into_bytes()
            } else {
                let mut bytes = ip.to_vec();
                bytes.extend([10, 0, 0, 1]);
                bytes.extend(port.to_be_bytes());
                bytes.extend([0, 1]);
                v2(0x21, 0x11, &bytes)
            };
            for end in 0..whole.len() {
                let part = parse(&whole[..end]).expect("so far so good");
                let Preface::Incomplete(wanted) = part else {
                    panic!("{part:?} at {end}");
                };
                prop_assert!(wanted > end && wanted <= whole.len());
            }
            prop_assert_eq!(parse(&whole), header(whole.len(), Some(address)));
        }

        #[test]
        fn foreign_bytes_are_harmless(
            start in prop_oneof![Just(&b""[..]), Just(TEXT_PREFIX), Just(SIGNATURE)],
            rest in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let bytes = [start, &rest].concat();
            if let Ok(Preface::Header { len, .. }) = parse(&bytes) {
                prop_assert!(len <= bytes.len());
            }
        }
    }
}
