//! A connection to Postgres that asks questions whose answers have one column of text.
//!
//! The messages and the logins are the library's; this sends and receives them. The connection is
//! not encrypted.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use percent_encoding::percent_decode_str;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use url::Url;

use super::super::{Outcome, Trouble};

/// Time to connect and log in, and for the next piece of an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest message that is taken: a row.
const MAX_MESSAGE: usize = 256 << 20;

trait Link: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Link for T {}

/// A logged-in connection.
pub(super) struct Postgres {
    link: Box<dyn Link>,
    received: BytesMut,
}

/// Where a database is, and as whom to log in.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    place: Place,
    user: String,
    password: Option<String>,
    database: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Host(String, u16),
    /// A folder with a socket in it.
    Socket(PathBuf),
}

impl Target {
    fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err("it begins with postgres://".to_owned());
        }
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let mut host = plain(url.host_str().unwrap_or_default());
        for (key, value) in url.query_pairs() {
            match &*key {
                "host" => host = value.into_owned(),
                "sslmode" if matches!(&*value, "disable" | "allow" | "prefer") => {}
                "sslmode" => {
                    return Err(format!(
                        "sslmode={value} is not built: reach Postgres over loopback or a tunnel"
                    ));
                }
                _ => {}
            }
        }
        let port = url.port().unwrap_or(5432);
        let place = if host.starts_with('/') {
            Place::Socket(PathBuf::from(host).join(format!(".s.PGSQL.{port}")))
        } else {
            let host = if host.is_empty() {
                "127.0.0.1".to_owned()
            } else {
                host
            };
            Place::Host(host, port)
        };
        let user = match plain(url.username()) {
            user if user.is_empty() => "memphis".to_owned(),
            user => user,
        };
        let database = match plain(url.path().trim_start_matches('/')) {
            database if database.is_empty() => user.clone(),
            database => database,
        };
        Ok(Self {
            place,
            user,
            password: url.password().map(plain),
            database,
        })
    }
}

fn unreachable(what: impl std::fmt::Display) -> Trouble {
    Trouble::Unreachable(format!("Postgres: {what}"))
}

fn failed(error: &io::Error) -> Trouble {
    Trouble::Failed(format!("Postgres: {error}"))
}

/// What an error says.
fn said(body: &ErrorResponseBody) -> String {
    use fallible_iterator::FallibleIterator;
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        if field.type_() == b'M' {
            return String::from_utf8_lossy(field.value_bytes()).into_owned();
        }
    }
    "an error without a text".to_owned()
}

impl Postgres {
    /// Connects and logs in; a password that is not in the URL is in `PGPASSWORD`.
    pub(super) async fn connect(url: &str) -> Outcome<Self> {
        let target =
            Target::parse(url).map_err(|error| Trouble::Usage(format!("--postgres: {error}")))?;
        match tokio::time::timeout(CONNECT_TIMEOUT, Self::log_in(target)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(unreachable("no answer")),
        }
    }

    async fn log_in(target: Target) -> Outcome<Self> {
        let link: Box<dyn Link> = match &target.place {
            Place::Host(host, port) => Box::new(
                TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(|error| unreachable(format!("{host}:{port}: {error}")))?,
            ),
            Place::Socket(path) => Box::new(
                UnixStream::connect(path)
                    .await
                    .map_err(|error| unreachable(format!("{}: {error}", path.display())))?,
            ),
        };
        let mut postgres = Self {
            link,
            received: BytesMut::new(),
        };
        let given = std::env::var("PGPASSWORD").ok();
        let password = target.password.or(given).unwrap_or_default();
        let parameters = [
            ("user", target.user.as_str()),
            ("database", target.database.as_str()),
            ("application_name", "menes import"),
            ("client_encoding", "UTF8"),
        ];
        postgres
            .send(|out| frontend::startup_message(parameters, out))
            .await?;
        let mut scram = None;
        loop {
            match postgres.next().await? {
                Message::AuthenticationOk => {}
                Message::AuthenticationCleartextPassword => {
                    let password = password.as_bytes();
                    postgres
                        .send(|out| frontend::password_message(password, out))
                        .await?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let user = target.user.as_bytes();
                    let hash = md5_hash(user, password.as_bytes(), body.salt());
                    postgres
                        .send(|out| frontend::password_message(hash.as_bytes(), out))
                        .await?;
                }
                Message::AuthenticationSasl(_) => {
                    let binding = ChannelBinding::unsupported();
                    let login = ScramSha256::new(password.as_bytes(), binding);
                    postgres
                        .send(|out| {
                            frontend::sasl_initial_response(SCRAM_SHA_256, login.message(), out)
                        })
                        .await?;
                    scram = Some(login);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let login = scram.as_mut().ok_or_else(|| unreachable("an odd login"))?;
                    login.update(body.data()).map_err(|error| failed(&error))?;
                    let answer = login.message().to_vec();
                    postgres
                        .send(|out| frontend::sasl_response(&answer, out))
                        .await?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let login = scram.as_mut().ok_or_else(|| unreachable("an odd login"))?;
                    login.finish(body.data()).map_err(|error| failed(&error))?;
                }
                Message::ErrorResponse(body) => {
                    return Err(Trouble::Refused(format!("Postgres: {}", said(&body))));
                }
                Message::ReadyForQuery(_) => return Ok(postgres),
                Message::BackendKeyData(_)
                | Message::ParameterStatus(_)
                | Message::NoticeResponse(_) => {}
                _ => return Err(unreachable("it asks for a login that is not built")),
            }
        }
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Outcome {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|error| failed(&error))?;
        self.link.write_all(&out).await.map_err(unreachable)
    }

    async fn next(&mut self) -> Outcome<Message> {
        loop {
            let message = Message::parse(&mut self.received).map_err(|error| failed(&error))?;
            if let Some(message) = message {
                return Ok(message);
            }
            if self.received.len() > MAX_MESSAGE {
                return Err(Trouble::Failed(format!(
                    "Postgres: a row has more than {MAX_MESSAGE} bytes"
                )));
            }
            self.received.reserve(64 << 10);
            let reading = self.link.read_buf(&mut self.received);
            match tokio::time::timeout(ANSWER_TIMEOUT, reading).await {
                Ok(Ok(0)) => return Err(unreachable("the connection was closed")),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(unreachable(error)),
                Err(_) => return Err(unreachable("no answer")),
            }
        }
    }

    /// Asks, and hands over the first column of each row; one that is null is left out.
    pub(super) async fn query(
        &mut self,
        sql: &str,
        mut take: impl FnMut(&str) -> Result<(), String>,
    ) -> Outcome {
        use fallible_iterator::FallibleIterator;
        self.send(|out| frontend::query(sql, out)).await?;
        let mut trouble = None;
        loop {
            match self.next().await? {
                Message::DataRow(body) => {
                    let column = body.ranges().next().map_err(|error| failed(&error))?;
                    let column = column.flatten().and_then(|range| body.buffer().get(range));
                    let taken = match column {
                        Some(bytes) => take(&String::from_utf8_lossy(bytes)),
                        None => Ok(()),
                    };
                    if let Err(text) = taken {
                        return Err(Trouble::Failed(text));
                    }
                }
                Message::ErrorResponse(body) => {
                    trouble = Some(Trouble::Failed(format!("Postgres: {}", said(&body))));
                }
                Message::ReadyForQuery(_) => return trouble.map_or(Ok(()), Err),
                _ => {}
            }
        }
    }

    /// Says good-bye.
    pub(super) async fn close(mut self) {
        // Everything was read.
        drop(
            self.send(|out| {
                frontend::terminate(out);
                Ok(())
            })
            .await,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_and_who() {
        let target = Target::parse("postgres://me:p%40ss@db:5005/memphis").expect("a target");
        assert_eq!(
            target,
            Target {
                place: Place::Host("db".into(), 5005),
                user: "me".into(),
                password: Some("p@ss".into()),
                database: "memphis".into(),
            }
        );
        let target = Target::parse("postgres://memphis@db").expect("a target");
        assert_eq!(target.place, Place::Host("db".into(), 5432));
        assert_eq!(
            (target.database.as_str(), target.password),
            ("memphis", None)
        );
        for socket in [
            "postgres://me@%2Frun%2Fpg/x",
            "postgresql:///x?host=/run/pg",
        ] {
            let target = Target::parse(socket).expect("a target");
            assert_eq!(target.place, Place::Socket("/run/pg/.s.PGSQL.5432".into()));
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for bad in ["", "mysql://a@b/c", "postgres://a@b/c?sslmode=require"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
