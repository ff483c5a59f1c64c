//! The bodies of templates, as E2B's clients send and read them. Pure.

use http::StatusCode;
use model::build::{BuildState, Phase};
use model::limits;
use model::profile::{Base, Instruction, Recipe, What};
use model::spec::AskedLimits;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service::{BuildAsk, BuildRow, Level, LogRow, ProfileRow, ProfileView};

use crate::e2b::refusal::Refusal;
use crate::e2b::wire::{ENVD_VERSION, is_built_in, time};

/// A processor, in the units of the spec.
const CPU_MILLIS: u32 = 1000;
/// What E2B takes for too little memory.
const MEMORY_MIN_MB: u64 = 128;
/// No build.
const NO_BUILD: &str = "00000000-0000-0000-0000-000000000000";

/// A build that somebody asks for. Of the two names the older clients send the second.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewBuild {
    name: Option<String>,
    alias: Option<String>,
    tags: Option<Vec<String>>,
    cpu_count: Option<u32>,
    #[serde(rename = "memoryMB")]
    memory_mb: Option<u64>,
    min_free_disk_mb: Option<u64>,
}

impl NewBuild {
    /// What is asked, in the words of the house.
    ///
    /// # Errors
    /// A refusal that names what cannot be.
    pub(super) fn ask(&self) -> Result<BuildAsk, Refusal> {
        let texts = [self.name.as_ref(), self.alias.as_ref()]
            .into_iter()
            .flatten();
        let name = texts
            .map(|text| text.to_lowercase())
            .find(|text| !text.is_empty());
        if name.as_deref().is_some_and(is_built_in) {
            let message = "name: it is the name of a template that is part of Cofferdam";
            return Err(Refusal::new(StatusCode::CONFLICT, message));
        }
        let parsed = name.map(|text| text.parse()).transpose();
        let wrong = |error: model::snapshot::NotAName| {
            Refusal::bad(format!("validation error: name: {error}"))
        };
        Ok(BuildAsk {
            profile: parsed.map_err(wrong)?,
            tags: self.tags.clone().unwrap_or_default(),
            limits: self.limits()?,
        })
    }

    fn limits(&self) -> Result<AskedLimits, Refusal> {
        if self.cpu_count == Some(0) {
            return Err(Refusal::bad("validation error: cpuCount: at least 1"));
        }
        if self.memory_mb.is_some_and(|mb| mb < MEMORY_MIN_MB) {
            let message = format!("validation error: memoryMB: at least {MEMORY_MIN_MB}");
            return Err(Refusal::bad(message));
        }
        let bytes = |mb: u64| mb.saturating_mul(1 << 20);
        Ok(AskedLimits {
            cpu_millis: self.cpu_count.map(|count| count.saturating_mul(CPU_MILLIS)),
            memory_bytes: self.memory_mb.map(bytes),
            pids: None,
            // The disk of a sandbox is as large as it is asked to be, and what is below it takes none of it.
            disk_bytes: self.min_free_disk_mb.filter(|mb| *mb > 0).map(bytes),
        })
    }
}

/// The answer to one who asked for a build.
pub(super) fn requested(profile: &ProfileRow, build: &BuildRow) -> Value {
    let names: Vec<_> = profile.name.iter().collect();
    let (millis, memory, _) = sizes(&build.limits);
    json!({
        "templateID": profile.id.short(),
        "buildID": build.id.uuid(),
        "public": profile.is_public,
        "names": names,
        "aliases": names,
        "tags": build.tags,
        "buildStatus": status(&build.state),
        "cpuCount": millis,
        "memoryMB": memory,
        "envdVersion": ENVD_VERSION,
    })
}

/// What a build is to do.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Start {
    from_image: Option<String>,
    from_template: Option<String>,
    from_image_registry: Option<Value>,
    force: Option<bool>,
    steps: Option<Vec<Step>>,
    start_cmd: Option<String>,
    ready_cmd: Option<String>,
}

/// A step, of any kind.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    #[serde(rename = "type")]
    kind: String,
    args: Option<Vec<String>>,
    files_hash: Option<String>,
    force: Option<bool>,
}

impl Start {
    /// The recipe. Credentials of a registry are dropped here: nothing is fetched with them, and nothing keeps
    /// them.
    ///
    /// # Errors
    /// A refusal that names what cannot be.
    pub(super) fn recipe(self) -> Result<Recipe, Refusal> {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let base = match (some(self.from_image), some(self.from_template)) {
            (Some(image), None) if self.from_image_registry.is_some() => {
                // Not even one that is here by the same name: it is meant as the registry has it.
                Base::Image(format!("{image} (from a registry)"))
            }
            (Some(image), None) => Base::Image(image),
            (None, Some(template)) => Base::Profile(template),
            _ => {
                let message = "one of fromImage and fromTemplate must be there";
                return Err(Refusal::bad(message));
            }
        };
        let steps = self.steps.unwrap_or_default();
        let instructions = (1..)
            .zip(steps)
            .map(|(number, step)| step.instruction(number));
        Ok(Recipe {
            base,
            instructions: instructions.collect::<Result<_, _>>()?,
            fresh: self.force == Some(true),
            start: some(self.start_cmd),
            ready: some(self.ready_cmd),
        })
    }
}

impl Step {
    fn instruction(self, number: usize) -> Result<Instruction, Refusal> {
        let wrong = |what: &str| Refusal::bad(format!("steps.{number}: {what}"));
        let mut args = self.args.unwrap_or_default().into_iter();
        let mut next = || args.next().filter(|text| !text.is_empty());
        let what = match self.kind.to_ascii_uppercase().as_str() {
            "RUN" => What::Run {
                command: next().ok_or_else(|| wrong("RUN needs a command"))?,
                user: next(),
            },
            // The two are one to E2B, too.
            "COPY" | "ADD" => What::Copy {
                source: next().ok_or_else(|| wrong("COPY needs a source"))?,
                target: next().ok_or_else(|| wrong("COPY needs a target"))?,
                owner: next(),
                mode: next(),
                files: self.files_hash.unwrap_or_default(),
            },
            "ENV" | "ARG" => {
                let all: Vec<String> = args.collect();
                let (pairs, rest) = all.as_chunks::<2>();
                if !rest.is_empty() {
                    return Err(wrong("ENV needs a value for each name"));
                }
                let pairs = pairs
                    .iter()
                    .map(|[name, value]| (name.clone(), value.clone()));
                What::Env(pairs.collect())
            }
            "WORKDIR" => What::Workdir(next().ok_or_else(|| wrong("WORKDIR needs a path"))?),
            "USER" => What::User(next().ok_or_else(|| wrong("USER needs a name"))?),
            other => {
                let shown: String = other.chars().take(32).collect();
                return Err(wrong(&format!("there is no step of type '{shown}'")));
            }
        };
        Ok(Instruction {
            what,
            fresh: self.force == Some(true),
        })
    }
}

/// Says whether a template is public.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Publish {
    pub(super) public: Option<bool>,
}

/// Processors, and MiB of memory and disk.
fn sizes(asked: &AskedLimits) -> (u32, u64, u64) {
    let millis = asked.cpu_millis.unwrap_or(limits::CPU_DEFAULT_MILLIS);
    let memory = asked.memory_bytes.unwrap_or(limits::MEMORY_DEFAULT_BYTES);
    let disk = asked.disk_bytes.unwrap_or(limits::BUILD_DISK_BYTES);
    (millis.div_ceil(CPU_MILLIS), memory >> 20, disk >> 20)
}

/// Where a build is, as its clients read it.
pub(super) fn status(state: &BuildState) -> &'static str {
    match state {
        BuildState::Waiting => "waiting",
        BuildState::Building => "building",
        BuildState::Ready => "ready",
        BuildState::Failed { .. } => "error",
    }
}

/// A template in a list, with its newest build.
pub(super) fn template(view: &ProfileView) -> Value {
    let build = view.builds.first();
    let asked = build.map(|build| build.limits).unwrap_or_default();
    let (cpus, memory, disk) = sizes(&asked);
    let names: Vec<_> = view.row.name.iter().collect();
    json!({
        "templateID": view.row.id.short(),
        "buildID": build.map_or_else(|| NO_BUILD.to_owned(), |build| build.id.uuid()),
        "buildStatus": build.map_or("waiting", |build| status(&build.state)),
        "buildCount": view.build_count,
        "cpuCount": cpus,
        "memoryMB": memory,
        "diskSizeMB": disk,
        "public": view.row.is_public,
        "aliases": names,
        "names": names,
        "createdAt": time(view.row.created_at_ms),
        "updatedAt": time(view.row.updated_at_ms),
        "createdBy": null,
        // Nobody counts them.
        "lastSpawnedAt": null,
        "spawnCount": 0,
        "envdVersion": ENVD_VERSION,
    })
}

/// A template with its builds.
pub(super) fn with_builds(view: &ProfileView) -> Value {
    let mut template = template(view);
    let builds = view.builds.iter().map(build);
    template["builds"] = builds.collect();
    template
}

fn build(row: &BuildRow) -> Value {
    let (cpus, memory, disk) = sizes(&row.limits);
    let updated = row
        .ended_at_ms
        .or(row.begun_at_ms)
        .unwrap_or(row.created_at_ms);
    let mut build = json!({
        "buildID": row.id.uuid(),
        "status": status(&row.state),
        "createdAt": time(row.created_at_ms),
        "updatedAt": time(updated),
        "cpuCount": cpus,
        "memoryMB": memory,
        "diskSizeMB": disk,
        "envdVersion": ENVD_VERSION,
    });
    if let Some(ended) = row.ended_at_ms {
        build["finishedAt"] = time(ended).into();
    }
    build
}

/// What has become of a build, with some of its log.
pub(super) fn info(row: &BuildRow, entries: &[LogRow]) -> Value {
    let entries: Vec<_> = entries.iter().map(entry).collect();
    let mut info = json!({
        "templateID": row.profile.short(),
        "buildID": row.id.uuid(),
        "status": status(&row.state),
        "logs": [],
        "logEntries": entries,
    });
    if let BuildState::Failed { why } = &row.state {
        info["reason"] = json!({
            "message": why.message,
            "step": step(why.phase),
            "logEntries": [],
        });
    }
    info
}

fn step(phase: Phase) -> String {
    match phase {
        Phase::Base => "base".to_owned(),
        Phase::Instruction(number) => number.to_string(),
        Phase::Finish => "finalize".to_owned(),
    }
}

/// An entry of a log.
pub(super) fn entry(row: &LogRow) -> Value {
    json!({
        "timestamp": time(row.at_ms),
        "level": level(row.level),
        "message": row.message,
        "step": row.phase,
    })
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

/// Reads what [`level`] wrote.
pub(super) fn level_of(text: &str) -> Option<Level> {
    let all = [Level::Debug, Level::Info, Level::Warn, Level::Error];
    all.into_iter().find(|one| level(*one) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(body: &str) -> Result<Recipe, String> {
        let start: Start = serde_json::from_str(body).unwrap();
        start.recipe().map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn steps_are_read_as_the_clients_send_them() {
        let hash = "a".repeat(64);
        let body = format!(
            r#"{{"fromImage":"e2bdev/base:latest","force":false,"startCmd":"serve","readyCmd":"",
            "steps":[{{"type":"RUN","args":["ls"],"force":false}},
            {{"type":"RUN","args":["whoami","root"],"force":true}},
            {{"type":"COPY","args":["a","b","",""],"filesHash":"{hash}","forceUpload":true}},
            {{"type":"ENV","args":["A","","B","c"]}},{{"type":"WORKDIR","args":["/app"]}},
            {{"type":"USER","args":["root"]}}]}}"#
        );
        let recipe = recipe(&body).unwrap();
        assert!(recipe.validate().is_ok());
        let lines: Vec<_> = recipe
            .instructions
            .iter()
            .map(|one| one.what.line())
            .collect();
        let expect = [
            "RUN ls",
            "RUN whoami root",
            "COPY a b",
            "ENV A  B c",
            "WORKDIR /app",
            "USER root",
        ];
        assert_eq!(lines, expect);
        assert_eq!(
            (recipe.start.as_deref(), recipe.ready.as_deref()),
            (Some("serve"), None)
        );
        assert!(recipe.instructions[1].fresh && !recipe.fresh);
    }

    #[test]
    fn what_cannot_be_a_recipe_is_refused_with_its_place() {
        for (body, expect) in [
            ("{}", "400 one of fromImage and fromTemplate must be there"),
            (
                r#"{"fromImage":"a","fromTemplate":"b"}"#,
                "400 one of fromImage and fromTemplate must be there",
            ),
            (
                r#"{"fromImage":"base","steps":[{"type":"RUN"}]}"#,
                "400 steps.1: RUN needs a command",
            ),
            (
                r#"{"fromImage":"base","steps":[{"type":"ENV","args":["A"]}]}"#,
                "400 steps.1: ENV needs a value for each name",
            ),
            (
                r#"{"fromImage":"base","steps":[{"type":"FLY","args":[]}]}"#,
                "400 steps.1: there is no step of type 'FLY'",
            ),
        ] {
            assert_eq!(recipe(body).err().as_deref(), Some(expect), "{body}");
        }
    }

    #[test]
    fn an_image_of_a_registry_is_never_taken_for_one_that_is_here() {
        let body =
            r#"{"fromImage":"base","fromImageRegistry":{"type":"registry","password":"secret"}}"#;
        let recipe = recipe(body).unwrap();
        let Base::Image(image) = &recipe.base else {
            panic!("{recipe:?}")
        };
        assert!(model::profile::built_in(image).is_none());
        assert!(!format!("{recipe:?}").contains("secret"));
    }

    #[test]
    fn a_build_is_asked_for_by_either_name_and_within_bounds() {
        let ask = |body: &str| {
            let asked: NewBuild = serde_json::from_str(body).unwrap();
            asked.ask().map_err(|refusal| refusal.to_string())
        };
        let new =
            ask(r#"{"name":"Env:V1","cpuCount":2,"memoryMB":1024,"minFreeDiskMb":0}"#).unwrap();
        assert_eq!(new.profile.unwrap().tag(), "v1");
        assert_eq!(new.limits.cpu_millis, Some(2000));
        assert_eq!(
            (new.limits.memory_bytes, new.limits.disk_bytes),
            (Some(1 << 30), None)
        );
        assert!(ask(r#"{"alias":"env"}"#).unwrap().profile.is_some());
        assert!(ask("{}").unwrap().profile.is_none());
        for body in [
            r#"{"name":"base"}"#,
            r#"{"name":"a b"}"#,
            r#"{"name":"a","cpuCount":0}"#,
            r#"{"name":"a","memoryMB":32}"#,
        ] {
            assert!(ask(body).is_err(), "{body}");
        }
    }
}
