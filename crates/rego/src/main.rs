//! The child of the tests of this room.

fn main() -> std::process::ExitCode {
    rego::serve()
}
