//! The HTTP server for `/healthz`, `/readyz` and `/metrics`.

use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::admin::page::Page;

/// Probes and scrapers are few; more than this is somebody else.
const CONNECTIONS_MAX: usize = 32;
/// A probe sends its few header lines at once.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// A whole exchange; scrapers that keep a connection come back with a new one.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(60);
/// `GET /metrics` and its headers need a few hundred bytes; hyper allows no less than this.
const BUFFER_BYTES: usize = 8 * 1024;
/// After a failed accept (out of file descriptors, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Something that stands in the way of serving clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unready {
    /// `target orders`, `identity provider entra`, `journal` …
    pub what: String,
    pub why: String,
}

/// What the pages tell; the composition knows it.
pub trait Watch: fmt::Debug + Send + Sync {
    /// Empty when everything works.
    fn unready(&self) -> Vec<Unready>;
    fn measure(&self, page: &mut Page);
}

/// Serves until `stop` says true or is dropped.
pub async fn serve(listener: TcpListener, watch: Arc<dyn Watch>, mut stop: watch::Receiver<bool>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                // A connection beyond the limit is closed: probes come again.
                if let Ok(permit) = Arc::clone(&connections).try_acquire_owned() {
                    let watch = Arc::clone(&watch);
                    tokio::spawn(async move {
                        converse(socket, watch).await;
                        drop(permit);
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an operator's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(socket: TcpStream, watch: Arc<dyn Watch>) {
    let answer_one = service_fn(move |request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), watch.as_ref());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(socket), answer_one);
    match tokio::time::timeout(EXCHANGE_WITHIN, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an operator's connection ended badly"),
    }
}

fn answer(method: &Method, path: &str, watch: &dyn Watch) -> Response<Full<Bytes>> {
    let known = matches!(path, "/healthz" | "/readyz" | "/metrics");
    if known && method != Method::GET && method != Method::HEAD {
        return respond(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match path {
        "/healthz" => respond(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => readiness(&watch.unready()),
        "/metrics" => {
            let mut page = Page::default();
            watch.measure(&mut page);
            respond(StatusCode::OK, page.into_text())
        }
        _ => respond(
            StatusCode::NOT_FOUND,
            "only /healthz, /readyz and /metrics\n".to_owned(),
        ),
    }
}

fn readiness(unready: &[Unready]) -> Response<Full<Bytes>> {
    if unready.is_empty() {
        return respond(StatusCode::OK, "ready\n".to_owned());
    }
    let mut text = String::new();
    for Unready { what, why } in unready {
        let _ = writeln!(text, "{what}: {why}");
    }
    respond(StatusCode::SERVICE_UNAVAILABLE, text)
}

fn respond(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let plain = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    headers.insert(CONTENT_TYPE, plain);
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::admin::page::Kind;

    #[derive(Debug)]
    struct Fixed(Vec<Unready>);

    impl Watch for Fixed {
        fn unready(&self) -> Vec<Unready> {
            self.0.clone()
        }

        fn measure(&self, page: &mut Page) {
            page.family("gatepost_sessions", Kind::Gauge, "Open sessions.")
                .sample(&[], 2);
        }
    }

    fn broken() -> Fixed {
        Fixed(vec![Unready {
            what: "target orders".to_owned(),
            why: "the broker cannot log in".to_owned(),
        }])
    }

    #[test]
    fn readiness_says_what_is_missing() {
        let get = |path, watch: &Fixed| answer(&Method::GET, path, watch).status();
        assert_eq!(get("/readyz", &Fixed(vec![])), StatusCode::OK);
        assert_eq!(get("/readyz", &broken()), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get("/healthz", &broken()), StatusCode::OK);
        assert_eq!(get("/", &broken()), StatusCode::NOT_FOUND);
        let posted = answer(&Method::POST, "/metrics", &broken());
        assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn a_probe_is_answered_and_a_stop_ends_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(serve(listener, Arc::new(broken()), stopped));
        for (path, expected) in [
            ("readyz", "target orders: the broker cannot log in"),
            ("metrics", "gatepost_sessions 2"),
        ] {
            let mut socket = TcpStream::connect(address).await.unwrap();
            let request = format!("GET /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut reply = String::new();
            socket.read_to_string(&mut reply).await.unwrap();
            assert!(reply.contains(expected), "{reply}");
        }
        stop.send(true).unwrap();
        served.await.unwrap();
    }
}
