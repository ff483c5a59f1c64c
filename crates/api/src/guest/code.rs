//! Contexts that remember: code run by an interpreter in the sandbox, in the protocol of E2B's code
//! interpreter, over a stream to port [`PORT`].
//!
//! What comes back is said by an interpreter that runs hostile code. Lines are bounded before they are
//! read, and what they hold is passed on as it was said: whoever shows it bounds it.

use bytes::{Buf as _, BytesMut};
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::Refusal;
use super::line::{Line, Patience, Rest};
use super::{ANSWER_DEADLINE, GuestError, REFUSAL_MAX_BYTES, full, whole};

/// Where a sandbox has its contexts. Nobody listens there inside: the guest itself answers.
pub const PORT: u16 = 49_999;

/// The longest line that is read: a guest passes on at most 10 MiB and a little of a kernel's, and says
/// the same in its own words.
const LINE_MAX_BYTES: usize = (10 << 20) + 64 * 1024;
/// How long a stream of results may be silent. A guest says every five seconds that it is there.
const SILENCE: Duration = Duration::from_secs(60);

/// Code to be run, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The code, at most 4 MiB.
    pub code: String,
    /// The context.
    pub place: StepPlace,
}

/// The context of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepPlace {
    /// The default context of a language: `python`, `javascript`, `typescript` or `bash`.
    Default(String),
    /// One that was made, by its id.
    Context(String),
}

/// A context.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ContextInfo {
    /// Its id.
    pub id: String,
    /// What it speaks.
    pub language: String,
    /// Where it began.
    pub cwd: String,
}

/// What happens in a step.
#[derive(Debug, Clone, PartialEq)]
pub enum StepEvent {
    /// It wrote this to its standard output.
    Stdout(String),
    /// It wrote this to its standard error.
    Stderr(String),
    /// A value is shown, in every form that it has: `text`, `html`, `png` in base64, and so on.
    Result(Map<String, Value>),
    /// The code failed.
    Error(StepError),
}

/// Why code failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StepError {
    /// The kind of the error, such as `NameError`.
    pub name: String,
    /// What it says.
    pub value: String,
    /// Where it came from; may be empty.
    pub traceback: String,
}

/// One connection to the contexts of a sandbox, for one request.
#[derive(Debug)]
pub struct Contexts {
    line: Line,
}

impl Contexts {
    /// Speaks to the contexts at the other end of a stream that leads to [`PORT`].
    ///
    /// # Errors
    /// [`GuestError`] when the stream cannot be used.
    pub async fn over<S>(stream: S) -> Result<Self, GuestError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let line = Line::to_guest(stream, Patience::USUAL).await?;
        Ok(Self { line })
    }

    /// Makes a context, which begins in `cwd` or at home.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `resource_exhausted` when there are too many.
    pub async fn make(self, language: &str, cwd: Option<&str>) -> Result<ContextInfo, GuestError> {
        let asked = json!({"language": language, "cwd": cwd});
        let body = self.ask("/contexts", &asked);
        let body = tokio::time::timeout(ANSWER_DEADLINE, body).await;
        let body = body.map_err(|_| GuestError::Late(ANSWER_DEADLINE))??;
        let reading = tokio::time::timeout(ANSWER_DEADLINE, whole(body, REFUSAL_MAX_BYTES)).await;
        let body = reading.map_err(|_| GuestError::Late(ANSWER_DEADLINE))??;
        serde_json::from_slice(&body)
            .map_err(|error| GuestError::Protocol(format!("a context that {error}")))
    }

    /// Runs code and follows it. When the [`Steps`] are dropped before their end, the guest interrupts it.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `not_found` when there is no such context.
    pub async fn run(self, step: &Step) -> Result<Steps, GuestError> {
        let asked = match &step.place {
            StepPlace::Default(language) => json!({"code": step.code, "language": language}),
            StepPlace::Context(id) => json!({"code": step.code, "context_id": id}),
        };
        let asking = tokio::time::timeout(ANSWER_DEADLINE, self.ask("/execute", &asked));
        let body = asking
            .await
            .map_err(|_| GuestError::Late(ANSWER_DEADLINE))??;
        Ok(Steps {
            body,
            buffer: BytesMut::new(),
            searched: 0,
            over: false,
        })
    }

    async fn ask(self, path: &str, asked: &Value) -> Result<Rest<()>, GuestError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(full(asked.to_string()))
            .map_err(|error| GuestError::Unsendable(error.to_string()))?;
        let answer = self.line.send(request, ()).await?.into_response();
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let body = whole(answer.into_body(), REFUSAL_MAX_BYTES).await?;
        let refusal = Refusal::of_text(&String::from_utf8_lossy(&body));
        Err(GuestError::said(refusal, status))
    }
}

/// What happens in a step, as it happens.
#[derive(Debug)]
pub struct Steps {
    body: Rest<()>,
    buffer: BytesMut,
    /// So much of the buffer has no line end.
    searched: usize,
    over: bool,
}

impl Steps {
    /// The next event; `None` when the step has ended. What has come of a line is kept when this is
    /// dropped while it waits.
    ///
    /// # Errors
    /// [`GuestError`]; `Closed` when the sandbox fell.
    pub async fn next(&mut self) -> Result<Option<StepEvent>, GuestError> {
        while !self.over {
            match self.line()? {
                Some(line) => match read(&line)? {
                    Said::Event(event) => return Ok(Some(event)),
                    Said::End => self.over = true,
                    Said::Nothing => {}
                },
                None => self.more().await?,
            }
        }
        Ok(None)
    }

    /// Cuts off a line that is there.
    fn line(&mut self) -> Result<Option<BytesMut>, GuestError> {
        let new = self.buffer.get(self.searched..).unwrap_or_default();
        match new.iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                Ok(Some(line))
            }
            None if self.buffer.len() > LINE_MAX_BYTES => {
                Err(GuestError::Protocol("a line without an end".to_owned()))
            }
            None => {
                self.searched = self.buffer.len();
                Ok(None)
            }
        }
    }

    async fn more(&mut self) -> Result<(), GuestError> {
        let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
        let Some(Ok(frame)) = frame.map_err(|_| GuestError::Late(SILENCE))? else {
            return Err(GuestError::Closed);
        };
        if let Ok(bytes) = frame.into_data() {
            self.buffer.extend_from_slice(&bytes);
        }
        Ok(())
    }
}

/// What a line says.
#[derive(Debug, PartialEq)]
enum Said {
    Event(StepEvent),
    End,
    /// A sign of life, or something that we do not know.
    Nothing,
}

fn read(line: &[u8]) -> Result<Said, GuestError> {
    let bad = |error: serde_json::Error| GuestError::Protocol(format!("a line that {error}"));
    let mut said: Map<String, Value> = serde_json::from_slice(line).map_err(bad)?;
    let kind = said.remove("type");
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default();
    let text = |said: &Map<String, Value>| {
        let text = said.get("text").and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    Ok(match kind {
        "stdout" => Said::Event(StepEvent::Stdout(text(&said))),
        "stderr" => Said::Event(StepEvent::Stderr(text(&said))),
        "result" => Said::Event(StepEvent::Result(said)),
        "error" => {
            let error = serde_json::from_value(Value::Object(said)).map_err(bad)?;
            Said::Event(StepEvent::Error(error))
        }
        "end_of_execution" => Said::End,
        _ => Said::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_events_and_what_is_not_known_is_passed_over() {
        let event = |line: &str| match read(line.as_bytes()).unwrap() {
            Said::Event(event) => event,
            Said::End | Said::Nothing => panic!("{line} is no event"),
        };
        assert_eq!(
            event(r#"{"type":"stdout","text":"a\n","timestamp":1}"#),
            StepEvent::Stdout("a\n".to_owned())
        );
        let StepEvent::Result(shown) = event(r#"{"type":"result","text":"2","png":"aa"}"#) else {
            panic!("a result is a result");
        };
        assert_eq!(shown.get("png"), Some(&json!("aa")));
        let failed = event(r#"{"type":"error","name":"E","value":"v","traceback":"t"}"#);
        assert!(matches!(failed, StepEvent::Error(error) if error.name == "E"));
        assert_eq!(read(br#"{"type":"end_of_execution"}"#).unwrap(), Said::End);
        for line in [r#"{"type":"keepalive"}"#, r#"{"type":"new"}"#, "{}"] {
            assert_eq!(read(line.as_bytes()).unwrap(), Said::Nothing, "{line}");
        }
        for line in ["", "[]", "null", "{", r#"{"type":"error","name":1}"#] {
            assert!(read(line.as_bytes()).is_err(), "{line}");
        }
    }
}
