//! What a server says about the fields of a request, in the words of the command line.

use crate::cli::units;
use api::{Code, ErrorBody};

/// The error as a person should read it who typed these options and not fields. What is said once in the
/// message is not said again in the details. A field that was made from no option, because it is of a file, or of a
/// policy, keeps its name.
pub(crate) fn of_command_line(body: &ErrorBody, options: &[String]) -> ErrorBody {
    let mut body = body.clone();
    for detail in &mut body.details {
        detail.message = with_units(&detail.field, &detail.message);
        detail.field = match option(&detail.field).filter(|option| is_typed(option, options)) {
            Some(option) => numbered(option, &detail.field),
            None => format!("{}:", detail.field),
        };
    }
    match body.details.as_slice() {
        [] => {}
        [one] => {
            body.message = format!("{} {}", one.field, one.message);
            body.details.clear();
        }
        // What the server says names what is waited for, and nothing is wrong.
        _ if body.code == Code::ApprovalNeeded.row().code => {}
        many => body.message = format!("{} things are wrong", many.len()),
    }
    if body.code == Code::QuotaExceeded.row().code {
        body.message = amounts(&body.message);
    }
    // A hint of the place where the error was made is as good as any; that of the table is for a client of the API.
    let code = Code::parse(&body.code).filter(|code| code.row().hint == body.hint);
    if let Some(hint) = code.and_then(hint) {
        body.hint = hint.to_owned();
    }
    body
}

/// Whether the command that was typed has this option. What stands without one is said of commands that all have it.
fn is_typed(option: &str, options: &[String]) -> bool {
    let long = option.trim_end_matches(':').strip_prefix("--");
    long.is_none_or(|long| options.iter().any(|one| one == long))
}

/// Options that stand once for each entry of the list, in its order: so the number of the entry is theirs. Of files
/// and variables one option can make many.
const NUMBERED: [&str; 6] = [
    "--allow:",
    "--deny:",
    "--rule:",
    "--secret:",
    "--volume:",
    "--dns:",
];

/// The option, and which one of those with its name.
fn numbered(option: &str, field: &str) -> String {
    let index = field
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    let number = index.and_then(|(index, _)| index.parse::<u32>().ok());
    match number.filter(|_| NUMBERED.contains(&option)) {
        Some(number) => {
            let name = option.trim_end_matches(':');
            format!("{name} number {}:", number.saturating_add(1))
        }
        None => option.to_owned(),
    }
}

/// What to type where the table says what to send.
fn hint(code: Code) -> Option<&'static str> {
    let known = HINTS.iter().find(|(of, _)| *of == code);
    known.map(|(_, hint)| *hint)
}

const HINTS: [(Code, &str); 5] = [
    (
        Code::InvalidArgument,
        "`--help` after the command says what each option takes",
    ),
    (
        Code::LimitBeyondMachine,
        "ask for less; `cofferdam doctor` on the node shows what it has",
    ),
    (
        Code::Unauthenticated,
        "name the token of that server with COFFERDAM_TOKEN or --token; `cofferdam up` keeps it in its state directory",
    ),
    (
        Code::SandboxPaused,
        "`cofferdam sandbox resume ID` lets it go on",
    ),
    (
        Code::NotFound,
        "check what was named; `ls` of the same command lists what there is",
    ),
];

/// The option that a field of a request was made from.
fn option(field: &str) -> Option<&'static str> {
    let name = field.split('[').next().unwrap_or_default();
    Some(match name {
        "argv" => "the command:",
        "code" => "--code:",
        "comment" => "--comment:",
        "count" => "--count",
        "cwd" => "--cwd:",
        "egress.sandbox" => "--sandbox:",
        "egress.to" => "--to:",
        "files" => "--file:",
        "for_ms" => "--time:",
        "from" => "--from:",
        "headers" => "--header:",
        "host" => "--host:",
        "labels" => "--label:",
        "limits.cpu_millis" => "--cpu",
        "limits.disk_bytes" => "--disk",
        "limits.memory_bytes" => "--memory",
        "limits.pids" => "--pids",
        "metadata" => "--metadata:",
        "name" => "the name:",
        "network.allow" => "--allow:",
        "network.deny" => "--deny:",
        "network.dns" => "--dns:",
        "network.limits.bytes" | "network.limits.connections" | "network.limits.per_minute" => {
            "--net-limit:"
        }
        "network.mode" => "--net:",
        "network.presets" => "--preset:",
        "network.requests" | "network.rules" => "--rule:",
        "network.upstream" => "--via:",
        "network.upstream_ca" => "--via-ca:",
        "outputs" => "--out:",
        "profile" => "--profile:",
        "root" => "--root:",
        "scope" => "--for:",
        "secrets" => "--secret:",
        "size_bytes" => "--size",
        "snapshot" => "the snapshot:",
        "timeout_ms" => "--timeout",
        "url" => "the URL:",
        "user" => "--user:",
        "value" => "the value:",
        "volumes" => "--volume:",
        "why" => "--why:",
        _ if name.starts_with("metadata.") => "--metadata:",
        _ if name.starts_with("network.dependencies") => "--package:",
        _ if name.starts_with("network.rules") => "--rule:",
        _ if name == "env" || name.starts_with("env.") => "--env:",
        _ => return None,
    })
}

/// Numbers with the unit that the field's name ends with.
fn with_units(field: &str, message: &str) -> String {
    let show: fn(u64) -> String = if field.ends_with("_bytes") {
        units::show_size
    } else if field.ends_with("_ms") {
        units::show_ms
    } else if field.ends_with("_millis") {
        units::show_cpus
    } else {
        return message.to_owned();
    };
    let word = |word: &str| {
        let digits = word.trim_end_matches([';', ',', '.']);
        let end = word.strip_prefix(digits).unwrap_or_default();
        match digits.parse() {
            Ok(number) if number > 0 => show(number) + end,
            Ok(_) | Err(_) => word.to_owned(),
        }
    };
    let words: Vec<String> = message.split(' ').map(word).collect();
    words.join(" ")
}

/// What is said of a quota, in the units that `quota ls` has. The limit stands in the message, between backticks.
fn amounts(message: &str) -> String {
    let limit = message.split('`').nth(1).unwrap_or_default();
    let shown = with_units(limit, message).replacen("B bytes of ", "B of ", 1);
    shown.replacen(" thousandths of a processor ", " processors ", 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::error::ErrorDetail;
    use model::quota::{Limit, Over, Whose};

    fn said(fields: &[(&str, &str)]) -> ErrorBody {
        let detail = |(field, message): &(&str, &str)| ErrorDetail {
            field: (*field).to_owned(),
            code: "out_of_range".to_owned(),
            message: (*message).to_owned(),
        };
        let mut body = Code::InvalidArgument.body("as the server says it", "");
        body.details = fields.iter().map(detail).collect();
        of_command_line(&body, &options())
    }

    fn options() -> Vec<String> {
        let all = "cpu memory timeout env allow via via-ca dns net-limit secret volume metadata size file rule \
                   comment for time to sandbox package why";
        all.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn one_wrong_field_is_said_once_by_its_option_and_in_units() {
        let body = said(&[("timeout_ms", "must be between 1 and 86400000")]);
        assert_eq!(body.message, "--timeout must be between 1 ms and 24 h");
        assert!(body.details.is_empty() && body.hint.contains("--help"));
        let body = said(&[(
            "limits.memory_bytes",
            "must be between 1048576 and 2147483648",
        )]);
        assert_eq!(body.message, "--memory must be between 1 MiB and 2 GiB");
        let body = said(&[("timeout_ms", "must not be 0")]);
        assert_eq!(body.message, "--timeout must not be 0");
        let body = said(&[(
            "for_ms",
            "a session has more than nothing and at most 86400000",
        )]);
        let expect = "--time: a session has more than nothing and at most 24 h";
        assert_eq!(body.message, expect);
        let body = said(&[("limits.cpu_millis", "must be between 10 and 4000")]);
        assert_eq!(body.message, "--cpu must be between 0.01 and 4");
        let body = said(&[("env.", "not a name for a variable")]);
        assert_eq!(body.message, "--env: not a name for a variable");
    }

    #[test]
    fn every_option_is_called_by_its_name() {
        for (field, option) in [
            ("network.allow[2]", "--allow number 3:"),
            ("network.rules[0].path", "--rule number 1:"),
            ("network.rules", "--rule:"),
            ("network.upstream", "--via:"),
            ("network.upstream_ca", "--via-ca:"),
            ("network.dns[0]", "--dns number 1:"),
            ("network.limits.bytes", "--net-limit:"),
            ("secrets[0].name", "--secret number 1:"),
            ("volumes[1]", "--volume number 2:"),
            ("metadata.a", "--metadata:"),
            ("size_bytes", "--size"),
            ("for_ms", "--time:"),
            ("scope", "--for:"),
            ("comment", "--comment:"),
            ("why", "--why:"),
            ("egress.to", "--to:"),
            ("egress.sandbox", "--sandbox:"),
            ("network.dependencies", "--package:"),
            ("network.dependencies.pip", "--package:"),
        ] {
            let body = said(&[(field, "is wrong")]);
            assert_eq!(body.message, format!("{option} is wrong"), "{field}");
        }
    }

    #[test]
    fn hints_name_options_and_commands_and_one_of_the_place_stays() {
        let body = of_command_line(&Code::Unauthenticated.body("x".to_owned(), ""), &[]);
        assert!(body.hint.contains("--token"), "{}", body.hint);
        let mut body = Code::SandboxPaused.body("x".to_owned(), "");
        assert!(of_command_line(&body, &[]).hint.contains("sandbox resume"));
        body.hint = "of the place".to_owned();
        assert_eq!(of_command_line(&body, &[]).hint, "of the place");
    }

    #[test]
    fn several_wrong_fields_are_counted_and_listed() {
        let body = said(&[("files[3].path", "the path is empty"), ("other", "is 5")]);
        assert_eq!(body.message, "2 things are wrong");
        let fields: Vec<&str> = body.details.iter().map(|d| d.field.as_str()).collect();
        assert_eq!(fields, ["--file:", "other:"]);
        assert_eq!(body.details[1].message, "is 5");
    }

    #[test]
    fn what_waits_for_a_person_is_named_and_not_counted_among_what_is_wrong() {
        let said = "a person has to say yes: apv_1 (approvals.allow_root)";
        let mut body = Code::ApprovalNeeded.body(said, "");
        let detail = |field: &str, message: &str| ErrorDetail {
            field: field.to_owned(),
            code: "approval_needed".to_owned(),
            message: message.to_owned(),
        };
        body.details = vec![
            detail("approval", "apv_1"),
            detail("approvals.allow_root", "root"),
        ];
        let shown = of_command_line(&body, &options());
        assert_eq!(shown.message, said);
        assert_eq!(shown.details.len(), 2);
    }

    #[test]
    fn what_is_used_of_a_quota_is_said_in_units() {
        let (kib, mib, gib) = (1 << 10, 1 << 20, 1 << 30);
        for (limit, [used, most, takes], expect) in [
            (
                Limit::MemoryBytes,
                [gib, gib, 512 * mib],
                "has 1 GiB of 1 GiB of memory in use, and this takes 512 MiB",
            ),
            (
                Limit::DiskBytes,
                [0, gib, 2 * gib],
                "may have 1 GiB of storage in use, and this takes 2 GiB",
            ),
            (
                Limit::ArtifactBytes,
                [kib, kib, 2 * kib],
                "has 1 KiB of 1 KiB of files kept, and this takes 2 KiB",
            ),
            (
                Limit::CpuMillis,
                [500, 2000, 1750],
                "has 0.5 of 2 processors in use, and this takes 1.75",
            ),
            (
                Limit::MemoryBytes,
                [0, 0, kib],
                "has 0 of 0 bytes of memory in use, and this takes 1 KiB",
            ),
            (Limit::Jobs, [2, 2, 1], "has 2 of 2 jobs running"),
        ] {
            // In the words of whoever refuses it: were they others, they would be shown as they come.
            let over = Over {
                whose: Whose::Principal("user:p".parse().unwrap()),
                limit,
                most,
                used,
                takes,
            };
            let begin = format!("the quota `{}` is reached:", limit.as_str());
            let raises = over.who_raises();
            let body = Code::QuotaExceeded.body(format!("{begin} {over}; {raises}"), "");
            let shown = of_command_line(&body, &[]);
            assert_eq!(shown.message, format!("{begin} user:p {expect}; {raises}"));
        }
    }

    #[test]
    fn a_field_that_was_made_from_no_option_keeps_its_name() {
        let mut body = Code::InvalidArgument.body("as the server says it", "");
        body.details = vec![ErrorDetail {
            field: "network.allow[0]".to_owned(),
            code: "network_rules".to_owned(),
            message: "is no host".to_owned(),
        }];
        // As of a file, by a command that has no such option.
        let said = of_command_line(&body, &["json".to_owned()]);
        assert_eq!(said.message, "network.allow[0]: is no host");
        let typed = of_command_line(&body, &["allow".to_owned()]);
        assert_eq!(typed.message, "--allow number 1: is no host");
    }
}
