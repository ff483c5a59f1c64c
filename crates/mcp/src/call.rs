//! What happens around every call: its server, its end before its time, and news of its progress.

use api::Code;
use api::client::Client;
use api::guest::Guest;
use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ProgressNotificationParam, ProgressToken,
};
use rmcp::service::{Peer, RequestContext};
use std::convert::Infallible;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::args::read;
use crate::refusal::Refusal;
use crate::tools::{Tools, Way};
use crate::{approval, exec, file, output, port, run, sandbox, step};

/// How often a client that asked for it hears that something still runs. Clients wait a minute.
const PROGRESS: Duration = Duration::from_secs(5);
/// The longest id of a sandbox or a job that is sent on.
const ID_MAX_BYTES: usize = 128;

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) tools: Tools,
    canceled: CancellationToken,
    progress: Option<(ProgressToken, Peer<RoleServer>)>,
}

impl Call {
    pub(crate) fn new(tools: &Tools, context: &RequestContext<RoleServer>) -> Self {
        let token = context.meta.get_progress_token();
        Self {
            tools: tools.clone(),
            canceled: context.ct.clone(),
            progress: token.map(|token| (token, context.peer.clone())),
        }
    }

    /// Returns when the client does not want the answer any more.
    pub(crate) async fn canceled(&self) {
        tokio::select! {
            () = self.canceled.cancelled() => {}
            () = self.tools.closing().cancelled() => {}
        }
    }

    pub(crate) fn is_canceled(&self) -> bool {
        self.canceled.is_cancelled() || self.tools.closing().is_cancelled()
    }

    /// Says every few seconds that something still runs, to a client that asked for it.
    async fn progress(&self) -> Infallible {
        let Some((token, peer)) = &self.progress else {
            return std::future::pending().await;
        };
        let began = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(PROGRESS).await;
            let seconds = began.elapsed().as_secs();
            let mut news =
                ProgressNotificationParam::new(token.clone(), began.elapsed().as_secs_f64());
            news.message = Some(format!("running for {seconds} s"));
            // A client that does not take it is told when the answer is there.
            drop(peer.notify_progress(news).await);
        }
    }
}

/// What the tools have at hand in a call.
#[derive(Debug)]
pub(crate) struct Hand<'c> {
    pub(crate) call: &'c Call,
    pub(crate) way: Way,
}

impl Hand<'_> {
    pub(crate) fn client(&self) -> &Client {
        &self.way.client
    }

    /// A connection to the guest of a sandbox, for one request.
    pub(crate) async fn guest(&self, id: &str, user: Option<&str>) -> Result<Guest, Refusal> {
        let guest = self
            .client()
            .sandbox_guest(known("sandbox_id", id)?)
            .await?;
        Ok(guest.as_user(user))
    }

    /// Does something that leaves nothing behind when it is not wanted any more.
    pub(crate) async fn unless_canceled<T>(
        &self,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        tokio::select! {
            done = work => done,
            () = self.call.canceled() => Err(Refusal::canceled()),
        }
    }
}

/// An id that can be one.
pub(crate) fn known<'i>(argument: &str, id: &'i str) -> Result<&'i str, Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !id.is_empty() && id.len() <= ID_MAX_BYTES && id.bytes().all(plain) {
        return Ok(id);
    }
    Err(Refusal::new(
        Code::NotFound,
        format!("`{argument}` is not an id"),
    ))
}

/// A user of a sandbox.
pub(crate) fn user(asked: Option<&str>) -> Result<Option<&str>, Refusal> {
    match asked {
        None | Some("user" | "root") => Ok(asked),
        Some(_) => Err(Refusal::argument("user", "is `user` or `root`")),
    }
}

/// Calls a tool that there is, and makes whatever comes of it an answer.
pub(crate) async fn answered(call: Call, request: CallToolRequestParams) -> CallToolResult {
    let work = async {
        let way = call.unless_closed(call.tools.way()).await?;
        let hand = Hand { call: &call, way };
        dispatch(&hand, request).await
    };
    let done = tokio::select! {
        done = Box::pin(work) => done,
        never = call.progress() => match never {},
    };
    match done {
        Ok(answer) => answer.into_result(),
        Err(refusal) => {
            if refusal.is(Code::ServerUnreachable) {
                call.tools.lose_way().await;
            }
            refusal.into_result()
        }
    }
}

impl Call {
    async fn unless_closed<T>(
        &self,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        tokio::select! {
            done = work => done,
            () = self.canceled() => Err(Refusal::canceled()),
        }
    }
}

async fn dispatch(hand: &Hand<'_>, request: CallToolRequestParams) -> Result<Answer, Refusal> {
    let arguments = request.arguments;
    match request.name.as_ref() {
        "run" => Box::pin(run::run(hand, read(arguments)?)).await,
        "sandbox_create" => sandbox::create(hand, read(arguments)?).await,
        "sandbox_list" => sandbox::list(hand, read(arguments)?).await,
        "sandbox_extend" => sandbox::extend(hand, read(arguments)?).await,
        "sandbox_destroy" => sandbox::destroy(hand, read(arguments)?).await,
        "sandbox_exec" => Box::pin(exec::exec(hand, read(arguments)?)).await,
        "sandbox_step" => Box::pin(step::step(hand, read(arguments)?)).await,
        "file_read" => file::read(hand, read(arguments)?).await,
        "file_write" => file::write(hand, read(arguments)?).await,
        "file_list" => file::list(hand, read(arguments)?).await,
        "port" => port::port(hand, read(arguments)?).await,
        "approval" => approval::approval(hand, read(arguments)?).await,
        "artifact_read" => file::artifact(hand, read(arguments)?).await,
        "output_read" => output::read(hand, read(arguments)?).await,
        other => Err(Refusal::new(
            Code::Internal,
            format!("`{other}` is listed and not there"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::model::JsonObject;
    use serde_json::json;

    /// Tools whose server is nowhere.
    fn nowhere() -> Call {
        let (dial, incoming) = tokio::sync::mpsc::channel(1);
        drop(incoming);
        let client = Client::new(api::Endpoint::Memory(dial));
        Call {
            tools: Tools::of(client),
            canceled: CancellationToken::new(),
            progress: None,
        }
    }

    async fn told(name: &'static str, arguments: serde_json::Value) -> String {
        let mut request = CallToolRequestParams::new(name);
        let arguments: JsonObject = serde_json::from_value(arguments).unwrap();
        request.arguments = Some(arguments);
        let result = answered(nowhere(), request).await;
        assert_eq!(result.is_error, Some(true), "{name}");
        result.content[0].as_text().unwrap().text.clone()
    }

    #[tokio::test]
    async fn every_tool_that_is_listed_is_there_and_tells_what_is_wrong_with_its_arguments() {
        for tool in crate::tool::all() {
            let name = tool.name.clone();
            let mut request = CallToolRequestParams::new(name.clone());
            request.arguments = Some([("no_such".to_owned(), json!(1))].into_iter().collect());
            let result = answered(nowhere(), request).await;
            let text = result.content[0].as_text().unwrap().text.clone();
            assert!(text.starts_with("error invalid_argument"), "{name}: {text}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_nowhere_is_told_and_so_is_a_bad_id() {
        let text = told("sandbox_list", json!({})).await;
        assert!(text.starts_with("error server_unreachable"), "{text}");
        let text = told("file_read", json!({"sandbox_id": "../x", "path": "a"})).await;
        assert!(text.starts_with("error not_found"), "{text}");
        let text = told("output_read", json!({"cursor": "out_1:0"})).await;
        assert!(text.starts_with("error not_found"), "{text}");
        let text = told("run", json!({"command": "true", "timeout_s": 0})).await;
        assert!(text.starts_with("error invalid_argument"), "{text}");
    }
}
