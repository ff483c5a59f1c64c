//! What to do when no sandbox can be made.

use std::path::Path;

/// Where AppArmor says whether it holds ordinary users off.
const RESTRICTED: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

/// What container managers leave in a container.
const MARKS: [&str; 3] = [
    "/.dockerenv",
    "/run/.containerenv",
    "/run/systemd/container",
];

/// What to do about namespaces, by what is in the way.
pub(super) fn namespaces(why: &str) -> String {
    if why.contains("AppArmor") {
        return apparmor();
    }
    let setting = if why.contains("max_user_namespaces") {
        "user.max_user_namespaces=15000"
    } else {
        "kernel.unprivileged_userns_clone=1"
    };
    format!(
        "as root: `sysctl -w {setting}`, and write the same into /etc/sysctl.d/60-cofferdam.conf to keep \
         it; or run as root"
    )
}

/// What to do when the sandbox itself failed, by what is most often the reason.
pub(super) fn sandbox(is_user: bool) -> String {
    if let Some(mark) = MARKS.into_iter().find(|mark| Path::new(mark).exists()) {
        return format!(
            "this is a container ({mark} is there), and it may not make another: start it with \
             `--privileged`, or with `--cap-add SYS_ADMIN --security-opt seccomp=unconfined \
             --security-opt apparmor=unconfined --security-opt systempaths=unconfined`"
        );
    }
    let restricted = std::fs::read_to_string(RESTRICTED);
    if is_user && restricted.is_ok_and(|text| text.trim() == "1") {
        return apparmor();
    }
    "what is found names the step that the kernel refused; AppArmor or SELinux say in its log \
     (`dmesg`, `journalctl -k`) what they denied"
        .to_owned()
}

/// Two ways, the narrow one first.
fn apparmor() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "/usr/local/bin/cofferdam".into());
    let program = program.display();
    format!(
        "AppArmor keeps ordinary users from making namespaces. As root, allow it for this program: write\n  \
         abi <abi/4.0>,\n  \
         include <tunables/global>\n  \
         profile cofferdam {program} flags=(unconfined) {{ userns, }}\n\
         into /etc/apparmor.d/cofferdam and type `apparmor_parser -r /etc/apparmor.d/cofferdam`; or for all \
         programs: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`; or run as root"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_fits_what_is_in_the_way() {
        assert!(namespaces("the sysctl user.max_user_namespaces is 0").contains("=15000"));
        assert!(namespaces("kernel.unprivileged_userns_clone is 0").contains("clone=1"));
        let text = namespaces("AppArmor restricts user namespaces of ordinary users");
        assert!(
            text.contains("userns, }") && text.contains("apparmor_parser"),
            "{text}"
        );
        assert!(!sandbox(false).is_empty());
    }
}
