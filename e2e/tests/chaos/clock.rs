//! The time of day of one process, moved by a library that is loaded before it. The machine's own clock is
//! everybody's, and a time namespace moves only the other clocks.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long *seconds;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) seconds = page;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_REALTIME && seconds) time->tv_sec += *seconds;
    return failed;
}
"#;

/// The library, or why there is none.
pub(crate) fn library(dir: &Path) -> Option<PathBuf> {
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    std::fs::write(&source, LIBRARY).ok()?;
    #[expect(
        clippy::disallowed_methods,
        reason = "a compiler gets what cargo gives to a test"
    )]
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]);
    let made = compiler.arg(&library).arg(&source).status();
    made.is_ok_and(|status| status.success()).then_some(library)
}

/// The clock of one process, and of those that follow it.
#[derive(Debug)]
pub(crate) struct Clock {
    path: PathBuf,
    file: File,
    library: Option<PathBuf>,
}

impl Clock {
    pub(crate) fn new(path: PathBuf, library: Option<PathBuf>) -> Clock {
        let file = File::create(&path).expect("a file for a clock");
        let clock = Clock {
            path,
            file,
            library,
        };
        clock.set(0);
        clock
    }

    /// Ahead of the machine by so many seconds.
    pub(crate) fn set(&self, seconds: i64) {
        let written = self.file.write_all_at(&seconds.to_ne_bytes(), 0);
        written.expect("a clock can be set");
    }

    /// What makes a command look at it.
    pub(crate) fn give(&self, command: &mut Command) {
        if let Some(library) = &self.library {
            command
                .env("LD_PRELOAD", library)
                .env("CHAOS_CLOCK", &self.path);
        }
    }
}
