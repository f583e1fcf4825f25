//! The connection: where to, as whom, and what is asked.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, HeaderMap, RequestErrorKind};
use clap::Args;
use serde_json::Value;

use super::context::{self, Login};
use super::{Outcome, Trouble};

/// Where the server is, and as whom to log in
#[derive(Clone, Debug, Args)]
pub(super) struct Where {
    /// Server, as nats://127.0.0.1:4222; otherwise NATS_URL
    #[arg(short, long, global = true, value_name = "URL")]
    server: Option<String>,
    /// User; otherwise NATS_USER
    #[arg(long, global = true)]
    user: Option<String>,
    /// Password; otherwise NATS_PASSWORD, which others on this machine cannot read
    #[arg(long, global = true)]
    password: Option<String>,
    /// File with a user's credentials; otherwise NATS_CREDS
    #[arg(long, global = true, value_name = "FILE")]
    creds: Option<String>,
    /// A context of the `nats` command; otherwise NATS_CONTEXT
    #[arg(short = 'C', long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Whatever the environment says.
    #[arg(skip)]
    is_context_meant: bool,
}

/// A logged-in connection.
pub(super) struct Server {
    pub(super) client: Client,
    /// What the stations know this client by.
    pub(super) connection_id: String,
    pub(super) user: String,
    timeout: Duration,
    /// Nothing is to be done.
    is_rehearsal: bool,
}

/// Requests that change nothing, by the end of their name.
const LOOKING: [&str; 5] = ["LIST", "INFO", "GET", "STATUS", "SELF"];

impl Where {
    /// Where the server is.
    pub(super) fn url(&self) -> Outcome<String> {
        Ok(self.resolved()?.url)
    }

    /// What was said on the command line, to be kept.
    pub(super) fn login(&self) -> Login<'_> {
        Login {
            url: self.server.as_deref(),
            user: self.user.as_deref(),
            password: self.password.as_deref(),
            creds: self.creds.as_deref(),
        }
    }

    /// Takes a context; the one in use without a name.
    pub(super) fn use_context(&mut self, name: Option<String>) {
        self.is_context_meant = true;
        self.context = name.or_else(|| self.context.take());
    }

    /// The same, at this server if one is named.
    pub(super) fn or_to(&self, url: Option<&str>) -> Self {
        let mut at = self.clone();
        if let Some(url) = url {
            at.server = Some(url.to_owned());
        }
        at
    }

    /// Fills in what the context says and the command line does not.
    fn resolved(&self) -> Outcome<Resolved> {
        let given = |given: &Option<String>, variable: &str| {
            let given = given.clone().or_else(|| std::env::var(variable).ok());
            given.filter(|text| !text.is_empty())
        };
        let named = given(&self.context, "NATS_CONTEXT");
        let is_told_where = given(&self.server, "NATS_URL").is_some() && !self.is_context_meant;
        let context = match &named {
            // The credentials of one server are not for another.
            None if is_told_where => Value::Null,
            name => context::resolve(name.as_deref())?,
        };
        let from_context = |key: &str| {
            let text = context[key].as_str().filter(|text| !text.is_empty());
            text.map(str::to_owned)
        };
        let pick = |own: &Option<String>, variable: &str, key: &str| {
            if self.is_context_meant {
                return own.clone().or_else(|| from_context(key));
            }
            given(own, variable).or_else(|| from_context(key))
        };
        let url = pick(&self.server, "NATS_URL", "url");
        let creds = pick(&self.creds, "NATS_CREDS", "creds");
        Ok(Resolved {
            url: url.unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned()),
            user: pick(&self.user, "NATS_USER", "user").unwrap_or_default(),
            password: pick(&self.password, "NATS_PASSWORD", "password").unwrap_or_default(),
            token: from_context("token"),
            creds: creds.map(PathBuf::from),
        })
    }
}

struct Resolved {
    url: String,
    user: String,
    password: String,
    token: Option<String>,
    creds: Option<PathBuf>,
}

impl Server {
    pub(super) async fn connect(
        at: &Where,
        timeout: Duration,
        is_rehearsal: bool,
    ) -> Outcome<Self> {
        let at = at.resolved()?;
        let unreachable = |what: &str| Trouble::Unreachable(format!("{}: {what}", at.url));
        let connection_id = format!(
            "{:016x}{:08x}",
            rand::random::<u64>(),
            rand::random::<u32>()
        );
        let mut options = ConnectOptions::new()
            .connection_timeout(timeout)
            .request_timeout(Some(timeout))
            .name(format!("{connection_id}::{}", at.user));
        if let Some(creds) = &at.creds {
            options = options
                .credentials_file(creds)
                .await
                .map_err(|error| Trouble::Usage(format!("{}: {error}", creds.display())))?;
        } else if let Some(token) = at.token.clone() {
            options = options.token(token);
        } else if !at.user.is_empty() {
            options = options.user_and_password(at.user.clone(), at.password.clone());
        }
        let connecting = tokio::time::timeout(timeout, options.connect(&at.url));
        let client = match connecting.await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) if error.to_string().contains("uthorization") => {
                return Err(Trouble::Refused(format!("{}: {error}", at.url)));
            }
            Ok(Err(error)) => return Err(unreachable(&error.to_string())),
            Err(_) => return Err(unreachable("no answer")),
        };
        Ok(Self {
            client,
            connection_id,
            user: at.user,
            timeout,
            is_rehearsal,
        })
    }

    /// A request to the broker's own interface.
    pub(super) async fn ask(&self, what: &str, mut body: Value) -> Outcome<Value> {
        let looks = LOOKING.iter().any(|word| what.ends_with(word));
        if self.is_rehearsal && !looks {
            body["dry_run"] = true.into();
            let steps = self.call(&format!("$MENES.API.{what}"), &body).await?;
            return Err(Trouble::Rehearsed(steps));
        }
        self.call(&format!("$MENES.API.{what}"), &body).await
    }

    /// The station that is named, or all of them; streams of NATS clients are none.
    pub(super) async fn named_stations(&self, name: Option<&str>) -> Outcome<Vec<String>> {
        if let Some(name) = name {
            return Ok(vec![name.to_owned()]);
        }
        let list = self.ask("STATION.LIST", serde_json::json!({})).await?;
        let stations = list["stations"].as_array().into_iter().flatten();
        let own = stations.filter(|station| station["is_native"] != false);
        Ok(own
            .filter_map(|station| station["name"].as_str())
            .map(str::to_owned)
            .collect())
    }

    /// A request with a JSON body and a JSON answer that may hold an error.
    pub(super) async fn call(&self, subject: &str, body: &Value) -> Outcome<Value> {
        let answer = self
            .request(subject, HeaderMap::new(), body.to_string().into_bytes())
            .await?;
        let answer: Value = serde_json::from_slice(&answer)
            .map_err(|_| Trouble::of(String::from_utf8_lossy(&answer).into_owned()))?;
        let error = &answer["error"];
        match error["description"].as_str().or(error.as_str()) {
            None | Some("") => Ok(answer),
            Some(text) => Err(Trouble::of(text.to_owned())),
        }
    }

    /// A request whose answer may be anything.
    pub(super) async fn request(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Vec<u8>,
    ) -> Outcome<Vec<u8>> {
        let mut request = async_nats::Request::new().payload(payload.into());
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let answer = self.client.send_request(subject.to_owned(), request).await;
        match answer {
            Ok(answer) => Ok(answer.payload.to_vec()),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders => Trouble::Unreachable(format!(
                    "nobody answers on {subject}: is JetStream enabled?"
                )),
                RequestErrorKind::TimedOut => Trouble::Unreachable(format!(
                    "no answer on {subject} within {:?}; what was asked may be done all the same, unless it is not permitted",
                    self.timeout
                )),
                _ => Trouble::Failed(error.to_string()),
            }),
        }
    }

    /// Lets everything out that was sent.
    pub(super) async fn close(&self) {
        // A server that has gone takes nothing any more.
        drop(self.client.flush().await);
    }
}
