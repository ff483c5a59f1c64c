//! From the head of a request to what answers it.

use super::Live;
use super::body::{self, Answer};
use super::connect;
use super::failure::{Code, Failure};
use super::user::User;
use super::{
    download, egress, facts, filesystem, metrics, ports, power, query, rpc, tunnel, upload, volume,
    watch,
};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method, Request, StatusCode};
use std::rc::Rc;
use std::time::Duration;

/// A request without a time of its own, which waits for the workload to read its input.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

/// Answers one request.
pub(super) async fn answer(live: Rc<Live>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    if let Some(what) = path.strip_prefix(guest::message::VOLUME_PATH) {
        return volume::answer(&live, what, request).await;
    }
    match (request.method(), path.as_str()) {
        (&Method::GET, "/health") => body::empty(StatusCode::NO_CONTENT),
        (&Method::GET, "/envs") => {
            let envs: serde_json::Map<_, _> = live
                .serve
                .env
                .iter()
                .cloned()
                .map(|(key, value)| (key, value.into()))
                .collect();
            body::json(StatusCode::OK, &envs)
        }
        (&Method::GET, "/metrics") => body::json(StatusCode::OK, &metrics::answer(&live)),
        (&Method::GET, "/ports") => body::json(StatusCode::OK, &ports::answer()),
        (&Method::GET, "/cofferdam/execs") => facts::answer(&live, request.uri().query()).await,
        (&Method::GET, "/cofferdam/recorded") => {
            body::json(StatusCode::OK, &live.facts.borrow().recorded())
        }
        (&Method::POST, "/cofferdam/halt") => power::halt(&live, request.uri().query()).await,
        (&Method::POST, "/cofferdam/clock/stop") => stand(&live, true),
        (&Method::POST, "/cofferdam/clock/go") => stand(&live, false),
        (&Method::POST, "/cofferdam/boot") => plain(power::boot(&live)),
        (&Method::POST, guest::message::ENV_PATH) => {
            plain(add_env(&live, request.into_body()).await)
        }
        (&Method::CONNECT, _) => plain(tunnel::answer(&live, request).await),
        (&Method::GET, guest::message::EGRESS_PATH) => {
            plain(egress::answer(&live.egress, request).await)
        }
        (&Method::GET, "/files") => plain(get_file(&live, &request)),
        (&Method::POST, "/files") => plain(upload::answer(&live, request).await),
        (&Method::POST, "/files/compose") => {
            plain(upload::compose(&live, request.into_body()).await)
        }
        (&Method::POST, _) => match path.trim_start_matches('/').split_once('/') {
            Some((service, method)) => call(&live, service, method, request).await,
            None => nothing(&path),
        },
        _ => nothing(&path),
    }
}

fn plain(answered: Result<Answer, Failure>) -> Answer {
    answered.unwrap_or_else(|failure| body::refused(&failure))
}

fn stand(live: &Live, stands: bool) -> Answer {
    live.clock.stand(stands);
    body::empty(StatusCode::NO_CONTENT)
}

async fn add_env(live: &Live, body: Incoming) -> Result<Answer, Failure> {
    // The same list again takes the place of the one before, so that it does not grow.
    let more: Vec<(String, String)> = connect::single(body).await?;
    *live.more_env.borrow_mut() = more;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

fn get_file(live: &Live, request: &Request<Incoming>) -> Result<Answer, Failure> {
    let query = request.uri().query();
    let user = query::value(query, "username").unwrap_or_default();
    let user = User::named(&user, &live.serve)?;
    let none = || Failure::invalid("the request names no path");
    let path = query::value(query, "path").filter(|path| !path.is_empty());
    download::answer(user, &path.ok_or_else(none)?, request.headers())
}

fn nothing(path: &str) -> Answer {
    body::refused(&Failure::new(
        Code::NotFound,
        format!("there is nothing at '{path}'"),
    ))
}

/// A call of a Connect service.
async fn call(live: &Rc<Live>, service: &str, method: &str, request: Request<Incoming>) -> Answer {
    let (head, mut body) = request.into_parts();
    if connect::is_stream(&head.headers) {
        // Each of these takes the rest of the body when it lets go of it.
        let answered = match service {
            "process.Process" => rpc::streaming(live, method, &head.headers, body).await,
            "filesystem.Filesystem" if method == "WatchDir" => {
                watch::stream(live, &head.headers, body).await
            }
            _ => {
                connect::swallow_beside(body);
                Err(rpc::unknown(service))
            }
        };
        return connect::streaming(answered);
    }
    let answer = unary(live, (service, method), &head.headers, &mut body).await;
    connect::swallow_beside(body);
    answer
}

/// One that is answered with one message.
async fn unary(
    live: &Rc<Live>,
    (service, method): (&str, &str),
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Answer {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return body::empty(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let answered = async {
        match service {
            "process.Process" => rpc::unary(live, method, body).await,
            "filesystem.Filesystem" => filesystem::unary(live, method, headers, body).await,
            _ => Err(rpc::unknown(service)),
        }
    };
    let time = match connect::timeout(headers) {
        Ok(time) => time.unwrap_or(TIMEOUT_DEFAULT),
        Err(failure) => return connect::unary(Err(failure)),
    };
    let late = |_| {
        Err(Failure::new(
            Code::DeadlineExceeded,
            "the time of the request is over",
        ))
    };
    let answered = tokio::time::timeout(time, answered).await;
    connect::unary(answered.unwrap_or_else(late))
}
