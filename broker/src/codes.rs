//! Codes of errors, with what they mean and what helps: one table for the management API, the
//! commands and `menes explain`.
//!
//! A code is never used for something else. The test below fails when the source names one that is
//! not here.

/// What is known of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// `E-AREA-WORD`.
    pub code: &'static str,
    /// What happened, in a line.
    pub what: &'static str,
    /// Why it happens.
    pub cause: &'static str,
    /// What to do.
    pub fix: &'static str,
}

const fn code(
    code: &'static str,
    what: &'static str,
    cause: &'static str,
    fix: &'static str,
) -> Code {
    Code {
        code,
        what,
        cause,
        fix,
    }
}

/// All of them, sorted.
pub const CODES: &[Code] = &[
    code(
        "E-API-BODY",
        "the body of the request cannot be used",
        "It is no JSON object, names a field that the route does not have, or did not arrive whole.",
        "compare it with the route in /api/v1/openapi.json",
    ),
    code(
        "E-API-BUSY",
        "the server takes no more users now",
        "It is starting or stopping, or has as many connections as it may have (max_connections).",
        "wait a moment and try again; raise max_connections if it goes on",
    ),
    code(
        "E-API-CHANGED",
        "another request changed the same thing at the same time",
        "Two changes met, and the other one was first. Nothing of this one was done.",
        "look at it again, then repeat the change",
    ),
    code(
        "E-API-CONFLICT",
        "it is there already",
        "Something with this name exists, with other settings than were asked for.",
        "change what is there with PATCH or `edit`, or choose another name",
    ),
    code(
        "E-API-HOST",
        "the request was made by a name or from a page that is not of this machine",
        "`menes dev` lets anyone in, so it answers browsers only for pages of this machine, asked for as localhost or by a loopback address.",
        "ask for http://localhost with the port; for others start `menes serve`, where users log in",
    ),
    code(
        "E-API-MATCH",
        "the object is not what it was when it was looked at",
        "If-Match names an etag, and the object has been changed since. Nothing was done.",
        "take the current object from the answer, and repeat the change with its etag",
    ),
    code(
        "E-API-MISSING",
        "what the request names does not exist",
        "It was removed, never made, or belongs to another account.",
        "list what there is: menes station ls, menes group ls STATION, menes schema ls",
    ),
    code(
        "E-API-QUERY",
        "a parameter of the request cannot be used",
        "The route has no such parameter, or it has to be a number.",
        "compare it with the route in /api/v1/openapi.json",
    ),
    code(
        "E-API-REFUSED",
        "the broker does not do this",
        "A value is out of range, or a rule forbids the change; the text says which.",
        "change the value that the text names",
    ),
    code(
        "E-API-REPEAT",
        "an Idempotency-Key was used for two different requests",
        "A key belongs to one request, and is kept for a day.",
        "use a new key for a new request",
    ),
    code(
        "E-API-ROUTE",
        "there is no such route",
        "The path or the method is mistyped, or belongs to another version.",
        "GET /api/v1/openapi.json lists the routes",
    ),
    code(
        "E-API-RUNNING",
        "the same request is being carried out",
        "A request with this Idempotency-Key has not been answered yet.",
        "wait a moment and repeat it with the same key: it gives the same answer",
    ),
    code(
        "E-API-SIZE",
        "the body of the request is too large",
        "Documents have at most 2 MiB, messages what max_payload allows and 1 MiB more.",
        "send less at a time",
    ),
    code(
        "E-API-STREAMS",
        "the account keeps no messages",
        "JetStream is off, or not enabled for the account of this user.",
        "start the server with JetStream (menes serve does), or enable it for the account",
    ),
    code(
        "E-API-TYPE",
        "the body of the request has the wrong type",
        "Requests that change something carry application/json, so that no page of another site can send them.",
        "send Content-Type: application/json",
    ),
    code(
        "E-API-UNKNOWN",
        "it is not known whether it was done",
        "The broker did not answer in time. What was asked for may be done all the same.",
        "look whether it was done, or repeat it with an Idempotency-Key: it will not be done twice",
    ),
    code(
        "E-API-VIEWS",
        "too many live views are open",
        "A server serves 128 of them at a time, and 16 to one user.",
        "close one, or follow several topics with one view: /events?topics=a,b",
    ),
    code(
        "E-AUTH-DENIED",
        "the user may not do this",
        "Permissions of the user leave it out.",
        "ask somebody who manages users to permit it, or use another user",
    ),
    code(
        "E-AUTH-LOGIN",
        "nobody is logged in",
        "The user is unknown, the password or the token is wrong, or the session has ended.",
        "log in: POST /api/v1/sessions; on the command line --user and NATS_PASSWORD, or a context",
    ),
    code(
        "E-CLI-CONTEXT",
        "a context cannot be used",
        "There is none of this name, or its file cannot be read or written.",
        "menes context ls lists them; menes context add NAME --server URL makes one",
    ),
    code(
        "E-CLI-USAGE",
        "the command was called wrongly",
        "An argument is missing, mistyped, or makes no sense with another one.",
        "add --help to the command: it begins with examples",
    ),
    code(
        "E-CONN-REFUSED",
        "the server cannot be reached, or does not answer",
        "It does not run, listens elsewhere, or something is between.",
        "menes serve starts one; --server or NATS_URL says where it is",
    ),
    code(
        "E-MSG-SIZE",
        "the message is larger than it may be",
        "A message has at most max_payload bytes with its headers (1 MiB unless configured).",
        "send less in a message, or raise max_payload",
    ),
    code(
        "E-SCHEMA-VIOLATION",
        "the message violates the schema of the station",
        "The text says where. It was not stored; if the station says so, it is kept as a dead letter.",
        "mend the message, or activate another version: menes schema ls; menes dls ls STATION",
    ),
];

/// What is known of a code, in any case.
#[must_use]
pub fn find(code: &str) -> Option<&'static Code> {
    CODES
        .iter()
        .find(|known| known.code.eq_ignore_ascii_case(code))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The codes that a text names.
    fn codes_in(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (at, _) in text.match_indices("\"E-") {
            let rest = &text[at + 1..];
            let end = rest
                .find(|letter: char| !letter.is_ascii_uppercase() && letter != '-')
                .unwrap_or(rest.len());
            let code = rest[..end].trim_end_matches('-');
            if code.matches('-').count() == 2 && !code.ends_with('-') {
                found.push(code.to_owned());
            }
        }
        found
    }

    fn collect(folder: &Path, into: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("a folder of the source") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, into);
            } else if path.extension().is_some_and(|kind| kind == "rs")
                && path.file_name().is_some_and(|name| name != "codes.rs")
            {
                into.extend(codes_in(&fs::read_to_string(&path).expect("text")));
            }
        }
    }

    #[test]
    fn every_code_of_the_source_is_explained_and_none_other() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the workspace");
        let mut used = BTreeSet::new();
        for part in ["broker/src", "cli/src"] {
            collect(&root.join(part), &mut used);
        }
        let known: BTreeSet<String> = CODES.iter().map(|known| known.code.to_owned()).collect();
        assert_eq!(used, known);
    }

    #[test]
    fn every_text_says_something() {
        assert!(CODES.is_sorted_by_key(|known| known.code));
        for known in CODES {
            for text in [known.what, known.cause, known.fix] {
                assert!(text.len() > 15 && !text.contains('!'), "{known:?}");
            }
            assert_eq!(find(&known.code.to_lowercase()), Some(known));
        }
        assert_eq!(find("E-NO-SUCH"), None);
    }
}
