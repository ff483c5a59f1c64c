//! A URL of the operator's that is told what waits for a person, and what became of it. The database says what is to be
//! told (`service::Service::notices`); this sends it, with a signature, and says whether it came.

use crate::cli::failure::Failure;
use crate::config::Approvals;
use crate::keys::from_file;
use crate::web::{is_loopback, secret, tls};
use api::Code;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use rustls::pki_types::ServerName;
use service::{Clock, Notice, NoticeKey, Service};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Time between two looks for what is to be told: a person does not notice more.
const TICK: Duration = Duration::from_secs(1);
/// How long one try may take: less than it is this process's.
const TRY: Duration = Duration::from_secs(10);
/// Bytes of an answer, which nobody reads.
const ANSWER_MAX: usize = 64 * 1024;
/// The field with the signature.
const SIGNATURE: &str = "x-cofferdam-signature";

/// Who is told.
#[derive(Debug)]
pub(crate) struct Webhook {
    place: Place,
    key: NoticeKey,
    ca: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    is_tls: bool,
    host: String,
    port: u16,
    path: String,
}

/// Reads `https://HOST[:PORT]/PATH`; `http://` for this machine alone.
fn place(url: &str) -> Result<Place, String> {
    let form = "a webhook is https://HOST[:PORT]/PATH, or http:// on loopback";
    let uri: hyper::Uri = url.parse().map_err(|_| form)?;
    let authority = uri.authority().ok_or(form)?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(form.to_owned());
    }
    let host = authority.host().to_owned();
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") if is_loopback(&host) => false,
        _ => return Err(form.to_owned()),
    };
    let port = if is_tls { 443 } else { 80 };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(Place {
        is_tls,
        port: authority.port_u16().unwrap_or(port),
        path: path.to_owned(),
        host,
    })
}

/// Whether this can be the URL of a webhook.
///
/// # Errors
/// What one is.
pub(crate) fn check(url: &str) -> Result<(), String> {
    place(url).map(drop)
}

impl Webhook {
    /// One at this URL, with the key in a file; the white space around that is not part of it.
    ///
    /// # Errors
    /// What is wrong with either.
    pub(crate) fn new(url: &str, key: &Path, ca: Option<PathBuf>) -> Result<Webhook, String> {
        // Whoever reads the key can say what this server says.
        let value = from_file(key).map_err(|error| error.to_string())?;
        let short = || format!("{}: a key has 16 bytes or more", key.display());
        Ok(Webhook {
            place: place(url)?,
            key: NoticeKey::new(value.bytes().trim_ascii()).ok_or_else(short)?,
            ca,
        })
    }

    /// The one of a configuration, if that names one. For `config check` too, so that what was checked starts.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] with the key of the configuration.
    pub(crate) fn of(asked: &Approvals) -> Result<Option<Webhook>, Failure> {
        let (Some(url), Some(key)) = (&asked.webhook, &asked.webhook_secret_file) else {
            return Ok(None);
        };
        let made = Webhook::new(url, key, asked.webhook_ca.clone());
        made.map(Some).map_err(|why| {
            // Of the URL, what reads the configuration has said what is wrong.
            let text = format!("`server.approvals.webhook_secret_file` cannot be used: {why}");
            Failure::new(Code::ConfigInvalid, text)
        })
    }

    /// Tells what is to be told until `stop` says true or is dropped. What it has not come to is told by the next
    /// process, or by another server.
    pub(crate) async fn run(self, service: Service, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                changed = stop.changed() => {
                    if changed.is_err() || *stop.borrow_and_update() {
                        return;
                    }
                    continue;
                }
            }
            if let Err(error) = self.pass(&service).await {
                tracing::warn!(
                    error = error.cause(),
                    "failed to tell the webhook of approvals"
                );
            }
        }
    }

    async fn pass(&self, service: &Service) -> Result<(), service::Error> {
        for notice in service.notices().await? {
            match self.tell(&notice).await {
                Ok(()) => service.notice_told(&notice).await?,
                Err(why) => {
                    let id = notice.id();
                    tracing::warn!(approval.id = id, error = why, "the webhook was not told");
                    service.notice_failed(&notice).await?;
                }
            }
        }
        Ok(())
    }

    async fn tell(&self, notice: &Notice) -> Result<(), String> {
        let told = tokio::time::timeout(TRY, self.send(&notice.body)).await;
        told.map_err(|_| format!("no answer within {} s", TRY.as_secs()))?
    }

    async fn send(&self, body: &str) -> Result<(), String> {
        let Place {
            is_tls, host, port, ..
        } = &self.place;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, *port)).await;
        let stream = stream.map_err(|error| format!("connect: {error}"))?;
        let request = self.request(body)?;
        if !is_tls {
            return secret(stream, request, ANSWER_MAX).await.map(drop);
        }
        let ca = self.ca.clone();
        let config = tokio::task::spawn_blocking(move || tls(ca.as_deref())).await;
        let config = config.map_err(|_| "prepare TLS".to_owned())??;
        let name = ServerName::try_from(bare.to_owned());
        let name = name.map_err(|_| "its host is no name for TLS".to_owned())?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let secured = connector.connect(name, stream).await;
        let secured = secured.map_err(|error| format!("TLS: {error}"))?;
        secret(secured, request, ANSWER_MAX).await.map(drop)
    }

    fn request(&self, body: &str) -> Result<Request<Full<Bytes>>, String> {
        let Place {
            host, port, path, ..
        } = &self.place;
        // Of the machine itself: whoever hears of it compares it with a clock of their own.
        let now_ms = Clock::system().now_ms();
        Request::post(path)
            .header(HOST, format!("{host}:{port}"))
            .header(CONTENT_TYPE, "application/json")
            .header(SIGNATURE, self.key.sign(now_ms, body))
            .body(Full::from(body.to_owned()))
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[test]
    fn a_webhook_is_told_over_tls_or_on_this_machine() {
        let at = place("https://hooks.example/a?b=c").unwrap();
        assert_eq!((at.is_tls, at.port, &*at.path), (true, 443, "/a?b=c"));
        assert_eq!(place("http://127.0.0.1:9/").unwrap().port, 9);
        assert!(place("https://10.0.0.7:8443/x").is_ok());
        for bad in [
            "http://hooks.example/",
            "http://127.0.0.1.evil.example/",
            "https://u:p@hooks.example/",
            "ftp://hooks.example/",
            "hooks.example",
            "https://",
            "",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    fn write(file: &Path, bytes: &[u8], mode: u32) {
        std::fs::write(file, bytes).unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_that_can_be_guessed_or_that_others_read_or_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let made = |bytes: &[u8], mode: u32| {
            write(&file, bytes, mode);
            Webhook::new("https://a.example/", &file, None)
        };
        assert!(made(b"0123456789abcdef\n", 0o600).is_ok());
        assert!(made(b"        short       ", 0o600).is_err());
        assert!(made(&[b'x'; 4096], 0o600).is_ok());
        for length in [4097, 5000] {
            let refused = made(&vec![b'x'; length], 0o600).unwrap_err();
            assert!(refused.contains("at most 4096 bytes"), "{refused}");
        }
        for mode in [0o644, 0o640, 0o604, 0o620] {
            let refused = made(b"0123456789abcdef\n", mode).unwrap_err();
            assert!(refused.contains("chmod 600"), "{mode:o} {refused}");
        }
        assert!(Webhook::new("https://a.example/", dir.path(), None).is_err());
    }

    /// Takes one request, and gives this answer.
    async fn serve(listener: &TcpListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let mut length = 0;
        while !request[..length].ends_with(b"}") {
            length += stream.read(&mut request[length..]).await.unwrap();
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    }

    #[tokio::test]
    async fn what_is_told_is_signed_and_only_a_yes_is_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        write(&file, b"0123456789abcdef", 0o600);
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let hook = Webhook::new(&url, &file, None).unwrap();
        for (status, is_told) in [("200 OK", true), ("302 Found", false), ("500 No", false)] {
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nlocation: /x\r\n\r\n");
            let (told, request) = tokio::join!(hook.send("{}"), serve(&listener, &answer));
            assert_eq!(told.is_ok(), is_told, "{status}: {told:?}");
            assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
            let signed = request.split("x-cofferdam-signature: ").nth(1).unwrap();
            let signed = signed.split("\r\n").next().unwrap();
            let at = signed.trim_start_matches("t=").split(',').next().unwrap();
            let key = NoticeKey::new(b"0123456789abcdef").unwrap();
            assert_eq!(key.sign(at.parse().unwrap(), "{}"), signed);
        }
    }
}
