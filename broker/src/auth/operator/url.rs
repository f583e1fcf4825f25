//! Account tokens from an HTTP server: `GET <url><public key>`.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::{StatusCode, Uri};
use menes_auth::token::MAX_TOKEN_LEN;
use rustls::ClientConfig;
use tokio::runtime::Builder;

use crate::config::options::TlsOptions;
use crate::fetch::{self, Question};
use crate::tls::{TlsError, client_config};

/// How long the answer at the start may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct UrlResolver {
    base: String,
    /// Where it is needed.
    tls: Option<Arc<ClientConfig>>,
}

impl UrlResolver {
    /// Fetches below `url`.
    ///
    /// # Errors
    /// TLS that cannot be set up.
    pub(super) fn new(url: &str, tls: Option<&TlsOptions>) -> Result<Self, TlsError> {
        let slash = if url.ends_with('/') { "" } else { "/" };
        let is_secure = url.starts_with("https://");
        let usual = TlsOptions::default();
        let tls = || client_config(tls.unwrap_or(&usual));
        Ok(Self {
            base: format!("{url}{slash}"),
            tls: is_secure.then(tls).transpose()?,
        })
    }

    /// Asks for no account, to see at the start that somebody answers.
    ///
    /// # Errors
    /// As [`UrlResolver::fetch`].
    pub(super) fn check(&self) -> Result<(), String> {
        // The caller may be in a runtime already, where nothing may be waited for.
        let ask = || {
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            let answer = async { tokio::time::timeout(CHECK_TIMEOUT, self.fetch("")).await };
            let answer = runtime.block_on(answer);
            answer.unwrap_or_else(|_| Err(format!("could not fetch <{:?}>: timeout", self.base)))
        };
        let outcome = thread::scope(|scope| scope.spawn(ask).join());
        let failed = |_| Err("the question to the resolver failed".to_owned());
        outcome.unwrap_or_else(failed).map(drop)
    }

    /// The token of an account.
    ///
    /// # Errors
    /// Why there is none, for the log. Everything but a 200 is an error, as the server may be able
    /// to say later what it cannot say now.
    pub(super) async fn fetch(&self, account: &str) -> Result<Option<String>, String> {
        let url = format!("{}{account}", self.base);
        let shown = redacted(&url);
        let could_not =
            |what: &dyn std::fmt::Display| format!("could not fetch <{shown:?}>: {what}");
        let uri: Uri = url.parse().map_err(|error| could_not(&error))?;
        let question = Question {
            uri: &uri,
            body: None,
            tls: self.tls.as_ref(),
            limit: MAX_TOKEN_LEN,
        };
        let answer = fetch::ask(question).await;
        let (status, body) = answer.map_err(|error| could_not(&error))?;
        if status != StatusCode::OK {
            return Err(could_not(&status));
        }
        String::from_utf8(body.to_vec())
            .map(Some)
            .map_err(|error| could_not(&error))
    }
}

/// The URL without its password.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    match rest[..authority_end].rfind('@') {
        Some(at) => format!("{scheme}://xxxxx{}", &rest[at..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn serve_once(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!(
            "http://{}/jwt/v1/accounts",
            listener.local_addr().expect("bound")
        );
        let task = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a client");
            let mut request = vec![0; 4096];
            let count = socket.read(&mut request).await.expect("a request");
            socket.write_all(answer.as_bytes()).await.expect("taken");
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        (url, task)
    }

    #[tokio::test]
    async fn a_token_is_fetched_below_the_url() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\neyJ";
        let (url, served) = serve_once(answer).await;
        let found = UrlResolver::new(&url, None)
            .expect("plain")
            .fetch("AX")
            .await;
        assert_eq!(found, Ok(Some("eyJ".to_owned())));
        let request = served.await.expect("served");
        assert!(
            request.starts_with("GET /jwt/v1/accounts/AX HTTP/1.1\r\n"),
            "{request}"
        );
    }

    #[tokio::test]
    async fn what_is_no_token_is_an_error() {
        let (url, _served) =
            serve_once("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
        let error = UrlResolver::new(&url, None)
            .expect("plain")
            .fetch("AX")
            .await
            .expect_err("not found");
        assert!(
            error.contains("could not fetch") && error.contains("404"),
            "{error}"
        );
        for url in ["ftp://x/", "http://127.0.0.1:1/", "nonsense"] {
            assert!(
                UrlResolver::new(url, None)
                    .expect("plain")
                    .fetch("AX")
                    .await
                    .is_err(),
                "{url}"
            );
        }
    }

    #[test]
    fn passwords_stay_out_of_the_log() {
        assert_eq!(redacted("http://u:p@h:1/a"), "http://xxxxx@h:1/a");
        assert_eq!(redacted("http://h:1/a@b"), "http://h:1/a@b");
    }
}
