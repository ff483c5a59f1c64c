#!/bin/sh
# What `cargo xtask fuzz` compiles the rooms of this workspace with, and no crate of others: code that counts what an
# input reaches. Programs that build something, and macros, run in the compiler and are left alone.
case " $* " in
    *" build_script_build "* | *" --crate-type proc-macro "*) exec "$@" ;;
    *) exec "$@" -C instrument-coverage --cfg guided ;;
esac
