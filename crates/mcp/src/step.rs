//! `sandbox_step`: code in a context that remembers.

use api::guest::code::{Step, StepEvent, StepPlace};
use rmcp::model::ContentBlock;
use serde_json::{Map, Value};
use std::time::Duration;

use crate::answer::{Answer, Status, StepFailure, Stepped};
use crate::args::{self, timeout};
use crate::bound::{Kept, SHOWN_MAX_BYTES, cut};
use crate::call::{Hand, known};
use crate::exec::kept;
use crate::refusal::Refusal;

/// The longest code.
const CODE_MAX_BYTES: usize = 1 << 20;
/// The longest id of a context; ours are UUIDs.
const CONTEXT_MAX_BYTES: usize = 64;
/// Results of one step that are told.
const RESULTS_MAX: usize = 16;
/// Bytes of all forms of all results of one step, without images.
const RESULTS_MAX_BYTES: usize = 2 * SHOWN_MAX_BYTES;
/// Images of one step that are shown, and the longest of them in base64: what clients take.
const IMAGES_MAX: usize = 4;
pub(crate) const IMAGE_MAX_BYTES: usize = 1 << 20;
/// The forms that are shown to a model, the best first. A form that only repeats another in markup is not.
const FORMS: [&str; 6] = ["text", "markdown", "json", "latex", "html", "svg"];

pub(crate) async fn step(hand: &Hand<'_>, args: args::SandboxStep) -> Result<Answer, Refusal> {
    let limit = timeout(args.timeout_s)?;
    if args.code.len() > CODE_MAX_BYTES {
        return Err(Refusal::argument("code", "is longer than 1 MiB")
            .hint("write a file with file_write, and run that"));
    }
    let id = known("sandbox_id", &args.sandbox_id)?;
    let (place, context_id) = hand.unless_canceled(place(hand, id, &args)).await?;
    let code = args.code;
    let mut told = Told::default();
    let work = async {
        let contexts = hand.client().sandbox_contexts(id).await?;
        let mut steps = contexts.run(&Step { code, place }).await?;
        while let Some(event) = steps.next().await? {
            told.push(event);
        }
        Ok::<_, Refusal>(())
    };
    // When the steps are dropped, the guest interrupts what runs.
    let done = hand.unless_canceled(async { Ok(tokio::time::timeout(limit, work).await) });
    let timed_out = match done.await? {
        Ok(done) => {
            done?;
            false
        }
        Err(_) => true,
    };
    Ok(told.answer(hand, timed_out.then_some(limit), context_id))
}

/// Where the code runs, and the id of that if it is not the default.
async fn place(
    hand: &Hand<'_>,
    id: &str,
    args: &args::SandboxStep,
) -> Result<(StepPlace, Option<String>), Refusal> {
    let language = args.language.as_str();
    if args.new_context {
        if args.context_id.is_some() {
            return Err(Refusal::argument(
                "context_id",
                "cannot be named with `new_context`",
            ));
        }
        let contexts = hand.client().sandbox_contexts(id).await?;
        let made = contexts.make(language, None).await?;
        return Ok((StepPlace::Context(made.id.clone()), Some(made.id)));
    }
    match &args.context_id {
        Some(context) if context.len() > CONTEXT_MAX_BYTES => {
            Err(Refusal::argument("context_id", "is not one of an answer"))
        }
        Some(context) => Ok((StepPlace::Context(context.clone()), Some(context.clone()))),
        None => Ok((StepPlace::Default(language.to_owned()), None)),
    }
}

/// What is told of a step.
#[derive(Debug, Default)]
struct Told {
    stdout: Kept,
    stderr: Kept,
    results: Vec<Map<String, Value>>,
    bytes: usize,
    images: Vec<ContentBlock>,
    left_out: usize,
    error: Option<StepFailure>,
}

impl Told {
    fn push(&mut self, event: StepEvent) {
        match event {
            StepEvent::Stdout(text) => self.stdout.push(text.as_bytes()),
            StepEvent::Stderr(text) => self.stderr.push(text.as_bytes()),
            StepEvent::Result(shown) => self.result(&shown),
            StepEvent::Error(error) => {
                self.error = Some(StepFailure {
                    name: cut(&error.name, 256),
                    message: cut(&error.value, 4 * 1024),
                    traceback: cut(&error.traceback, SHOWN_MAX_BYTES / 2),
                });
            }
        }
    }

    /// Takes what there is room for of a result.
    fn result(&mut self, shown: &Map<String, Value>) {
        if self.results.len() >= RESULTS_MAX {
            self.left_out += 1;
            return;
        }
        let mut told = Map::new();
        for (form, kind) in [("png", "image/png"), ("jpeg", "image/jpeg")] {
            let Some(data) = shown.get(form).and_then(Value::as_str) else {
                continue;
            };
            // Lines of base64, as Python writes them, are not what clients take.
            let data: String = data.split_ascii_whitespace().collect();
            if self.images.len() >= IMAGES_MAX || data.len() > IMAGE_MAX_BYTES {
                self.left_out += 1;
                continue;
            }
            told.insert("image".to_owned(), Value::String(kind.to_owned()));
            self.images.push(ContentBlock::image(data, kind));
        }
        // Whatever is text repeats what is better told in another form.
        for form in FORMS {
            let Some(value) = shown.get(form) else {
                continue;
            };
            if form_is_repeated(form, &told) {
                continue;
            }
            self.form(form, value, &mut told);
        }
        if !told.is_empty() {
            self.results.push(told);
        }
    }

    fn form(&mut self, form: &str, value: &Value, told: &mut Map<String, Value>) {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let room = RESULTS_MAX_BYTES.saturating_sub(self.bytes);
        if room == 0 {
            self.left_out += 1;
            return;
        }
        let most = room.min(SHOWN_MAX_BYTES);
        self.bytes += text.len().min(most);
        let value = if text.len() > most {
            Value::String(cut(&text, most))
        } else {
            value.clone()
        };
        told.insert(form.to_owned(), value);
    }

    fn answer(
        self,
        hand: &Hand<'_>,
        limit: Option<Duration>,
        context_id: Option<String>,
    ) -> Answer {
        let mut notes = Vec::new();
        if let Some(limit) = limit {
            let seconds = limit.as_secs();
            notes.push(format!(
                "it was interrupted after {seconds} s; what it had defined stays; give it more with timeout_s"
            ));
        }
        if self.left_out > 0 {
            let left = self.left_out;
            notes.push(format!(
                "{left} results or images were left out; save what is large to a file and read that with \
                 file_read"
            ));
        }
        let shelf = hand.call.tools.shelf();
        let status = match (limit, &self.error) {
            (Some(_), _) => Status::TimedOut,
            (None, Some(_)) => Status::Failed,
            (None, None) => Status::Succeeded,
        };
        let stepped = Stepped {
            status,
            stdout: kept(self.stdout, shelf),
            stderr: kept(self.stderr, shelf),
            results: self.results,
            error: self.error,
            context_id,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        };
        stepped.answer().with(self.images)
    }
}

/// A model that has the text of a table does not want its markup, nor that of an image that it sees.
fn form_is_repeated(form: &str, told: &Map<String, Value>) -> bool {
    match form {
        "html" => ["text", "markdown", "image"]
            .iter()
            .any(|other| told.contains_key(*other)),
        "svg" => told.contains_key("image"),
        "latex" => told.contains_key("markdown"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(results: &[Value]) -> Told {
        let mut told = Told::default();
        for result in results {
            told.push(StepEvent::Result(result.as_object().unwrap().clone()));
        }
        told
    }

    #[test]
    fn a_result_is_told_in_the_forms_that_a_model_reads() {
        let told = told(&[
            json!({"type": "result", "is_main_result": true, "text": "2", "html": "<b>2</b>"}),
            json!({"text": "<Figure>", "png": "aGk=\naGk=\n", "svg": "<svg/>"}),
            json!({"html": "<i>only</i>"}),
            json!({"json": {"a": [1]}, "extra": 1}),
        ]);
        insta::assert_snapshot!(serde_json::to_string_pretty(&told.results).unwrap());
        assert_eq!(told.images, [ContentBlock::image("aGk=aGk=", "image/png")]);
    }

    #[test]
    fn however_much_is_shown_what_is_told_is_bounded() {
        let large = json!({"text": "x".repeat(1 << 20), "png": "a".repeat(IMAGE_MAX_BYTES + 1)});
        let image = json!({"png": "a".repeat(1000)});
        let told = told(&[vec![large; 50], vec![image; 50]].concat());
        let bytes = serde_json::to_string(&told.results).unwrap().len();
        assert!(bytes < RESULTS_MAX_BYTES + 4096, "{bytes}");
        assert!(told.images.len() <= IMAGES_MAX && told.left_out > 50);
    }
}
