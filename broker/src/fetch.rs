//! One question to an HTTP server: where tokens of accounts are, or what a certificate's issuer
//! says of it.

use std::io;
use std::sync::Arc;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A question.
pub(crate) struct Question<'q> {
    /// Whom, and what for.
    pub(crate) uri: &'q Uri,
    /// Type and bytes of what is posted; without it this is a GET.
    pub(crate) body: Option<(&'static str, Vec<u8>)>,
    /// How https is spoken; without it only http is.
    pub(crate) tls: Option<&'q Arc<ClientConfig>>,
    /// Bytes of the answer at most.
    pub(crate) limit: usize,
}

/// Asks, and gives the status and the body of the answer. Redirections are answers.
///
/// # Errors
/// Whatever keeps the answer from coming. The caller sees to the time it may take.
pub(crate) async fn ask(question: Question<'_>) -> io::Result<(StatusCode, Bytes)> {
    let uri = question.uri;
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    let (tls, usual_port) = match (uri.scheme_str(), question.tls) {
        (Some("http"), _) => (None, 80),
        (Some("https"), Some(tls)) => (Some(tls), 443),
        _ => return Err(invalid("neither http nor https")),
    };
    let host = uri.host().ok_or_else(|| invalid("no host"))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(usual_port);
    let stream = TcpStream::connect((bare, port)).await?;
    let Some(tls) = tls else {
        return exchange(stream, question, host, port).await;
    };
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| invalid("no host"))?;
    let connector = TlsConnector::from(Arc::clone(tls));
    let stream = connector.connect(name, stream).await?;
    exchange(stream, question, host, port).await
}

async fn exchange<S>(
    stream: S,
    question: Question<'_>,
    host: &str,
    port: u16,
) -> io::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let path = question.uri.path_and_query();
    let mut request = Request::builder()
        .uri(path.map_or("/", |path| path.as_str()))
        .header(HOST, format!("{host}:{port}"));
    let mut body = Vec::new();
    if let Some((kind, bytes)) = question.body {
        request = request.method(Method::POST).header(CONTENT_TYPE, kind);
        body = bytes;
    }
    let request = request
        .body(Full::<Bytes>::from(body))
        .map_err(io::Error::other)?;
    // It ends with the sender.
    drop(tokio::spawn(connection));
    let response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), question.limit)
        .collect()
        .await
        .map_err(io::Error::other)?;
    Ok((status, body.to_bytes()))
}
