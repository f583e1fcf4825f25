//! Sequences of what clients send: valid, odd and malformed.

use std::fmt;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::normal::shown;

/// How the servers are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Nobody logs in.
    Open,
    /// Users with permissions, and one who need not log in.
    Users,
    /// Nobody logs in, and there are streams.
    Streams,
}

/// What some connections send, one after the other.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// What it was made from.
    pub seed: u64,
    /// How many connections there are.
    pub connections: usize,
    /// What they send.
    pub steps: Vec<Step>,
}

/// What one connection sends at once.
#[derive(Clone, Debug)]
pub struct Step {
    /// The connection.
    pub connection: usize,
    /// Operations, or what takes their place.
    pub ops: Vec<Op>,
    /// Where the bytes are cut into parts, in 1/1000 of their length.
    cuts: Vec<usize>,
}

/// Bytes that belong together.
#[derive(Clone, Debug)]
pub struct Op {
    bytes: Vec<u8>,
    /// How many PONGs they ask for.
    pings: usize,
}

impl Step {
    /// Everything it sends.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.ops.iter().flat_map(|op| op.bytes.clone()).collect()
    }

    /// How many PONGs answer it.
    #[must_use]
    pub fn pings(&self) -> usize {
        self.ops.iter().map(|op| op.pings).sum()
    }

    /// Leaves out an operation.
    pub fn remove(&mut self, op: usize) {
        self.ops.remove(op);
    }

    /// Its bytes in the parts in which they are written.
    #[must_use]
    pub fn parts<'b>(&self, bytes: &'b [u8]) -> Vec<&'b [u8]> {
        let mut parts = Vec::new();
        let mut from = 0;
        for cut in &self.cuts {
            let to = (bytes.len() * cut / 1000).max(from);
            parts.push(&bytes[from..to]);
            from = to;
        }
        parts.push(&bytes[from..]);
        parts.retain(|part| !part.is_empty());
        parts
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            let cuts = if step.cuts.is_empty() {
                ""
            } else {
                " (in parts)"
            };
            for op in &step.ops {
                writeln!(
                    f,
                    "{:>3}: {} >>> {}{cuts}",
                    index + 1,
                    step.connection,
                    shown(&op.bytes)
                )?;
            }
        }
        Ok(())
    }
}

impl Sequence {
    /// The sequence of a seed.
    #[must_use]
    pub fn generate(seed: u64, flavour: Flavour) -> Self {
        let mut source = Source {
            rng: StdRng::seed_from_u64(seed),
            flavour,
            sids: 0,
            malformed: 0.0,
        };
        // Malformed bytes mostly end a connection: few sequences have many of them.
        source.malformed = *[0.0, 0.0, 0.02, 0.1]
            .choose(&mut source.rng)
            .expect("not empty");
        let connections = source.rng.random_range(1..=4);
        let mut steps: Vec<Step> = (0..connections).filter_map(|at| source.first(at)).collect();
        for _ in 0..source.rng.random_range(4..24) {
            let connection = source.rng.random_range(0..connections);
            let count = *[1, 1, 1, 2, 3, 6]
                .choose(&mut source.rng)
                .expect("not empty");
            let mut ops: Vec<Op> = (0..count).map(|_| source.op()).collect();
            // The reference closes the connection at this one, and still does what is behind it.
            if let Some(at) = ops.iter().position(|op| op.bytes.starts_with(b"-ERR ")) {
                ops.truncate(at + 1);
            }
            steps.push(source.step(connection, ops));
        }
        Self {
            seed,
            connections,
            steps,
        }
    }

    /// Steps and operations.
    #[must_use]
    pub fn size(&self) -> usize {
        self.steps.iter().map(|step| step.ops.len()).sum()
    }
}

struct Source {
    rng: StdRng,
    flavour: Flavour,
    sids: usize,
    /// How often an operation is malformed.
    malformed: f64,
}

/// Letters of the subjects in use: few, so that they meet.
const TOKENS: &[&str] = &["a", "b", "c", "r", "q"];

impl Source {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.choose(&mut self.rng).expect("not empty")
    }

    fn chance(&mut self, of: f64) -> bool {
        self.rng.random_bool(of)
    }

    fn step(&mut self, connection: usize, ops: Vec<Op>) -> Step {
        let mut cuts = Vec::new();
        if self.chance(0.15) {
            cuts = (0..self.rng.random_range(1..4))
                .map(|_| self.rng.random_range(0..1000))
                .collect();
            cuts.sort_unstable();
        }
        Step {
            connection,
            ops,
            cuts,
        }
    }

    /// How a connection begins.
    fn first(&mut self, connection: usize) -> Option<Step> {
        if self.chance(0.05) {
            return None;
        }
        let op = self.connect();
        Some(self.step(connection, vec![op]))
    }

    fn connect(&mut self) -> Op {
        if self.chance(self.malformed) {
            // Left out, a known difference: who brings only a key or a token that the server has no
            // use for is the `no_auth_user` to the reference, and refused by Menes.
            let odd = self.pick(&[
                "CONNECT {}\r\n",
                "CONNECT\r\n",
                "CONNECT \r\n",
                "CONNECT {\"verbose\":true\r\n",
                "CONNECT []\r\n",
                "CONNECT null\r\n",
                "CONNECT {\"verbose\":1}\r\n",
                "CONNECT {\"verbose\":\"true\"}\r\n",
                "CONNECT {\"name\":7}\r\n",
                "CONNECT {\"echo\":null,\"verbose\":null}\r\n",
                "CONNECT {\"VERBOSE\":true}\r\n",
                "CONNECT {\"verbose\":true} \r\n",
                "CONNECT  {\"verbose\":true}\r\n",
                "CONNECT\t{\"verbose\":true}\r\n",
                "connect {\"verbose\":true}\n",
                "CONNECT {\"verbose\":true} x\r\n",
                "CONNECT {\"verbose\":true}{}\r\n",
                "CONNECT {\"protocol\":2}\r\n",
                "CONNECT {\"protocol\":-1}\r\n",
                "CONNECT {\"protocol\":1.0}\r\n",
                "CONNECT {\"protocol\":\"1\"}\r\n",
                "CONNECT {\"no_responders\":true}\r\n",
                "CONNECT {\"no_responders\":true,\"headers\":false}\r\n",
                "CONNECT {\"tls_required\":true}\r\n",
                "CONNECT {\"user\":\"nobody\",\"pass\":\"x\"}\r\n",
                "CONNECT {\"user\":\"full\"}\r\n",
                "CONNECT {\"auth_token\":\"x\"}\r\n",
                "CONNECT {\"account\":\"x\"}\r\n",
                "CONNECT {\"lang\":\"\\u00e9\",\"unknown\":[1,{\"a\":null}]}\r\n",
                "CONNECT {\"verbose\":false,\"verbose\":true}\r\n",
                "CONNECT {\"name\":\"a b\",\"name\":\"\\u0000\"}\r\n",
            ]);
            return line(odd);
        }
        let mut fields = Vec::new();
        let mut flag = |source: &mut Self, name: &str, on: f64| {
            if source.chance(0.8) {
                let value = source.chance(on);
                fields.push(format!("\"{name}\":{value}"));
                return value;
            }
            false
        };
        flag(self, "verbose", 0.3);
        flag(self, "pedantic", 0.4);
        flag(self, "echo", 0.7);
        if flag(self, "headers", 0.8) {
            flag(self, "no_responders", 0.6);
        }
        if self.chance(0.5) {
            let protocol = self.rng.random_range(0..2);
            fields.push(format!("\"protocol\":{protocol}"));
        }
        if self.flavour == Flavour::Users {
            let user = self.pick(&["full", "limited", "limited", "deny"]);
            if self.chance(0.95) {
                fields.push(format!("\"user\":\"{user}\",\"pass\":\"{user}\""));
            }
        }
        line(&format!("CONNECT {{{}}}\r\n", fields.join(",")))
    }

    fn op(&mut self) -> Op {
        if self.chance(self.malformed) {
            return self.malformed();
        }
        match self.rng.random_range(0..100) {
            0..30 => self.subscribe(),
            30..40 => self.unsubscribe(),
            40..72 => self.publish(),
            72..90 => self.publish_headers(),
            90..94 => {
                ping(self.pick(&["PING\r\n", "ping\r\n", "PING \r\n", "PiNg\n", "PING\t\r\n"]))
            }
            94..96 => line(self.pick(&["PONG\r\n", "pong \r\n", "PONG\n"])),
            96..97 => line(self.pick(&["+OK\r\n", "+ok\r\n"])),
            97..98 => self.connect(),
            _ => self.subscribe(),
        }
    }

    fn literal(&mut self) -> String {
        let count = *[1, 1, 2, 2, 2, 3, 4]
            .choose(&mut self.rng)
            .expect("not empty");
        let tokens: Vec<&str> = (0..count).map(|_| self.pick(TOKENS)).collect();
        tokens.join(".")
    }

    fn filter(&mut self) -> String {
        if self.chance(0.02) {
            return self.odd_subject();
        }
        let subject = self.literal();
        let mut tokens: Vec<&str> = subject.split('.').collect();
        for token in &mut tokens {
            if self.chance(0.25) {
                *token = "*";
            }
        }
        if self.chance(0.25) {
            let last = tokens.len() - 1;
            tokens[last] = ">";
        }
        tokens.join(".")
    }

    /// Subjects that are not valid everywhere.
    fn odd_subject(&mut self) -> String {
        self.pick(&[
            "a..b",
            ".a",
            "a.",
            "..",
            ".",
            "a.>.b",
            ">.a",
            "a*",
            "*a.b",
            "a.b>",
            "a.*>",
            "**",
            ">>",
            "a.*.>",
            "\u{e9}.a",
            "a.\u{7f}",
            "a\u{1}b",
            "a.a.a.a.a.a",
            "a.a.a.a.a.a.a",
            "$a",
            "_a.b",
            "a,b",
            "a\"b",
            "$SYS.x",
            "$JS.API.INFO",
            "$JS.ACK.x",
            "_R_.x",
            "_GR_.x",
            "$GR.x",
            "$NRG.x",
            "$MQTT.x",
            "_INBOX.x.y",
        ])
        .to_owned()
    }

    fn gap(&mut self) -> &'static str {
        if self.chance(0.93) {
            " "
        } else {
            self.pick(&["  ", "\t", " \t "])
        }
    }

    fn end(&mut self) -> &'static str {
        if self.chance(0.95) {
            "\r\n"
        } else {
            self.pick(&["\n", " \r\n", "\t\r\n", "  \n"])
        }
    }

    fn verb(&mut self, verb: &str) -> String {
        match self.rng.random_range(0..20) {
            0 => verb.to_lowercase(),
            1 => verb
                .chars()
                .enumerate()
                .map(|(at, c)| {
                    if at % 2 == 0 {
                        c
                    } else {
                        c.to_ascii_lowercase()
                    }
                })
                .collect(),
            _ => verb.to_owned(),
        }
    }

    fn line(&mut self, verb: &str, args: &[&str]) -> Vec<u8> {
        let mut text = self.verb(verb);
        for arg in args {
            text += self.gap();
            text += arg;
        }
        text += self.end();
        text.into_bytes()
    }

    fn subscribe(&mut self) -> Op {
        let filter = self.filter();
        if self.chance(0.25) {
            self.sids += 1;
            let group = self.pick(&["g1", "g2", "v.g", "g3"]);
            // A sid that tells the filter and the group, for the comparison.
            let sid = format!("q{}/{group}_{}", filter.replace(['_', ' '], "-"), self.sids);
            return Op {
                bytes: self.line("SUB", &[&filter, group, &sid]),
                pings: 0,
            };
        }
        let sid = self.sid();
        Op {
            bytes: self.line("SUB", &[&filter, &sid]),
            pings: 0,
        }
    }

    /// A new sid, or one that may be in use.
    fn sid(&mut self) -> String {
        if self.chance(0.8) {
            self.sids += 1;
            return format!("{}", self.sids);
        }
        match self.rng.random_range(0..8) {
            0 => self
                .pick(&["x", "-1", "0", "a.b", "1e3", "\u{e9}"])
                .to_owned(),
            _ => self.rng.random_range(1..self.sids + 2).to_string(),
        }
    }

    fn unsubscribe(&mut self) -> Op {
        let sid = self.rng.random_range(1..self.sids + 2).to_string();
        let bytes = match self.rng.random_range(0..10) {
            0..4 => self.line("UNSUB", &[&sid]),
            4 => {
                let max = self.pick(&["0", "-1", "x", "1x", "99999999999", "007", "+2", "1.5"]);
                self.line("UNSUB", &[&sid, max])
            }
            _ => {
                let max = self.rng.random_range(1..6).to_string();
                self.line("UNSUB", &[&sid, &max])
            }
        };
        Op { bytes, pings: 0 }
    }

    fn target(&mut self) -> String {
        match self.rng.random_range(0..40) {
            0 => self.odd_subject(),
            1 => self.filter(),
            _ => self.literal(),
        }
    }

    fn reply(&mut self) -> Option<String> {
        if self.chance(0.6) {
            return None;
        }
        if self.chance(0.05) {
            return Some(self.odd_subject());
        }
        let reply = self.literal();
        Some(format!("r.{reply}"))
    }

    fn payload(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..20) {
            0 => vec![b'x'; self.rng.random_range(1..1200)],
            1 => b"PONG\r\nMSG a 1 1\r\n".to_vec(),
            2 => vec![0, 13, 10, 255],
            3..7 => Vec::new(),
            _ => {
                let number: u32 = self.rng.random_range(0..1000);
                number.to_string().into_bytes()
            }
        }
    }

    fn publish(&mut self) -> Op {
        let target = self.target();
        let reply = self.reply();
        let payload = self.payload();
        let size = payload.len().to_string();
        let args: Vec<&str> = [Some(target.as_str()), reply.as_deref(), Some(&size)]
            .into_iter()
            .flatten()
            .collect();
        let mut bytes = self.line("PUB", &args);
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(b"\r\n");
        Op { bytes, pings: 0 }
    }

    fn publish_headers(&mut self) -> Op {
        let target = self.target();
        let reply = self.reply();
        let payload = self.payload();
        let header = self.header();
        let header_len = header.len().to_string();
        let total = (header.len() + payload.len()).to_string();
        let args: Vec<&str> = [
            Some(target.as_str()),
            reply.as_deref(),
            Some(&header_len),
            Some(&total),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut bytes = self.line("HPUB", &args);
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(b"\r\n");
        Op { bytes, pings: 0 }
    }

    fn header(&mut self) -> String {
        if self.chance(0.75) {
            let pairs = self.rng.random_range(0..3);
            let mut header = "NATS/1.0\r\n".to_owned();
            for _ in 0..pairs {
                header += self.pick(&[
                    "A: 1\r\n",
                    "a:2\r\n",
                    "Nats-Msg-Id: x\r\n",
                    "B:  \r\n",
                    "C: \u{e9}\r\n",
                ]);
            }
            return header + "\r\n";
        }
        self.pick(&[
            "NATS/1.0 503\r\n\r\n",
            "NATS/1.0 100 Idle Heartbeat\r\n\r\n",
            "NATS/1.0\r\n",
            "NATS/1.0",
            "x",
            "",
            "\r\n\r\n",
            "NATS/9.9\r\nA: b\r\n\r\n",
            "NATS/1.0\r\nA\r\n\r\n",
            "NATS/1.0\r\nA : b\r\n\r\n",
            "NATS/1.0\r\n: b\r\n\r\n",
            "NATS/1.0\r\n A: b\r\n\r\n",
            "NATS/1.0\nA: b\n\n",
        ])
        .to_owned()
    }

    fn malformed(&mut self) -> Op {
        let long = "x".repeat(self.rng.random_range(490..540));
        let bytes: Vec<u8> = match self.rng.random_range(0..8) {
            0 => format!("SUB {long} 9\r\n").into_bytes(),
            1 => format!("PUB {long} 2\r\nhi\r\n").into_bytes(),
            2 => self.mutated(),
            3 => self.mutated(),
            _ => self
                .pick(&[
                    "\r\n",
                    "\n",
                    "FOO\r\n",
                    "P\r\n",
                    "PIN\r\n",
                    "PINGX\r\n",
                    "PING x\r\n",
                    "PONGPING\r\n",
                    "P ING\r\n",
                    " PING\r\n",
                    "SUB\r\n",
                    "SUB \r\n",
                    "SUB a\r\n",
                    "SUB a b c d\r\n",
                    "SUB a  \r\n",
                    "SUBa 1\r\n",
                    "SUB a _sys_ 77\r\n",
                    "UNSUB\r\n",
                    "UNSUB \r\n",
                    "UNSUB 1 2 3\r\n",
                    "UNSUB1\r\n",
                    "PUB\r\n",
                    "PUB \r\n",
                    "PUB a\r\n",
                    "PUB a 2\r\nhi there\r\n",
                    "PUB a 9\r\nhi\r\n",
                    "PUB a -1\r\n\r\n",
                    "PUB a +2\r\nhi\r\n",
                    "PUB a 2x\r\nhi\r\n",
                    "PUB a 1.0\r\nh\r\n",
                    "PUB a 02\r\nhi\r\n",
                    "PUB a 0000000002\r\nhi\r\n",
                    "PUB a 99999999999999999999\r\nhi\r\n",
                    "PUB a 1025\r\n",
                    "PUB a b c 2\r\nhi\r\n",
                    "PUB a 2\r\nhi\n\n",
                    "PUB a 2\nhi\r\n",
                    "PUB a 2\r\nhi\r\r",
                    "PUB a 2\r\nhi\rX",
                    "PUB a 0\r\nX\r\n",
                    "HPUB\r\n",
                    "HPUB a 12\r\n",
                    "HPUB a 12 2\r\nNATS/1.0\r\n\r\n\r\n",
                    "HPUB a -1 2\r\nhi\r\n",
                    "HPUB a 12 -2\r\nhi\r\n",
                    "HPUB a b c 12 12\r\nNATS/1.0\r\n\r\n\r\n",
                    "HPUB a 1025 1025\r\n",
                    "HPUB a 12 1025\r\n",
                    "HPUB a 0 2\r\nhi\r\n",
                    "MSG a 1 2\r\nhi\r\n",
                    "RMSG a 1 2\r\nhi\r\n",
                    "RS+ a\r\n",
                    "LS+ a\r\n",
                    "A+ a\r\n",
                    "INFO {}\r\n",
                    "INFO\r\n",
                    "-ERR 'x'\r\n",
                    "-ERR\r\n",
                    "+O\r\n",
                    "+OK x\r\n",
                    "-OK\r\n",
                    "\0\0\0\0\r\n",
                    "GET / HTTP/1.1\r\n\r\n",
                    "\u{e9}\r\n",
                    "CONNECT {\"verbose\":true",
                ])
                .as_bytes()
                .to_vec(),
        };
        let pings = usize::from(bytes.starts_with(b"PING x"));
        Op { bytes, pings }
    }

    /// A valid operation with a byte changed, added or taken away.
    ///
    /// None has a carriage return inside a line: the reference takes it for part of a subject, which
    /// then breaks the lines of all receivers; Menes closes the connection. Nor does a line end where
    /// its first argument should begin: the reference takes that for an argument.
    fn mutated(&mut self) -> Vec<u8> {
        loop {
            let bytes = self.mutation();
            if !has_inner_return(&bytes) && !ends_before_arguments(&bytes) {
                return bytes;
            }
        }
    }

    fn mutation(&mut self) -> Vec<u8> {
        let mut bytes = match self.rng.random_range(0..3) {
            0 => self.subscribe().bytes,
            1 => self.publish_headers().bytes,
            _ => self.publish().bytes,
        };
        let at = self.rng.random_range(0..bytes.len());
        let byte = *[0, 9, 10, 13, 32, 43, 45, 48, 57, 65, 127, 255]
            .choose(&mut self.rng)
            .expect("not empty");
        match self.rng.random_range(0..3) {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => {
                bytes.remove(at);
            }
        }
        bytes
    }
}

fn has_inner_return(bytes: &[u8]) -> bool {
    bytes
        .windows(2)
        .any(|two| two[0] == b'\r' && two[1] != b'\n')
        || bytes.ends_with(b"\r")
}

fn ends_before_arguments(bytes: &[u8]) -> bool {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let mut behind_verb = bytes.iter().skip_while(|byte| !is_blank(byte));
    behind_verb.find(|byte| !is_blank(byte)) == Some(&b'\n')
}

fn line(text: &str) -> Op {
    Op {
        bytes: text.as_bytes().to_vec(),
        pings: 0,
    }
}

fn ping(text: &str) -> Op {
    Op {
        bytes: text.as_bytes().to_vec(),
        pings: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence() {
        for seed in 0..50 {
            let [a, b] = [0, 1].map(|_| Sequence::generate(seed, Flavour::Users).to_string());
            assert_eq!(a, b);
        }
    }

    #[test]
    fn parts_are_the_whole() {
        for seed in 0..200 {
            for step in Sequence::generate(seed, Flavour::Open).steps {
                let bytes = step.bytes();
                assert_eq!(step.parts(&bytes).concat(), bytes);
            }
        }
    }
}
