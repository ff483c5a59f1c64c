//! Fuzz targets: bodies of nodes, and documents that people write. See `fuzz/engine.rs`.

use api::node::{
    JobFinished, JobOutput, JobStarted, NodeHeartbeat, NodePoll, NodeRegister, SandboxReport,
};
use serde::de::DeserializeOwned;

use crate::convert;
use crate::convert::{from_wire, sandbox};
use crate::engine;

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

/// Whatever a node says is read or refused; the first byte says at which route. A refusal is not an error of ours.
fn node(input: &[u8]) {
    let (which, body) = input.split_first().unwrap_or((&0, &[]));
    let refused = match which % 11 {
        0 => {
            drop(read::<NodeRegister>(body).map(from_wire::hello));
            None
        }
        1 => read::<NodeHeartbeat>(body).and_then(|beat| {
            drop(beat.host.map(convert::fleet::host));
            beat.dropped
                .into_iter()
                .for_each(|one| drop(from_wire::dropped(one)));
            let jobs = from_wire::job_refs(beat.running).err();
            let sandboxes = sandbox::refs_from(beat.sandboxes).err();
            let snapshots = sandbox::snapshots_from(&beat.snapshots).err();
            let volumes = convert::volume::ids_from(&beat.volumes).err();
            jobs.or(sandboxes).or(snapshots).or(volumes)
        }),
        2 => read::<NodePoll>(body).and_then(|poll| {
            let _reserved = convert::fleet::reserved(poll.reserved);
            None
        }),
        3 => read::<JobStarted>(body).and_then(|report| from_wire::started(report).err()),
        4 => read::<JobOutput>(body).and_then(|report| from_wire::pieces(report.segments).err()),
        5 => read::<JobFinished>(body).and_then(|report| from_wire::finished(report).err()),
        6 => {
            drop(read::<SandboxReport>(body).map(|report| sandbox::said(report.what)));
            None
        }
        7 => read(body).and_then(|usage| convert::usage::seen(usage).err()),
        8 => read::<api::egress::NodeEgress>(body)
            .and_then(|report| convert::egress::records(report.records).err()),
        9 => read(body).and_then(|report| convert::network::said(report).err()),
        _ => read::<api::exec::NodeExecs>(body)
            .and_then(|report| convert::exec::facts(report.facts).err()),
    };
    if let Some(error) = refused {
        let status = error.code().row().http_status;
        assert!(status < 500, "{error:?}");
    }
}

#[test]
fn bodies_of_nodes_are_read_or_refused_and_never_an_error_of_ours() {
    let id = "sbx_0193a5c0b4a07000800000000000000a";
    let job = "job_0193a5c0b4a07000800000000000000a";
    let texts = [
        (0, r#"{"name":"n","incarnation":"i","version":"1","protocol":{"min":1,"max":9},"slots":4,"drivers":["linux"],"facts":{},"labels":{"a":"b"}}"#.to_owned()),
        (1, format!(r#"{{"incarnation":"i","protocol":{{"min":1,"max":9}},"running":[{{"job_id":"{job}","epoch":1}}],"sandboxes":[{{"sandbox_id":"{id}","epoch":1}}],"snapshots":[],"volumes":[]}}"#)),
        (2, r#"{"incarnation":"i","wait_ms":1,"free_slots":1,"free_sandboxes":1}"#.to_owned()),
        (3, format!(r#"{{"epoch":1,"attempt":1,"driver":"linux","sandbox_id":"{id}","enforcement":[]}}"#)),
        (4, r#"{"epoch":1,"attempt":1,"segments":[{"stream":"stdout","offset_bytes":0,"data":"aGk=","encoding":"base64"}]}"#.to_owned()),
        (5, r#"{"epoch":1,"attempt":1,"outcome":{"kind":"exited","code":0},"stdout":{"bytes":1},"stderr":{"bytes":1},"segments":[]}"#.to_owned()),
        (6, r#"{"epoch":1,"what":{"kind":"failed","why":"x"}}"#.to_owned()),
        (7, format!(r#"{{"sandboxes":[{{"sandbox_id":"{id}","at_ms":1,"cpu_ms":1,"memory_bytes":1}}]}}"#)),
        (8, format!(r#"{{"records":[{{"name":"i.1","at_ms":1,"sandbox_id":"{id}","method":"connect","host":"a.test","port":443,"decision":"denied","code":"host_denied","rule":"deny *","bytes_out":0,"bytes_in":0,"duration_ms":1}}]}}"#)),
        (8, format!(r#"{{"records":[{{"name":"i.2","at_ms":1,"sandbox_id":"{id}","method":"dns","host":"a.test","port":0,"answers":["9.9.9.9","2606:4700::1"],"answers_unlisted":1,"ttl_s":60,"decision":"allowed","bytes_out":0,"bytes_in":0,"duration_ms":1}}]}}"#)),
        (9, r#"{"epoch":1,"enforcement":[],"refused":{"why":"x","in_force":{"mode":"allowlist","allow":["a.test:443"]}}}"#.to_owned()),
        (10, r#"{"facts":[{"kind":"ended","seq":2,"at_ms":1,"of":1,"end":{"how":"exited","code":0},"stdout_bytes":0,"stderr_bytes":0,"patterns_found":1},{"kind":"missed","seq":3,"at_ms":1,"count":18446744073709551615}]}"#.to_owned()),
    ];
    let seeds: Vec<Vec<u8>> = texts
        .iter()
        .map(|(which, text)| [&[*which], text.as_bytes()].concat())
        .collect();
    let words: [&[u8]; 12] = [
        b"null",
        b"-1",
        b"18446744073709551615",
        b"[[[[[[[[",
        b"\"\\ud800\"",
        b"\"\\u0000\"",
        b"\"kind\":",
        b"\"epoch\":",
        b"1e400",
        b",{}",
        id.as_bytes(),
        job.as_bytes(),
    ];
    engine::run("server node", &seeds, &words, node);
}

/// A policy that is read and found to be one can be merged with itself, and then is no more than it was.
fn policy(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let spec = serde_json::from_str(text).ok();
    let spec: Option<api::policy::PolicySpec> = spec.or_else(|| toml_edit::de::from_str(text).ok());
    let Some(spec) = spec else {
        return;
    };
    let policy = match convert::policy::read(spec) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(error.code().row().http_status < 500, "{error:?}");
            return;
        }
    };
    if policy.validate().is_err() {
        return;
    }
    let layer = model::policy::LayerRef {
        layer: policy.layer,
        priority: policy.priority,
        name: "p".to_owned(),
        version: 1,
    };
    let once = model::policy::Permit::of(&layer, &policy);
    let twice = once.clone().and(once.clone());
    assert_eq!(once.trace(), twice.trace());
    drop((once.ceiling(), once.within(u64::MAX)));
}

#[test]
fn documents_of_policies_are_read_or_refused() {
    let seeds = [
        r#"{"version":1,"layer":"tenant","network":{"modes":["allowlist"],"allow":["*.a.test:443"],"deny":["10.0.0.0/8"]},"resources":{"memory_bytes":1073741824}}"#,
        r#"{"version":1,"layer":"principal","of":"p","priority":3,"commands":{"forbid":["sudo","rm -rf /*"],"allow":["ls"],"no_operators":true},"files":{"put":["/home/user/*"]}}"#,
        r#"{"version":1,"layer":"volume","of":"data","network":{"mode":"none"},"secrets":[]}"#,
        r#"{"version":1,"layer":"global","drivers":["linux"],"profiles":{"allow":["py*"],"allow_root":false},"approvals":{"allow_root":"ask"},"rego":"package policy\nallow := true"}"#,
        "version = 1\nlayer = \"tenant\"\n\n[network]\nallow = [\"*.a.test:443\"]\n\n[resources]\nmemory_bytes = 1073741824\n\n[commands]\nforbid = [\"sudo\"]\n",
        "version = 1\nlayer = \"principal\"\nof = \"p\"\ndependencies = [\"npm:*\"]\n[[secrets]]\nname = \"a\"\nas = [\"env\"]\n",
    ];
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|text| text.as_bytes().to_vec()).collect();
    let words: [&[u8]; 14] = [
        b"\n[network]\n",
        b"\n[[secrets]]\n",
        b"= \"",
        b"\"\"\"",
        b"= [",
        b"\"*\"",
        b"0x7fffffffffffffff",
        b"18446744073709551615",
        b"[[[[[[[[",
        b"\"mode\":",
        b"\"layer\":\"",
        b"\"allow\":[",
        b"\xff\xff",
        b"a.b.c.d = 1\n",
    ];
    engine::run("server policy", &seeds, &words, policy);
}
