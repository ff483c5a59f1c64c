//! The command line as a whole, and what becomes of what people type.

use super::*;

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

/// The library finds such a one only when it reads the command, and panics then.
#[test]
fn no_command_has_an_option_that_is_one_of_all_commands() {
    fn check(command: &clap::Command, globals: &[String]) {
        for one in command.get_subcommands() {
            let own = one.get_arguments().filter(|arg| !arg.is_global_set());
            let mut own = own.map(|arg| arg.get_id().as_str());
            let twice = own.find(|id| globals.iter().any(|global| global == id));
            assert_eq!(twice, None, "{}", one.get_name());
            check(one, globals);
        }
    }
    let all = command();
    let globals = all.get_arguments().filter(|arg| arg.is_global_set());
    let globals: Vec<String> = globals.map(|arg| arg.get_id().to_string()).collect();
    assert!(globals.iter().any(|one| one == "state"), "{globals:?}");
    check(&all, &globals);
}

#[test]
fn an_address_without_a_host_is_refused_with_an_example() {
    let refused = Args::try_parse_from(["cofferdam", "up", "--listen", "7300"]);
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("127.0.0.1:7300"), "{said}");
}

#[test]
fn everything_after_the_dashes_is_the_command() {
    let args = Args::try_parse_from(["cofferdam", "run", "--cpu", "0.5", "--", "ls", "--json"]);
    let Command::Run(run) = args.unwrap().command else {
        panic!("run")
    };
    assert_eq!(run.command, ["ls", "--json"]);
    assert_eq!(run.cpu, Some(500));
    assert!(!run.json);
}

#[test]
fn help_shows_only_options_that_the_command_uses() {
    let help = |words: &[&str]| {
        let shown = command().try_get_matches_from(words).unwrap_err();
        shown.to_string()
    };
    for name in ["up", "doctor"] {
        let help = help(&["cofferdam", name, "--help"]);
        assert!(
            help.contains("--state") && !help.contains("--url"),
            "{help}"
        );
        assert!(!help.contains("--token"), "{help}");
    }
    assert!(help(&["cofferdam", "run", "--help"]).contains("--token"));
    for name in ["completions", "config"] {
        assert!(!help(&["cofferdam", name, "--help"]).contains("--state"));
    }
}

#[test]
fn a_hidden_option_is_accepted_and_an_empty_one_is_none() {
    let parse = |words: &[&str]| parse_from(words.iter().map(OsString::from).collect());
    let place = |words: &[&str]| parse(words).unwrap().place;
    assert!(parse(&["cofferdam", "up", "--url", "unix:/x", "--state", "/s"]).is_ok());
    let before = place(&["cofferdam", "--state", "/s", "doctor"]);
    let after = place(&["cofferdam", "doctor", "--state", "/s"]);
    assert_eq!(
        (before.state.clone(), before.state),
        (after.state, Some("/s".into()))
    );
    let empty = place(&["cofferdam", "--state=", "--url=", "--token=", "doctor"]);
    assert_eq!((empty.state, empty.url, empty.token), (None, None, None));
}

#[test]
fn a_node_counts_what_is_left_behind_by_the_times_that_reap_has_by_default() {
    let args = Args::try_parse_from(["cofferdam", "node", "reap"]).unwrap();
    let Command::Node(node) = args.command else {
        panic!("it is no command of nodes");
    };
    let Some(NodeCommand::Reap { idle, age, .. }) = node.command else {
        panic!("it is another command");
    };
    assert_eq!((idle, age), (crate::reap::IDLE, crate::reap::AGE));
}
