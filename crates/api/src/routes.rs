//! The paths of every route, once, for the server that mounts them and the client that calls them.

/// `POST` creates a job, `GET` lists jobs.
pub const JOBS: &str = "/v1/jobs";
/// `GET` answers one job, with `?wait=` as soon as it has ended.
pub const JOB: &str = "/v1/jobs/{id}";
/// `POST` asks a job to stop.
pub const JOB_CANCEL: &str = "/v1/jobs/{id}/cancel";
/// `GET` reads what a job wrote: a page, a live stream, or raw bytes.
pub const JOB_LOGS: &str = "/v1/jobs/{id}/logs";
/// `GET` reads what happened to a job.
pub const JOB_EVENTS: &str = "/v1/jobs/{id}/events";
/// `GET` lists the files that were kept from a job.
pub const JOB_ARTIFACTS: &str = "/v1/jobs/{id}/artifacts";
/// `GET` answers the bytes of one kept file.
pub const JOB_ARTIFACT: &str = "/v1/jobs/{id}/artifacts/{artifact_id}";
/// `GET` with an upgrade connects to the standard streams of a job.
pub const JOB_ATTACH: &str = "/v1/jobs/{id}/attach";
/// `GET` reads what a job has asked of the outside.
pub const JOB_EGRESS: &str = "/v1/jobs/{id}/egress";
/// `GET` reads what is under way to the outside of a job.
pub const JOB_CONNECTIONS: &str = "/v1/jobs/{id}/egress/connections";
/// `GET` reads what is under way to the outside of all sandboxes and jobs.
pub const CONNECTIONS: &str = "/v1/egress/connections";
/// `POST` creates a sandbox that lives on, `GET` lists them.
pub const SANDBOXES: &str = "/v1/sandboxes";
/// `GET` answers one sandbox, `DELETE` takes it away.
pub const SANDBOX: &str = "/v1/sandboxes/{id}";
/// `POST` gives a sandbox a new time to live.
pub const SANDBOX_TIMEOUT: &str = "/v1/sandboxes/{id}/timeout";
/// `PUT` puts other rules of the network in the place of those that there are.
pub const SANDBOX_NETWORK: &str = "/v1/sandboxes/{id}/network";
/// `POST` pauses a sandbox.
pub const SANDBOX_PAUSE: &str = "/v1/sandboxes/{id}/pause";
/// `POST` brings a paused sandbox back.
pub const SANDBOX_RESUME: &str = "/v1/sandboxes/{id}/resume";
/// `POST` resumes a sandbox if it is paused, and lets it live longer.
pub const SANDBOX_CONNECT: &str = "/v1/sandboxes/{id}/connect";
/// `POST` copies what was written in a sandbox.
pub const SANDBOX_SNAPSHOTS: &str = "/v1/sandboxes/{id}/snapshots";
/// `POST` makes sandboxes that begin as this one is.
pub const SANDBOX_FORK: &str = "/v1/sandboxes/{id}/fork";
/// `POST` takes a sandbox away and makes it anew.
pub const SANDBOX_RECREATE: &str = "/v1/sandboxes/{id}/recreate";
/// `GET` reads what happened to a sandbox.
pub const SANDBOX_EVENTS: &str = "/v1/sandboxes/{id}/events";
/// `GET` reads what a sandbox has asked of the outside.
pub const SANDBOX_EGRESS: &str = "/v1/sandboxes/{id}/egress";
/// `GET` reads what is under way to the outside of a sandbox.
pub const SANDBOX_CONNECTIONS: &str = "/v1/sandboxes/{id}/egress/connections";
/// `POST` answers what would become of a URL.
pub const SANDBOX_EGRESS_TEST: &str = "/v1/sandboxes/{id}/egress/test";
/// `GET` reads the record of what happened.
pub const AUDIT: &str = "/v1/audit";
/// `GET` checks that nobody has changed it.
pub const AUDIT_CHECK: &str = "/v1/audit/check";
/// `POST` makes a secret, `GET` lists them.
pub const SECRETS: &str = "/v1/secrets";
/// `GET` answers what is known of a secret, `DELETE` deletes it.
pub const SECRET: &str = "/v1/secrets/{name}";
/// `POST` gives a secret a new value.
pub const SECRET_VERSIONS: &str = "/v1/secrets/{name}/versions";
/// `GET` reads what happened to a secret, and who used it.
pub const SECRET_EVENTS: &str = "/v1/secrets/{name}/events";
/// `GET` lists profiles.
pub const PROFILES: &str = "/v1/profiles";
/// `PUT` writes what a profile says, `GET` answers it, `DELETE` deletes it.
pub const PROFILE: &str = "/v1/profiles/{name}";
/// `GET` lists the versions of a profile.
pub const PROFILE_VERSIONS: &str = "/v1/profiles/{name}/versions";
/// `GET` lists policies.
pub const POLICIES: &str = "/v1/policies";
/// `POST` says what would become of a request by the policies that apply.
pub const POLICY_TEST: &str = "/v1/policies/test";
/// `PUT` writes what a policy says, `GET` answers it, `DELETE` deletes it.
pub const POLICY: &str = "/v1/policies/{name}";
/// `GET` lists the versions of a policy.
pub const POLICY_VERSIONS: &str = "/v1/policies/{name}/versions";
/// `GET` answers what a job keeps of the policies that it was decided by.
pub const JOB_PERMIT: &str = "/v1/jobs/{id}/permit";
/// `GET` answers what a sandbox keeps of the policies that it was decided by.
pub const SANDBOX_PERMIT: &str = "/v1/sandboxes/{id}/permit";
/// `GET` lists what waits for a person and what became of it, `POST` asks one.
pub const APPROVALS: &str = "/v1/approvals";
/// `GET` answers an approval, `DELETE` takes a yes back.
pub const APPROVAL: &str = "/v1/approvals/{id}";
/// `POST` says yes or no.
pub const APPROVAL_DECISION: &str = "/v1/approvals/{id}/decision";
/// `POST` makes a volume, `GET` lists them.
pub const VOLUMES: &str = "/v1/volumes";
/// `GET` answers a volume, `DELETE` deletes it.
pub const VOLUME: &str = "/v1/volumes/{name}";
/// Below it is what the guest of a sandbox serves: processes and files, as E2B's envd has them.
pub const SANDBOX_GUEST: &str = "/v1/sandboxes/{id}/guest";
/// The same with the rest of its path.
pub const SANDBOX_GUEST_PATH: &str = "/v1/sandboxes/{id}/guest/{*path}";
/// `GET` lists what was run in a sandbox.
pub const SANDBOX_JOBS: &str = "/v1/sandboxes/{id}/jobs";
/// `GET` with an upgrade connects to a port in a sandbox.
pub const SANDBOX_PORT: &str = "/v1/sandboxes/{id}/ports/{port}";
/// A program at a port of a sandbox, by path.
pub const SANDBOX_PORT_PATH: &str = "/v1/sandboxes/{id}/ports/{port}/{*path}";
/// The same where nothing follows.
pub const SANDBOX_PORT_ROOT: &str = "/v1/sandboxes/{id}/ports/{port}/";
/// `GET` answers whether and how a sandbox can be reached.
pub const SANDBOX_REACHABILITY: &str = "/v1/sandboxes/{id}/reachability";
/// `GET` answers what a sandbox uses and used.
pub const SANDBOX_USAGE: &str = "/v1/sandboxes/{id}/usage";
/// `GET` lists snapshots.
pub const SNAPSHOTS: &str = "/v1/snapshots";
/// `GET` answers one snapshot, `DELETE` gives it up.
pub const SNAPSHOT: &str = "/v1/snapshots/{id}";
/// `POST` takes bytes and answers their digest, to be named by a job's `files`.
pub const BLOBS: &str = "/v1/blobs";

/// `POST` makes a token with which one node can be enrolled, `GET` lists them.
pub const ENROLL_TOKENS: &str = "/v1/enroll-tokens";
/// `DELETE` takes an enrollment token back.
pub const ENROLL_TOKEN: &str = "/v1/enroll-tokens/{id}";
/// `GET` lists nodes.
pub const NODES: &str = "/v1/nodes";
/// `GET` answers one node, `DELETE` forgets one that was decommissioned.
pub const NODE: &str = "/v1/nodes/{id}";
/// `GET` lists servers, and the links that they hold.
pub const SERVERS: &str = "/v1/servers";
/// `POST` says whether a node is to get work.
pub const NODE_STATE: &str = "/v1/nodes/{id}/state";

/// `POST` makes a tenant, `GET` lists them.
pub const TENANTS: &str = "/v1/tenants";
/// `DELETE` deletes a tenant.
pub const TENANT: &str = "/v1/tenants/{name}";
/// `POST` lets a principal in, `GET` lists them.
pub const PRINCIPALS: &str = "/v1/principals";
/// `PUT` gives a principal another role, `DELETE` sends it away.
pub const PRINCIPAL: &str = "/v1/principals/{name}";
/// `POST` makes a key, `GET` lists them.
pub const KEYS: &str = "/v1/keys";
/// `DELETE` takes a key back.
pub const KEY: &str = "/v1/keys/{id}";
/// `GET`: who is behind the credential.
pub const ME: &str = "/v1/me";
/// `GET`: with what the command line gets a token here. Needs no credential.
pub const LOGIN: &str = "/v1/login";
/// `GET` lists quotas with what is used of them.
pub const QUOTAS: &str = "/v1/quotas";
/// `PUT` says what a tenant or a principal may have at a time, `DELETE` takes that away.
pub const QUOTA: &str = "/v1/quotas/{name}";

/// `POST`: a machine asks to be a node.
pub const NODE_ENROLL: &str = "/node/v1/enroll";
/// `POST`: a node asks for a new certificate.
pub const NODE_RENEW: &str = "/node/v1/renew";
/// `GET` with an upgrade: a node opens a link.
pub const NODE_LINK: &str = "/node/v1/link";
/// `GET` with an upgrade: a server borrows the link of a node from the server that holds it.
pub const PEER_LINK: &str = "/node/v1/peer/link";
/// `POST`: a node says that it is there.
pub const NODE_REGISTER: &str = "/node/v1/register";
/// `POST`: a node renews its leases.
pub const NODE_HEARTBEAT: &str = "/node/v1/heartbeat";
/// `POST`: a node asks for work and waits for it.
pub const NODE_POLL: &str = "/node/v1/poll";
/// `POST`: a node has provisioned a sandbox and asks to let the command go.
pub const NODE_JOB_STARTED: &str = "/node/v1/jobs/{id}/started";
/// `POST`: a node delivers what a job wrote.
pub const NODE_JOB_OUTPUT: &str = "/node/v1/jobs/{id}/output";
/// `POST`: a node says how a job ended.
pub const NODE_JOB_FINISHED: &str = "/node/v1/jobs/{id}/finished";
/// `POST`: a node gives a job back before it started.
pub const NODE_JOB_RELEASE: &str = "/node/v1/jobs/{id}/release";
/// `PUT`: a node delivers one file that is to be kept.
pub const NODE_JOB_ARTIFACTS: &str = "/node/v1/jobs/{id}/artifacts";
/// `POST`: a node says what has become of a sandbox.
pub const NODE_SANDBOX_REPORT: &str = "/node/v1/sandboxes/{id}/report";
/// `POST`: a node has put rules of a network in force.
pub const NODE_SANDBOX_NETWORK: &str = "/node/v1/sandboxes/{id}/network";
/// `POST`: a node asks for the secrets of a job.
pub const NODE_JOB_SECRETS: &str = "/node/v1/jobs/{id}/secrets";
/// `POST`: a node asks for the secrets of a sandbox.
pub const NODE_SANDBOX_SECRETS: &str = "/node/v1/sandboxes/{id}/secrets";
/// `POST`: a node says what its sandboxes and jobs have asked of the outside.
pub const NODE_EGRESS: &str = "/node/v1/egress";
/// `POST`: a node says what its sandboxes used.
pub const NODE_USAGE: &str = "/node/v1/usage";
/// `POST`: a node has removed the bytes of a snapshot.
pub const NODE_SNAPSHOT_REMOVED: &str = "/node/v1/snapshots/{id}/removed";
/// `POST`: a node says what was run in a sandbox.
pub const NODE_SANDBOX_EXECS: &str = "/node/v1/sandboxes/{id}/execs";
/// `GET`: a node fetches an input file.
pub const NODE_BLOB: &str = "/node/v1/blobs/{digest}";
/// The header in which a node shows the token of a lease, with everything that it says about a job or a sandbox; the
/// name of its process, its incarnation, with what it says about many at once or about what is over.
pub const LEASE_TOKEN: &str = "cofferdam-lease";

/// `POST`, `GET`, `DELETE`: the Model Context Protocol over HTTP.
pub const MCP: &str = "/mcp";
/// `GET`: the process answers. Needs no credential.
pub const HEALTHZ: &str = "/healthz";
/// `GET`: the process can do work.
pub const READYZ: &str = "/readyz";
/// `GET`: Prometheus text.
pub const METRICS: &str = "/metrics";
/// `GET`: this interface as an OpenAPI document.
pub const OPENAPI: &str = "/openapi.json";

/// The header that makes a create safe to repeat.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header that names a request in the server's log; taken from the client or made.
pub const REQUEST_ID: &str = "x-request-id";

/// Fills the `{...}` places of a route, in order, with percent-encoded segments.
///
/// Ids come from people's keyboards: without the encoding, `job get ../blobs` would silently
/// become a request to another route.
#[must_use]
pub fn fill(template: &str, segments: &[&str]) -> String {
    let mut path = String::with_capacity(template.len() + 64);
    let mut rest = template;
    for segment in segments {
        let Some((before, after)) = rest.split_once('{') else {
            break;
        };
        path.push_str(before);
        percent_encode_into(&mut path, segment);
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    path.push_str(rest);
    path
}

/// Writes `?key=value&...` for the pairs that have a value; nothing when none has.
#[must_use]
pub fn query(pairs: &[(&str, Option<String>)]) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(key);
            text.push('=');
            percent_encode_into(&mut text, value);
        }
    }
    text
}

/// Keeps the unreserved characters of RFC 3986 and encodes every other byte. A lone `.` or `..`
/// is encoded too, because servers and proxies normalise them even where they are data.
fn percent_encode_into(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let dots = matches!(text, "." | "..");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'~')
            || (byte == b'.' && !dots)
        {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_segment() {
        assert_eq!(fill(JOB, &["../blobs?x=1"]), "/v1/jobs/..%2Fblobs%3Fx%3D1");
        assert_eq!(fill(JOB_CANCEL, &[".."]), "/v1/jobs/%2E%2E/cancel");
        assert_eq!(
            fill(JOB_ARTIFACT, &["job_1", "art_2"]),
            "/v1/jobs/job_1/artifacts/art_2"
        );
    }

    #[test]
    fn a_query_has_only_the_pairs_with_a_value() {
        assert_eq!(query(&[("a", None)]), "");
        assert_eq!(
            query(&[
                ("a", Some("1".into())),
                ("b", None),
                ("path", Some("out/a b".into()))
            ]),
            "?a=1&path=out%2Fa%20b"
        );
    }
}
