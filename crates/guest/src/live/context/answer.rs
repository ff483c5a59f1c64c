//! The routes at port 49999, answered over a tunnel that found nobody listening there.

use super::super::body::{self, Answer, Body};
use super::super::connect;
use super::super::facts::{Asked, By, OfContext};
use super::super::failure::{Code, Failure};
use super::super::tree;
use super::super::{HEAD_MAX, HEAD_PATIENCE, Live, rpc};
use super::language::Language;
use super::stream::{self, QUEUE, Run, Waiting};
use super::{Context, WAITING_BYTES_MAX};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioTimer;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Bytes of code. What is longer is a file.
const CODE_MAX: usize = 4 << 20;

/// Bytes of a request for code to run: in JSON a line end has two bytes, and most else one.
const EXECUTE_MAX: usize = 2 * CODE_MAX + VARIABLES_MAX;

/// Bytes of any other request.
const BODY_MAX: usize = 16 * 1024;

/// Bytes of the variables for one execution, names and values.
const VARIABLES_MAX: usize = 128 * 1024;

/// Serves one connection, for whom the door has let in.
pub(in super::super) async fn serve(live: Rc<Live>, connection: Upgraded, by: By) {
    let service = service_fn(move |request| {
        let (live, by) = (live.clone(), by.clone());
        async move { Ok::<_, Infallible>(answer(live, by, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_MAX)
        .serve_connection(connection, service);
    // However it ended, it is over; there is nobody to tell.
    drop(connection.await);
}

async fn answer(live: Rc<Live>, by: By, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let answered = match (request.method(), words.as_slice()) {
        (&Method::GET, ["health"]) => Ok(text(StatusCode::OK, "OK".to_owned())),
        (&Method::POST, ["execute"]) => execute(&live, by, request.into_body()).await,
        (&Method::GET, ["contexts"]) => list(&live),
        (&Method::POST, ["contexts"]) => make(&live, request.into_body()).await,
        (&Method::DELETE, ["contexts", id]) => done(super::remove(&live, id)),
        (&Method::POST, ["contexts", id, "restart"]) => done(super::restart(&live, id)),
        (&Method::POST, ["contexts", id, "interrupt"]) => done(super::interrupt(&live, id)),
        _ => Err(Failure::new(
            Code::NotFound,
            format!("there is nothing at '{path}'"),
        )),
    };
    // Clients show a person the text of a refusal.
    answered.unwrap_or_else(|failure| text(failure.code.status(), failure.message))
}

fn text(status: StatusCode, text: String) -> Answer {
    let body = Body::Whole(Some(text.into()));
    body::of_type(status, "text/plain; charset=utf-8", body)
}

fn done(done: Result<(), Failure>) -> Result<Answer, Failure> {
    done.map(|()| body::empty(StatusCode::NO_CONTENT))
}

/// Code to run.
#[derive(Debug, Deserialize)]
struct Execute {
    code: String,
    context_id: Option<String>,
    language: Option<String>,
    env_vars: Option<BTreeMap<String, String>>,
}

async fn read<T: serde::de::DeserializeOwned>(
    mut body: Incoming,
    most: usize,
) -> Result<T, Failure> {
    let bytes = connect::whole(&mut body, most).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::invalid(format!("the request cannot be read: {error}")))
}

async fn execute(live: &Rc<Live>, by: By, body: Incoming) -> Result<Answer, Failure> {
    let asked: Execute = read(body, EXECUTE_MAX).await?;
    let env = asked.env_vars.unwrap_or_default();
    let variables: usize = env
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if asked.code.len() > CODE_MAX || variables > VARIABLES_MAX {
        let why = "code has at most 4 MiB, and its variables 128 KiB";
        return Err(Failure::invalid(why));
    }
    let context = match (asked.context_id.as_deref(), asked.language.as_deref()) {
        (Some(_), Some(_)) => {
            return Err(Failure::invalid("name a context or a language, not both"));
        }
        (Some(id), None) => live.contexts.find(id)?,
        (None, language) => {
            super::default_of(live, Language::named(language.unwrap_or_default())?)?
        }
    };
    context.language.check(&asked.code, &env)?;
    let full = || {
        Failure::new(
            Code::ResourceExhausted,
            "too many executions wait in the context",
        )
    };
    let waiting = &live.contexts.waiting;
    let waiting = Waiting::add(waiting, asked.code.len(), WAITING_BYTES_MAX).ok_or_else(full)?;
    let (events, from) = mpsc::channel(QUEUE);
    let of = OfContext {
        id: context.id.clone(),
        language: context.language.name(),
    };
    let user = super::user(live)?.name;
    let run = Run {
        asked: Asked::step(
            (by, live.known.as_ref()),
            of,
            (&asked.code, env.keys()),
            (user, &context.cwd),
        ),
        code: asked.code,
        env,
        events,
        _waiting: waiting,
    };
    context.runs.try_send(run).map_err(|error| match error {
        TrySendError::Full(_) => full(),
        TrySendError::Closed(_) => Failure::new(Code::NotFound, "the context was removed"),
    })?;
    let body = stream::body(from);
    Ok(body::of_type(StatusCode::OK, "application/x-ndjson", body))
}

/// A context to be made.
#[derive(Debug, Deserialize)]
struct Make {
    cwd: Option<String>,
    language: Option<String>,
}

async fn make(live: &Rc<Live>, body: Incoming) -> Result<Answer, Failure> {
    let asked: Make = read(body, BODY_MAX).await?;
    let language = Language::named(asked.language.as_deref().unwrap_or_default())?;
    let cwd = asked.cwd.unwrap_or_default();
    let context = super::make(live, language, &cwd).await?;
    Ok(body::json(StatusCode::OK, &info(&context)))
}

/// All contexts, the defaults first: clients look for what they made last at the end. The defaults of the two
/// languages that E2B starts at once are there from the start.
fn list(live: &Rc<Live>) -> Result<Answer, Failure> {
    for language in [Language::Python, Language::Javascript] {
        if is_there(live, language)? {
            // Where there is no room, the others are listed.
            drop(super::default_of(live, language));
        }
    }
    let all = live.contexts.all.borrow();
    let (defaults, made): (Vec<_>, Vec<_>) = all.iter().partition(|context| context.is_default);
    let list = defaults.into_iter().chain(made);
    let list: Vec<Value> = list.map(|context| info(context)).collect();
    Ok(body::json(StatusCode::OK, &list))
}

fn info(context: &Context) -> Value {
    json!({"id": context.id, "language": context.language.name(), "cwd": context.cwd})
}

/// Whether the sandbox has the interpreter of a language.
fn is_there(live: &Live, language: Language) -> Result<bool, Failure> {
    let user = super::user(live)?;
    let path = rpc::environment(live, user, &BTreeMap::new());
    let path = path.iter().find(|(name, _)| name == "PATH");
    let places = path.map_or("", |(_, places)| places.as_str()).split(':');
    let mut names = places.map(|place| format!("{place}/{}", language.program()));
    let is_there = |name: &str| tree::open(name, OFlags::PATH, Mode::empty()).is_ok();
    Ok(user.act(|| names.any(|name| is_there(&name))))
}
