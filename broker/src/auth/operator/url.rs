//! Account tokens from an HTTP server: `GET <url><public key>`.

use std::io;

use axum::body::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use menes_auth::token::MAX_TOKEN_LEN;
use tokio::net::TcpStream;

/// See the module.
#[derive(Debug)]
pub(super) struct UrlResolver {
    base: String,
}

impl UrlResolver {
    /// Fetches below `url`.
    pub(super) fn new(url: &str) -> Self {
        let slash = if url.ends_with('/') { "" } else { "/" };
        Self {
            base: format!("{url}{slash}"),
        }
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
        let (status, body) = get(&uri).await.map_err(|error| could_not(&error))?;
        if status != StatusCode::OK {
            return Err(could_not(&status));
        }
        String::from_utf8(body.to_vec())
            .map(Some)
            .map_err(|error| could_not(&error))
    }
}

async fn get(uri: &Uri) -> io::Result<(StatusCode, Bytes)> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    if uri.scheme_str() != Some("http") {
        return Err(invalid("only http is supported"));
    }
    let host = uri.host().ok_or_else(|| invalid("no host"))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((bare, port)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, format!("{host}:{port}"))
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    // It ends with the sender.
    drop(tokio::spawn(connection));
    let response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_TOKEN_LEN)
        .collect()
        .await
        .map_err(io::Error::other)?;
    Ok((status, body.to_bytes()))
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
        let found = UrlResolver::new(&url).fetch("AX").await;
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
        let error = UrlResolver::new(&url)
            .fetch("AX")
            .await
            .expect_err("not found");
        assert!(
            error.contains("could not fetch") && error.contains("404"),
            "{error}"
        );
        for url in ["ftp://x/", "http://127.0.0.1:1/", "nonsense"] {
            assert!(UrlResolver::new(url).fetch("AX").await.is_err(), "{url}");
        }
    }

    #[test]
    fn passwords_stay_out_of_the_log() {
        assert_eq!(redacted("http://u:p@h:1/a"), "http://xxxxx@h:1/a");
        assert_eq!(redacted("http://h:1/a@b"), "http://h:1/a@b");
    }
}
