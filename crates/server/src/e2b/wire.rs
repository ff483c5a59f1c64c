//! The bodies of E2B's control plane, as its clients send and read them.
//!
//! What we do not know is passed over, because the clients change every week. What we know and cannot do
//! is refused by name, where to pass it over would give less than was asked.

use std::collections::BTreeMap;

use http::HeaderValue;
use model::id::SnapshotId;
use model::limits;
use model::profile::Says;
use model::sandbox::SandboxState;
use model::sandbox_spec::{Defaults, OnExpiry, SandboxSpec};
use model::snapshot::SnapshotName;
use model::spec::{AskedLimits, CODE_INTERPRETER};
use model::volume::VolumeMount;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::{Ctx, Event, SandboxAsk, SandboxRow, SecretValue, SnapshotRef, UsageSpan};

use super::aim::ENVD_PORT;
use super::keys;
use super::logs;
use super::measure::Said;
use super::network::{self, Lists};
use super::refusal::Refusal;
use crate::convert;
use crate::convert::usage::most;

/// The version of envd whose routes the guest has. It tells the clients what they may use.
pub(crate) const ENVD_VERSION: &str = "0.6.13";
/// E2B's name for where a sandbox is; nobody reads it any more, and it must be there.
const CLIENT_ID: &str = "cofferdam";
/// How long a sandbox lives when nobody says: what E2B's documents promise, and old clients send.
const TIMEOUT_DEFAULT_S: u64 = 300;
/// What a template is here: a name by which clients ask for a profile.
pub(crate) const TEMPLATES: [&str; 2] = ["base", CODE_TEMPLATE];
/// The template of E2B's code interpreter.
const CODE_TEMPLATE: &str = "code-interpreter-v1";
/// What E2B knows of a sandbox and we do not is kept in its metadata, under names that clients of this
/// door can neither set nor see.
const RESERVED: &str = "e2b:";
/// The template that was named.
pub(crate) const TEMPLATE_KEY: &str = "e2b:template";
/// There, where the ports need a token.
const CLOSED_KEY: &str = "e2b:closed";
/// The host that programs inside are told to be, whatever the client dialled.
const HOST_KEY: &str = "e2b:host";
/// The ports at which programs inside speak HTTPS, with commas between them.
const HTTPS_KEY: &str = "e2b:https";
/// How many there may be: what a person writes; each is compared with every request to a port.
const HTTPS_PORTS_MAX: usize = 64;
/// The longest host: RFC 1035, section 2.3.4, with a port.
const HOST_BYTES_MAX: usize = 262;
/// What in that host stands for the port.
const PORT_PLACE: &str = "${PORT}";

/// What somebody asks a sandbox to be.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewSandbox {
    #[serde(rename = "templateID")]
    template_id: String,
    timeout: Option<u64>,
    auto_pause: Option<bool>,
    auto_pause_memory: Option<bool>,
    auto_resume: Option<AutoResume>,
    #[serde(rename = "allow_internet_access")]
    allow_internet_access: Option<bool>,
    network: Option<Network>,
    metadata: Option<BTreeMap<String, String>>,
    env_vars: Option<BTreeMap<String, String>>,
    iam: Option<Value>,
    volume_mounts: Option<Vec<Mount>>,
}

/// A volume in the files of a sandbox.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Mount {
    name: String,
    path: String,
}

impl Mount {
    fn of(mount: &VolumeMount) -> Self {
        Self {
            name: mount.name.clone(),
            path: mount.path.clone(),
        }
    }

    fn ask(self) -> VolumeMount {
        VolumeMount {
            name: self.name,
            id: None,
            path: self.path,
            read_only: false,
            size_bytes: 0,
            is_new: false,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
struct AutoResume {
    enabled: bool,
}

/// What may come in and go out.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Network {
    allow_public_traffic: Option<bool>,
    mask_request_host: Option<String>,
    https_ports: Option<Vec<u16>>,
    #[serde(flatten)]
    lists: Lists,
}

impl NewSandbox {
    /// The password of the proxy that its connections leave through, where it is in clear; a refusal of what is none.
    pub(crate) fn password(&self) -> Result<Option<SecretValue>, Refusal> {
        let network = self.network.as_ref();
        let password = network.map(|network| network.lists.password());
        Ok(password.transpose()?.flatten())
    }

    /// From now on the request is told from others by this, in the stead of the password in it.
    pub(crate) fn bind_password(&mut self, tag: Option<String>) {
        if let Some(network) = &mut self.network {
            network.lists.bind_password(tag);
        }
    }

    /// The template, as it was named.
    pub(crate) fn template(&self) -> &str {
        &self.template_id
    }

    /// What is to happen when its time is over.
    fn on_expiry(&self) -> Result<OnExpiry, Refusal> {
        let wakes = self.auto_resume.is_some_and(|resume| resume.enabled);
        match (self.auto_pause, self.auto_pause_memory) {
            // E2B says no to this, too: traffic would meet a sandbox in which nobody listens.
            (Some(true), Some(false)) if wakes => Err(Refusal::bad(
                "autoPauseMemory: without its memory, traffic cannot resume a sandbox; \
                 leave autoResume out",
            )),
            (Some(true), Some(false)) => Ok(OnExpiry::PauseWithoutMemory),
            (Some(true), Some(true) | None) => Ok(OnExpiry::Pause),
            (Some(false) | None, _) => Ok(OnExpiry::Kill),
        }
    }

    /// What is asked, in the words of the house. `root` is the operator's root by the template's name.
    ///
    /// # Errors
    /// A refusal that names what there is not.
    pub(crate) fn ask(self, root: Option<String>) -> Result<SandboxAsk, Refusal> {
        let from = match root {
            Some(_) => None,
            None => template_ref(&self.template_id)?,
        };
        let on_expiry = self.on_expiry()?;
        let says = self.says();
        refuse("iam", self.iam.as_ref())?;
        let mounts = self.volume_mounts.unwrap_or_default();
        let network = self.network.unwrap_or_default();
        let rules = network.lists.rules(self.allow_internet_access)?;
        let secrets = network.lists.secrets()?;
        let mut metadata = self.metadata.unwrap_or_default();
        if let Some(key) = metadata.keys().find(|key| key.starts_with(RESERVED)) {
            return Err(Refusal::bad(format!("metadata: `{key}` is ours")));
        }
        let bare = self.template_id.strip_suffix(":default");
        let profile = match bare.unwrap_or(&self.template_id) {
            CODE_TEMPLATE => CODE_INTERPRETER,
            _ => "default",
        };
        metadata.insert(TEMPLATE_KEY.to_owned(), self.template_id);
        if network.allow_public_traffic == Some(false) {
            metadata.insert(CLOSED_KEY.to_owned(), "1".to_owned());
        }
        if let Some(host) = network.masked_host()? {
            metadata.insert(HOST_KEY.to_owned(), host);
        }
        if let Some(ports) = network.spoken_to_in_https()? {
            metadata.insert(HTTPS_KEY.to_owned(), ports);
        }
        Ok(SandboxAsk {
            spec: SandboxSpec {
                profile: profile.to_owned(),
                serves_volume: false,
                name: None,
                env: self.env_vars.unwrap_or_default(),
                root,
                root_identity: None,
                limits: AskedLimits::default(),
                network: rules,
                // Its clients know two users.
                allow_root: true,
                on_expiry,
                auto_resume: self.auto_resume.is_some_and(|resume| resume.enabled),
                queue_timeout_ms: limits::SANDBOX_QUEUE_DEFAULT_MS,
                placement: model::place::Placement::default(),
                node: None,
                secrets,
                scrub_patterns: false,
                layers: Vec::new(),
                volumes: mounts.into_iter().map(Mount::ask).collect(),
                defaults: Defaults::default(),
                made_by: None,
                permit: None,
            },
            from,
            metadata,
            ttl_ms: ms(self.timeout.unwrap_or(TIMEOUT_DEFAULT_S)),
            profile: None,
            says,
        })
    }

    /// What the request says itself. Older clients say `true` for the internet when nobody has said anything, so
    /// that means nothing here.
    pub(crate) fn says(&self) -> Says {
        let lists = self
            .network
            .as_ref()
            .is_some_and(|network| network.lists.is_any());
        Says {
            network: lists || self.allow_internet_access == Some(false),
            timeout: self.timeout.is_some(),
        }
    }
}

impl Network {
    /// The ports at which programs inside speak HTTPS.
    fn spoken_to_in_https(&self) -> Result<Option<String>, Refusal> {
        let ports = self.https_ports.as_deref().unwrap_or_default();
        if ports.len() > HTTPS_PORTS_MAX || ports.contains(&0) || ports.contains(&ENVD_PORT) {
            let why = format!(
                "network.httpsPorts: at most {HTTPS_PORTS_MAX} ports of programs, 1 to 65535"
            );
            return Err(Refusal::bad(why));
        }
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        Ok((!ports.is_empty()).then(|| ports.join(",")))
    }

    /// What a program inside is to be told as its host.
    fn masked_host(&self) -> Result<Option<String>, Refusal> {
        let host = self.mask_request_host.as_deref().unwrap_or_default();
        if host.is_empty() {
            return Ok(None);
        }
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]${}".contains(&byte);
        if host.len() > HOST_BYTES_MAX || !host.bytes().all(is_host) {
            let why = "network.maskRequestHost: a host name, a colon, and a port or ${PORT}";
            return Err(Refusal::bad(why));
        }
        Ok(Some(host.to_owned()))
    }
}

/// Refuses what is there and says something.
pub(super) fn refuse(field: &str, value: Option<&Value>) -> Result<(), Refusal> {
    let says_nothing = match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(members)) => members.is_empty(),
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Bool(_) | Value::Number(_)) => false,
    };
    if says_nothing {
        return Ok(());
    }
    let message = format!("{field}: Cofferdam does not have this part of E2B");
    Err(Refusal::bad(message))
}

/// What a template id means: the one that is always there, or a snapshot, by its id or its name.
pub(crate) fn template_ref(text: &str) -> Result<Option<SnapshotRef>, Refusal> {
    if is_built_in(text) {
        return Ok(None);
    }
    // A client may put the tag behind an id, too.
    let bare = text.split(':').next().unwrap_or(text);
    if let Ok(id) = SnapshotId::from_short(bare) {
        return Ok(Some(SnapshotRef::Id(id)));
    }
    // Names are made small where they are given, too.
    let named: Result<SnapshotName, _> = text.to_lowercase().parse();
    named
        .map(|name| Some(SnapshotRef::Name(name)))
        .map_err(|_| no_template(text))
}

/// Whether a template is there from the start, by its name with its only tag or without.
pub(crate) fn is_built_in(text: &str) -> bool {
    let bare = text.strip_suffix(":default").unwrap_or(text);
    TEMPLATES.contains(&bare)
}

/// There is no such template.
pub(crate) fn no_template(name: &str) -> Refusal {
    let cut: String = name.chars().take(limits::PROFILE_BYTES_MAX).collect();
    Refusal::new(
        http::StatusCode::NOT_FOUND,
        format!("template \"{cut}\" was not found"),
    )
}

fn ms(seconds: u64) -> u64 {
    seconds.saturating_mul(1000)
}

/// The body of a connect and of a resume.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Change {
    timeout: Option<u64>,
    memory: Option<bool>,
    auto_pause: Option<bool>,
}

/// The body of a pause.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pause {
    memory: Option<bool>,
    require_healthy_guest: Option<bool>,
}

impl Pause {
    /// What runs is to go on when it comes back.
    pub(crate) fn keeps_memory(self) -> bool {
        self.memory != Some(false)
    }

    /// It is refused where the guest does not answer. One without memory always is, because the guest is
    /// who ends what runs.
    pub(crate) fn needs_guest(self) -> bool {
        !self.keeps_memory() || self.require_healthy_guest == Some(true)
    }
}

impl Change {
    /// What ran is to go on, where it was kept.
    pub(crate) fn keeps_memory(&self) -> bool {
        self.memory != Some(false)
    }

    /// How long it is to live from then on.
    pub(crate) fn ttl_ms(&self) -> Option<u64> {
        self.timeout.map(ms)
    }

    /// # Errors
    /// A refusal that names what there is not.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.auto_pause == Some(true) {
            let message = "autoPause: it is said when a sandbox is created";
            return Err(Refusal::bad(message));
        }
        Ok(())
    }
}

/// The body that sets when a sandbox ends, in seconds from now.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Timeout {
    timeout: u64,
}

impl Timeout {
    pub(crate) fn ttl_ms(&self) -> u64 {
        ms(self.timeout)
    }
}

/// The body that lets a sandbox live on, in seconds from now.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Refresh {
    duration: Option<u64>,
}

impl Refresh {
    pub(crate) fn ttl_ms(&self) -> u64 {
        ms(self.duration.unwrap_or(TIMEOUT_DEFAULT_S))
    }
}

/// What a client needs to use a sandbox.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sandbox {
    #[serde(rename = "templateID")]
    template_id: String,
    #[serde(rename = "sandboxID")]
    sandbox_id: String,
    #[serde(rename = "clientID")]
    client_id: &'static str,
    alias: String,
    envd_version: &'static str,
    envd_access_token: String,
    traffic_access_token: Option<String>,
    domain: Option<String>,
}

/// How a sandbox is, in a list.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    #[serde(rename = "templateID")]
    template_id: String,
    #[serde(rename = "sandboxID")]
    sandbox_id: String,
    #[serde(rename = "clientID")]
    client_id: &'static str,
    alias: String,
    started_at: String,
    end_at: String,
    cpu_count: u32,
    #[serde(rename = "memoryMB")]
    memory_mb: u64,
    #[serde(rename = "diskSizeMB")]
    disk_size_mb: u64,
    state: &'static str,
    envd_version: &'static str,
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volume_mounts: Vec<Mount>,
}

/// How a sandbox is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Detail {
    #[serde(flatten)]
    listed: Listed,
    #[serde(skip_serializing_if = "Option::is_none")]
    envd_access_token: Option<String>,
    allow_internet_access: bool,
    domain: Option<String>,
    lifecycle: Lifecycle,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_mode: Option<&'static str>,
    network: NetworkView,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle {
    auto_resume: bool,
    on_timeout: &'static str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct NetworkView {
    allow_public_traffic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask_request_host: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    https_ports: Vec<u16>,
    #[serde(flatten)]
    lists: network::ListsView,
}

/// What programs at this port are told as their host, where that is not what the client says.
pub(crate) fn masked_host(row: &SandboxRow) -> Option<String> {
    row.metadata.get(HOST_KEY).cloned()
}

/// The ports at which programs inside speak HTTPS.
pub(crate) fn https_ports(row: &SandboxRow) -> Vec<u16> {
    let ports = row.metadata.get(HTTPS_KEY).map(String::as_str);
    let ports = ports.unwrap_or_default().split(',');
    ports.filter_map(|port| port.parse().ok()).collect()
}

/// The same with the port in its place.
pub(crate) fn host_at(masked: &str, port: u16) -> Option<HeaderValue> {
    let host = masked.replace(PORT_PLACE, &port.to_string());
    HeaderValue::from_str(&host).ok()
}

/// The ports of a sandbox are open to whoever knows its name.
pub(crate) fn is_open(row: &SandboxRow) -> bool {
    !row.metadata.contains_key(CLOSED_KEY)
}

fn template(row: &SandboxRow) -> String {
    let named = row.metadata.get(TEMPLATE_KEY);
    // One that was made at another door is what they all are.
    named.cloned().unwrap_or_else(|| "base".to_owned())
}

/// What a client needs to use a sandbox. `domain` is what stands behind the names of its ports.
pub(crate) fn sandbox(row: &SandboxRow, domain: Option<String>) -> Sandbox {
    let access_token = row.access_token.text();
    Sandbox {
        template_id: template(row),
        sandbox_id: row.id.short().to_owned(),
        client_id: CLIENT_ID,
        alias: template(row),
        envd_version: ENVD_VERSION,
        envd_access_token: access_token.to_owned(),
        traffic_access_token: (!is_open(row)).then(|| keys::traffic_token(access_token)),
        domain,
    }
}

/// What its pause has kept, once that is done.
fn pause_mode(state: &SandboxState) -> Option<&'static str> {
    let SandboxState::Paused { memory } = state else {
        return None;
    };
    Some(if *memory { "full" } else { "filesystem" })
}

/// How a sandbox is, in a list.
pub(crate) fn listed(row: &SandboxRow) -> Listed {
    let (millis, memory, disk) = most(row);
    let own = |(key, _): &(&String, &String)| !key.starts_with(RESERVED);
    let metadata = row.metadata.iter().filter(own);
    // One that is paused has no end; this is when it would have had one.
    let since = row.ready_at_ms.unwrap_or(row.created_at_ms);
    let end = row
        .expires_at_ms
        .unwrap_or_else(|| since.saturating_add(row.ttl_ms));
    Listed {
        template_id: template(row),
        sandbox_id: row.id.short().to_owned(),
        client_id: CLIENT_ID,
        alias: template(row),
        started_at: time(row.created_at_ms),
        end_at: time(end),
        cpu_count: millis.div_ceil(1000),
        memory_mb: memory >> 20,
        disk_size_mb: disk >> 20,
        state: state(&row.state),
        envd_version: ENVD_VERSION,
        metadata: metadata.map(|(k, v)| (k.clone(), v.clone())).collect(),
        volume_mounts: row.spec.volumes.iter().map(Mount::of).collect(),
    }
}

/// What a sandbox uses at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metric {
    timestamp: String,
    timestamp_unix: u64,
    cpu_count: u32,
    cpu_used_pct: f64,
    mem_used: u64,
    mem_total: u64,
    mem_cache: u64,
    disk_used: u64,
    disk_total: u64,
}

/// A sample, of what the guest said and what the limits allow.
pub(crate) fn metric(row: &SandboxRow, said: &Said, now_ms: u64) -> Metric {
    let asked = &row.spec.limits;
    let millis = asked.cpu_millis.unwrap_or(limits::CPU_DEFAULT_MILLIS);
    let mem_total = asked.memory_bytes.unwrap_or(limits::MEMORY_DEFAULT_BYTES);
    let disk_total = asked.disk_bytes.unwrap_or(said.disk_total);
    let cpu_count = millis.div_ceil(1000);
    let most = f64::from(cpu_count) * 100.0;
    Metric {
        timestamp: time(now_ms),
        timestamp_unix: now_ms / 1000,
        cpu_count,
        cpu_used_pct: said.cpu_used_pct.clamp(0.0, most),
        mem_used: said.mem_used.min(mem_total),
        mem_total,
        mem_cache: said.mem_cache.min(mem_total),
        disk_used: said.disk_used.min(disk_total),
        disk_total,
    }
}

/// The same of the past.
pub(crate) fn metric_of(row: &SandboxRow, span: &UsageSpan) -> Metric {
    let said = Said {
        cpu_used_us: span.end.cpu_us,
        cpu_used_pct: f64::from(span.cpu_millis.unwrap_or(0)) / 10.0,
        mem_used: span.end.memory_bytes,
        mem_cache: span.end.cache_bytes,
        disk_used: span.end.disk_bytes,
        disk_total: most(row).2,
    };
    metric(row, &said, span.end.at_ms)
}

/// How a sandbox is, for somebody.
pub(crate) fn detail(ctx: &Ctx, row: &SandboxRow, domain: Option<String>) -> Detail {
    Detail {
        listed: listed(row),
        envd_access_token: convert::sandbox::token(ctx, row),
        allow_internet_access: row.rules().has_way_out(),
        domain,
        lifecycle: Lifecycle {
            auto_resume: row.spec.auto_resume,
            on_timeout: match row.spec.on_expiry {
                OnExpiry::Kill => "kill",
                OnExpiry::Pause | OnExpiry::PauseWithoutMemory => "pause",
            },
        },
        pause_mode: pause_mode(&row.state),
        network: NetworkView {
            allow_public_traffic: is_open(row),
            mask_request_host: masked_host(row),
            https_ports: https_ports(row),
            lists: network::view(row.rules()),
        },
    }
}

/// The states that are `running` at this edge.
pub(crate) const RUNNING: [&str; 4] = ["ready", "resuming", "snapshotting", "recreating"];
/// Those that are `paused`.
pub(crate) const PAUSED: [&str; 2] = ["pausing", "paused"];

fn state(state: &SandboxState) -> &'static str {
    let is_paused = matches!(state, SandboxState::Snapshotting { paused: true, .. });
    if is_paused || PAUSED.contains(&state.name()) {
        "paused"
    } else {
        "running"
    }
}

/// A time as text; the end of time where it is beyond it.
pub(crate) fn time(ms: u64) -> String {
    let moment = i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    moment.unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// One line of a sandbox's log: what happened to it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LogEntry {
    timestamp: String,
    message: String,
    level: &'static str,
    fields: BTreeMap<String, String>,
}

/// One line of it for older clients.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LogLine {
    timestamp: String,
    line: String,
}

pub(crate) fn log_entry(event: &Event) -> LogEntry {
    LogEntry {
        timestamp: time(event.at_ms),
        message: event.kind.clone(),
        level: logs::level_of(&event.kind),
        fields: BTreeMap::new(),
    }
}

pub(crate) fn log_line(event: &Event) -> LogLine {
    LogLine {
        timestamp: time(event.at_ms),
        line: event.kind.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The template, or the refusal.
    fn check(body: &str, expect: &str) {
        let asked: NewSandbox = serde_json::from_str(body).unwrap();
        let found = match asked.ask(None) {
            Ok(ask) => ask.metadata[TEMPLATE_KEY].clone(),
            Err(refusal) => refusal.to_string(),
        };
        assert_eq!(found, expect, "{body}");
    }

    #[test]
    fn what_the_clients_send_is_taken_and_what_we_cannot_do_is_named() {
        let with = |more: &str| format!(r#"{{"templateID":"base",{more}}}"#);
        let no = |field: &str| format!("400 {field}: Cofferdam does not have this part of E2B");
        check(r#"{"templateID":"base"}"#, "base");
        check(
            r#"{"templateID":"code-interpreter-v1"}"#,
            "code-interpreter-v1",
        );
        check(
            r#"{"templateID":"x y"}"#,
            "404 template \"x y\" was not found",
        );
        for fine in [
            r#""secure":true,"allow_internet_access":true,"metadata":null"#,
            r#""mcp":{"x":{}},"iam":{},"volumeMounts":[],"network":null"#,
            r#""network":{"denyOut":["0.0.0.0/0"],"allowOut":[],"egressProxy":null}"#,
            r#""autoPauseMemory":true,"of_next_week":[1]"#,
        ] {
            check(&with(fine), "base");
        }
        for (more, expect) in [
            (r#""iam":{"tokens":{}}"#, no("iam")),
            (
                r#""network":{"dnsServers":["dns.test"]}"#,
                "400 network.dnsServers: each is an address".to_owned(),
            ),
            (
                r#""network":{"rules":[]}"#,
                "400 network.rules: hosts, each with a list of transforms".to_owned(),
            ),
            (
                r#""network":{"httpsPorts":[0]}"#,
                "400 network.httpsPorts: at most 64 ports of programs, 1 to 65535".to_owned(),
            ),
            (
                r#""metadata":{"e2b:closed":""}"#,
                "400 metadata: `e2b:closed` is ours".to_owned(),
            ),
        ] {
            check(&with(more), &expect);
        }
    }

    #[test]
    fn an_ask_has_the_words_of_the_house() {
        let body = r#"{"templateID":"base","timeout":60,"autoPause":true,"autoResume":{"enabled":true},
            "envVars":{"A":"b"},"metadata":{"k":"v"},"network":{"allowPublicTraffic":false}}"#;
        let ask = serde_json::from_str::<NewSandbox>(body)
            .unwrap()
            .ask(None)
            .unwrap();
        assert_eq!((ask.ttl_ms, ask.spec.on_expiry), (60_000, OnExpiry::Pause));
        assert!(ask.spec.auto_resume && ask.spec.network.has_way_out());
        assert_eq!(
            (ask.spec.env["A"].as_str(), ask.metadata["k"].as_str()),
            ("b", "v")
        );
        assert!(ask.metadata.contains_key(CLOSED_KEY));
        assert_eq!(host_at("a.example:${PORT}", 80).unwrap(), "a.example:80");
        assert!(ask.spec.validate(&ask.metadata).is_ok());
    }

    #[test]
    fn times_are_as_the_clients_read_them() {
        assert_eq!(time(1_750_000_000_000), "2025-06-15T15:06:40Z");
        assert_eq!(time(1), "1970-01-01T00:00:00.001Z");
        assert!(time(u64::MAX).starts_with("9999-"));
    }

    #[test]
    fn a_pause_keeps_the_memory_unless_somebody_says_no_and_asks_the_guest_where_it_has_to() {
        let read = |body: &str| {
            let pause = serde_json::from_str::<Pause>(body).unwrap();
            (pause.keeps_memory(), pause.needs_guest())
        };
        assert_eq!(read("{}"), (true, false));
        assert_eq!(read(r#"{"memory":true}"#), (true, false));
        assert_eq!(read(r#"{"requireHealthyGuest":true}"#), (true, true));
        assert_eq!(read(r#"{"memory":false}"#), (false, true));
        let no = r#"{"memory":false,"requireHealthyGuest":false}"#;
        assert_eq!(read(no), (false, true));
        let ok = |body: &str| {
            let change = serde_json::from_str::<Change>(body).unwrap();
            change.check().is_ok().then(|| change.keeps_memory())
        };
        assert_eq!(ok(r#"{"timeout":5}"#), Some(true));
        assert_eq!(ok(r#"{"memory":false}"#), Some(false));
        assert_eq!(ok(r#"{"autoPause":true}"#), None);
    }

    #[test]
    fn what_is_to_happen_at_the_end_of_its_time_is_as_the_client_says() {
        let read = |more: &str| {
            let body = format!(r#"{{"templateID":"base"{more}}}"#);
            let ask = serde_json::from_str::<NewSandbox>(&body).unwrap().ask(None);
            ask.ok().map(|ask| ask.spec.on_expiry)
        };
        let no_memory = r#","autoPause":true,"autoPauseMemory":false"#;
        assert_eq!(read(""), Some(OnExpiry::Kill));
        assert_eq!(read(r#","autoPauseMemory":false"#), Some(OnExpiry::Kill));
        assert_eq!(read(r#","autoPause":true"#), Some(OnExpiry::Pause));
        assert_eq!(read(no_memory), Some(OnExpiry::PauseWithoutMemory));
        let woken = format!(r#"{no_memory},"autoResume":{{"enabled":true}}"#);
        assert_eq!(read(&woken), None);
    }
}
